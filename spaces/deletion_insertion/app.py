"""The metric on one picture: how a classifier's probability follows the pixels that a method calls important."""

from functools import lru_cache

import gradio as gr
import numpy as np
import PIL.Image
import torch
from huggingface_hub import is_offline_mode
from transformers import ViTImageProcessorPil

import hf_explain
from hf_explain.data.scenes import draw_scene
from hf_explain.data.small_classifiers import build_classifier
from hf_explain.faithfulness import measure
from hf_explain.reports.curves import draw_curves
from hf_explain.reports.sheet import enlarge, on_picture

TINY = "tiny, untrained (needs no network)"
CLASSIFIERS = ["google/vit-base-patch16-224", "facebook/deit-tiny-patch16-224", "microsoft/resnet-18", TINY]
PRESETS = ["aha", "rise", "xplique"]  # those that measure deletion and insertion on one scale
FLOOR = "random order"
SIDE = 448  # pixels of the picture that is shown: small ones would stay small


@lru_cache(maxsize=2)
def load(name):
    """The classifier of a Hub id; the tiny one shows how the app works, not what a classifier looks at."""
    if name == TINY:
        processor = ViTImageProcessorPil(size={"height": 64, "width": 64})
        return hf_explain.Classifier(build_classifier("vit"), processor).freeze()
    return hf_explain.Classifier.from_pretrained(name)


def explain(picture, name, method, preset):
    """The map on the picture, the curves beside those of a random order, a table of areas, and the protocol."""
    try:
        classifier = load(name)
    except (hf_explain.ExplainerError, OSError, ValueError) as error:
        raise gr.Error(f"{error} Without a network, choose: {TINY}.", print_exception=False) from error
    try:
        picture = picture or PIL.Image.fromarray(draw_scene(seed=0, index=0, size=224).image)
        pixel_values = torch.as_tensor(
            classifier.image_processor(images=picture.convert("RGB"), return_tensors="pt")["pixel_values"]
        )
        with torch.no_grad():
            scores = classifier.scores(classifier(pixel_values))
        targets = scores.argmax(-1)
        maps = {method: hf_explain.METHODS[method](classifier, pixel_values, targets)}
        maps[FLOOR] = hf_explain.METHODS["random"](classifier, pixel_values)
        reports = measure(classifier, pixel_values, maps, targets, preset)
    except hf_explain.ExplainerError as error:
        raise gr.Error(str(error), print_exception=False) from error
    label = f"{classifier.id2label[int(targets)]} ({float(scores.max()):.0%})"
    seen = classifier.pixel_space.to_rgb(pixel_values[0]).clamp(0, 1).permute(1, 2, 0).cpu().numpy()
    shown = on_picture(PIL.Image.fromarray((255 * seen).round().astype(np.uint8)), maps[method][0])
    shown = enlarge(shown, SIDE)
    curves = {one: {kind: curve[0].tolist() for kind, curve in found.curves.items()} for one, found in reports.items()}
    areas = [
        [one, *(f"{float(area):.3f}" for area in (found.deletion, found.insertion))] for one, found in reports.items()
    ]
    return shown, draw_curves(curves, yardsticks=[FLOOR], title=label), areas, reports[method].protocol


with gr.Blocks(title="Deletion and insertion", analytics_enabled=False) as demo:
    gr.Markdown(
        "# Deletion and insertion\n"
        "Which pixels a method calls important, and what the classifier says when they are removed, most important "
        "first, or brought back. **Deletion: lower is better. Insertion: higher is better.** Compare with the random "
        "order: areas of one picture alone mean little. Without a picture of yours an embedded one is used."
    )
    with gr.Row():
        with gr.Column():
            picture = gr.Image(type="pil", label="picture")
            name = gr.Dropdown(
                CLASSIFIERS,
                value=TINY if is_offline_mode() else CLASSIFIERS[0],
                allow_custom_value=True,
                label="image classifier: one of these, or any Hub id",
            )
            method = gr.Dropdown(
                [one for one in hf_explain.METHODS if one != "random"], value="grad_cam", label="method"
            )
            preset = gr.Dropdown(PRESETS, value=PRESETS[0], label="preset")
            button = gr.Button("Measure", variant="primary")
        with gr.Column():
            shown = gr.Image(label="what the classifier sees, and where the map is high", interactive=False)
            areas = gr.Dataframe(headers=["order", "deletion", "insertion"], label="areas", interactive=False)
    curves = gr.Image(label="curves", interactive=False)
    protocol = gr.JSON(label="protocol")
    outputs = [shown, curves, areas, protocol]
    button.click(explain, [picture, name, method, preset], outputs)

if __name__ == "__main__":
    demo.launch(ssr_mode=False)
