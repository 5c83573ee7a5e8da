"""The metric on one grid of 2 x 2 pictures: do the maps of the four classes keep to their cells?"""

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
from hf_explain.localization import average_precision, localization_score, pointing_game
from hf_explain.localization.grid_scores import cell_masks, enlarge
from hf_explain.localization.grids import Grids, explain_grids
from hf_explain.reports.sheet import on_picture

TINY = "tiny, untrained (needs no network)"
CLASSIFIERS = ["microsoft/resnet-18", "facebook/convnext-tiny-224", "google/vit-base-patch16-224", TINY]
METHODS = ["input_x_gradient", "integrated_gradients", "gradient", "grad_cam"]
LAYERS = ["input", "middle", "final"]
SQUARE = {"columns": 2, "height": "fit-content"}  # all four are seen at once
CELLS = ["top left", "top right", "bottom left", "bottom right"]


@lru_cache(maxsize=2)
def load(name):
    """The classifier of a Hub id; the tiny one shows how the app works, not what a classifier looks at."""
    if name == TINY:
        processor = ViTImageProcessorPil(size={"height": 64, "width": 64})
        return hf_explain.Classifier(build_classifier("resnet"), processor).freeze()
    return hf_explain.Classifier.from_pretrained(name)


def explain(gallery, name, method, layer):
    """The four maps on the grid, a table of their scores, and what is to be said about them."""
    if gallery and len(gallery) != 4:
        said = f"{len(gallery)} pictures were given; give four, one per cell, or none for embedded ones."
        raise gr.Error(said, print_exception=False)
    pictures = [entry[0].convert("RGB") for entry in gallery or []]
    pictures = pictures or [PIL.Image.fromarray(draw_scene(seed=0, index=i, size=224).image) for i in range(4)]
    try:
        classifier = load(name)
    except (hf_explain.ExplainerError, OSError, ValueError) as error:
        raise gr.Error(f"{error} Without a network, choose: {TINY}.", print_exception=False) from error
    try:
        pixel_values = torch.cat(
            [
                torch.as_tensor(classifier.image_processor(images=p, return_tensors="pt")["pixel_values"])
                for p in pictures
            ]
        )
        with torch.no_grad():
            classes = classifier(pixel_values).argmax(-1)
        grids = Grids(pixel_values, torch.arange(4)[None], classes[None].cpu(), n=2, kind="gridpg")
        maps = enlarge(explain_grids(classifier, grids, method, layer), grids.size)
        scores = localization_score(maps, grids.cells)
        evidence = cell_masks(grids.cells, 2, grids.size)
        pointed, precision = pointing_game(maps, evidence), average_precision(maps, evidence)
    except (hf_explain.ExplainerError, RuntimeError) as error:
        raise gr.Error(str(error), print_exception=False) from error
    seen = classifier.pixel_space.to_rgb(grids.pictures()[0]).clamp(0, 1).permute(1, 2, 0).numpy()
    grid = PIL.Image.fromarray((255 * seen).round().astype(np.uint8))
    labels = [classifier.id2label[c] for c in classes.tolist()]
    shown = [(on_picture(grid, one), f"{cell}: {label}") for one, cell, label in zip(maps, CELLS, labels)]
    table = [
        [cell, label, f"{float(scores.values[i]):.3f}", f"{float(pointed[i]):g}", f"{float(precision[i]):.3f}"]
        for i, (cell, label) in enumerate(zip(CELLS, labels))
    ]
    note = f"Mean localization **{float(scores.values.mean()):.3f}**; by chance 0.25."
    if len(set(labels)) < 4:
        note += " Some cells have the same class, so a good map may be in several of them: choose other pictures."
    return shown, table, note


with gr.Blocks(title="Localization in grids", analytics_enabled=False) as demo:
    gr.Markdown(
        "# Localization in grids\n"
        "Four pictures become one, and each map is of the class that the classifier sees in one cell. How much of the "
        "map's positive mass is in that cell? Without pictures of yours, embedded ones are used."
    )
    with gr.Row():
        with gr.Column():
            gallery = gr.Gallery(
                type="pil", file_types=["image"], label="four pictures of different classes", columns=2
            )
            name = gr.Dropdown(
                CLASSIFIERS,
                value=TINY if is_offline_mode() else CLASSIFIERS[0],
                allow_custom_value=True,
                label="image classifier: one of these, or any Hub id that takes larger pictures",
            )
            method = gr.Dropdown(METHODS, value="grad_cam", label="method")
            layer = gr.Dropdown(LAYERS, value="final", label="layer whose maps are explained")
            button = gr.Button("Measure", variant="primary")
        with gr.Column():
            shown = gr.Gallery(label="maps of the four classes", interactive=False, **SQUARE)
            note = gr.Markdown()
    headers = ["cell", "class", "localization", "pointing game", "average precision"]
    table = gr.Dataframe(headers=headers, label="scores", interactive=False)
    outputs = [shown, table, note]
    button.click(explain, [gallery, name, method, layer], outputs)

if __name__ == "__main__":
    demo.launch(ssr_mode=False)
