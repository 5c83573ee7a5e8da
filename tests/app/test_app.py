"""The app: what it computes and draws, what it lets in, and its endpoints as programs call them."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from families import LABELS, build, processor
from transformers import pipeline

import hf_explain
from hf_explain import ExplainerError
from hf_explain.app import painting, views
from hf_explain.app.models import LEARNED, Model, Models
from hf_explain.app.uploads import Picture
from hf_explain.data.scenes import draw_scene
from hf_explain.demo import kept as own
from hf_explain.demo.settings import Demo
from hf_explain.faithfulness import measure
from hf_explain.modeling.perturbation import blend
from hf_explain.modeling.references import reference_image

# ---- what is computed ----


def test_predictions_are_the_classifiers(model, picture):
    seen = views.predict(model, picture, 3)
    logits = model.classifier(model.pipe().preprocess(picture.image)["pixel_values"])[0]
    probabilities = logits.softmax(-1)
    assert [one.index for one in seen.top] == logits.argsort(descending=True)[:3].tolist()
    assert [one.score for one in seen.top] == pytest.approx(probabilities.sort(descending=True).values[:3].tolist())
    assert seen.names == tuple(LABELS.values()) and seen.methods[0] == LEARNED


def test_what_is_asked_first(model, picture, monkeypatch):
    """The explainer; of a plain classifier Grad-CAM, and where that is not defined what is so everywhere."""
    plain = Model("plain", model.classifier)
    assert [views.predict(one, picture).first for one in (model, plain)] == [LEARNED, "grad_cam"]

    def refuse(*args):
        raise ExplainerError("no layer was found; choose another method.")

    monkeypatch.setattr(views, "last_layer", refuse)
    assert views.predict(plain, picture).first == "input_x_gradient"


@pytest.mark.parametrize(("method", "steps"), [(LEARNED, 0), (LEARNED, 2), ("input_x_gradient", 0), ("gradient", 0)])
def test_a_map_is_that_of_the_pipeline(model, picture, folder, method, steps):
    one = views.attribute(model, picture, "zebra", method, steps)
    explain = pipeline("image-attribution", model=folder)
    options = {"refine_steps": steps, "seed": 0} if steps else {}
    if method != LEARNED:
        classifier = explain.model.classifier
        explain = pipeline("image-attribution", model=classifier.model, image_processor=classifier.image_processor)
        options = {"method": method, "seed": 0}
    expected = explain(picture.image, target="zebra", **options)[0]
    np.testing.assert_allclose(one.attribution, expected["attribution"], atol=1e-5)
    assert one.prediction.score == pytest.approx(expected["score"]) and one.seconds > 0
    assert one.signed == (method == "input_x_gradient")  # those of gradient are never below zero


def test_what_the_curves_say_is_what_the_classifier_says(model, picture):
    """The scrubber's pictures, shown to the classifier, give the curve's points."""
    one = views.attribute(model, picture)
    walk = views.walk(model, one, "blur")
    report = measure(model.classifier, one.pixel_values, one.at_model, preset="aha", reference="blur")
    assert walk.areas == pytest.approx({"deletion": float(report.deletion[0]), "insertion": float(report.insertion[0])})
    space = model.classifier.pixel_space
    for share in (0.0, 0.35, 1.0):
        for name, (shown, probability) in views.steps_of(walk, share).items():
            rgb = torch.from_numpy(np.array(shown)).permute(2, 0, 1)[None] / 255
            with torch.no_grad():
                said = model.classifier.scores(model.classifier(space.from_rgb(rgb)))[0, one.prediction.index]
            assert float(said) == pytest.approx(probability, abs=5e-3), (name, share)  # the picture has 8 bits
    whole, none = (np.asarray(views.steps_of(walk, share)["deletion"][0]) for share in (0, 1))
    assert (whole != none).mean() > 0.5


def test_the_smallest_region_keeps_the_prediction(model, picture):
    one = views.attribute(model, picture)
    share = views.region(model, one, "black")
    rank = hf_explain.modeling.perturbation.rank_each(one.at_model, views.SEED)
    blank = reference_image(one.pixel_values, model.classifier.pixel_space, "black")

    steps = [i / 40 for i in range(41)]
    removed = torch.cat([rank >= round(part * rank[0].numel()) for part in steps])
    with torch.no_grad():
        said = model.classifier(blend(one.pixel_values.expand(41, -1, -1, -1), removed, blank)).argmax(-1)
    kept = (said == one.prediction.index).tolist()
    assert share == pytest.approx(min(steps[i] for i in range(41) if all(kept[i:])))
    other = next(name for name in model.names if name != one.prediction.name)
    with pytest.raises(ExplainerError, match="choose the prediction to see it"):
        views.region(model, views.attribute(model, picture, other))


def test_the_difference_of_two_classes_is_one_of_ranks(model, picture):
    one, two = (views.attribute(model, picture, name, "input_x_gradient") for name in ("zebra", "tiger cat"))
    apart = views.difference(one, two)
    np.testing.assert_allclose(apart, -views.difference(two, one))
    assert apart.min() >= -1 and apart.max() <= 1 and abs(apart.mean()) < 1e-6
    best = np.unravel_index(one.attribution.argmax(), one.attribution.shape)
    assert apart[best] == pytest.approx(1 - views.relative_rank(two.attribution)[best])


def test_single_steps_of_a_counterfactual_are_its_steps(model, picture):
    moved = views.move(model, picture, "zebra", 3, 5.0)
    start = model.pipe().preprocess(picture.image)["pixel_values"]
    at_once = hf_explain.counterfactual(model.classifier, start, model.index("zebra"), steps=3, length=5.0)
    assert moved.probabilities == pytest.approx(at_once.probabilities[0].tolist(), abs=1e-4)
    assert moved.target.score == moved.probabilities[-1] > moved.probabilities[0]
    expected = at_once.displacement[0].mean(0).numpy() / 2  # colors from -1 to 1 there, from 0 to 1 here
    np.testing.assert_allclose(moved.change, expected, atol=1e-4)
    assert len(moved.pictures) == 4 and moved.reached == bool(at_once.reached[0])


def test_classes_of_one_name_have_their_index_with_it():
    labels = {0: "crane", 1: "cat", 2: "crane"}
    named = Model("m", hf_explain.Classifier(build("resnet", labels=labels), processor(64)).freeze())
    assert named.names == ["crane (0)", "cat", "crane (2)"]
    assert [named.index(target) for target in ("crane (2)", "cat", "0", 1)] == [2, 1, 0, 1]
    with pytest.raises(ExplainerError, match="names 2 classes"):
        named.index("crane")
    with pytest.raises(ExplainerError, match="m is a plain classifier without an explainer"):
        named.pipe(LEARNED)


# ---- what is shown ----


def lightness(colors):
    """CIE L* of sRGB colors (N, 3)."""
    linear = np.where(colors / 255 <= 0.04045, colors / 255 / 12.92, ((colors / 255 + 0.055) / 1.055) ** 2.4)
    y = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)


@pytest.mark.parametrize("name", list(painting.COLOR_MAPS))
def test_color_maps_are_even_in_lightness(name):
    """Sequential ones rise in nearly equal steps; diverging ones fall alike from the middle to both ends."""
    light = lightness(painting.color(np.linspace(0, 1, 33)[None], painting.COLOR_MAPS[name])[0])
    if name in painting.DIVERGING:
        assert np.abs(light - light[::-1]).max() < 8 and light.argmax() == 16
        light = light[:17]
    steps = np.diff(light)
    assert (steps > 0).all() and steps.max() < 3 * np.median(steps)


def test_zero_is_in_the_middle_of_diverging_colors():
    values = np.array([[-1.0, 0.0], [0.5, 2.0]])
    assert painting.scale(values, diverging=True)[0, 1] == 0.5
    assert (
        painting.choose_colors("automatic", True) == "blue-red"
        and painting.choose_colors("automatic", False) == "ember"
    )
    constant = painting.scale(np.ones((2, 2)), diverging=False)
    assert (constant == 0).all() and (painting.scale(np.zeros((2, 2)), diverging=True) == 0.5).all()
    with pytest.raises(ExplainerError, match="unknown colors 'jet'; choose from automatic, ember"):
        painting.choose_colors("jet", False)


def test_where_the_model_never_looked_the_picture_is_as_it_was():
    image = PIL.Image.fromarray(draw_scene(0, 0).image)
    values = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    values[:, :10] = np.nan
    shown = np.asarray(painting.paint(image, values, opacity=1.0))
    assert (shown[:, :10] == np.asarray(image)[:, :10]).all() and (shown[:, 10:] != np.asarray(image)[:, 10:]).any()
    top = painting.top_share(values, 0.25)
    assert top.sum() == round(0.25 * 64 * 54) and not top[:, :10].any()
    assert values[top].min() >= values[~top & np.isfinite(values)].max()
    kept = np.asarray(painting.keep(image, top))
    assert (kept[top] == np.asarray(image)[top]).all() and kept[~top].max() < 0.13 * 255
    clear = painting.paint(image, values, opacity=0.0)
    assert np.abs(np.asarray(clear)[:, 20, 0].astype(int) - np.asarray(image.convert("L"))[:, 20]).max() <= 1


# ---- the demo's explainer ----


def test_the_demo_is_trained_once_and_kept(tmp_path, monkeypatch, capsys):
    settings = Demo(size=32, train_pictures=8, epochs=1, explainer_steps=1, batch_size=2, hidden_size=8)
    first = own.demo_explainer(tmp_path, settings)
    assert "some minutes, once.\nWith --model FOLDER it uses" in capsys.readouterr().out
    assert views.predict(Models({"demo": first}).load("demo"), Picture("x", PIL.Image.new("RGB", (40, 40)))).top
    assert os.listdir(tmp_path) == [Path(first).name]  # nothing is left of the training
    monkeypatch.setattr(own, "train", lambda *a: pytest.fail("trained again"))
    assert own.demo_explainer(tmp_path, settings) == first
    other = replace(settings, seed=1)
    assert own.key(other) != own.key(settings) == own.key(replace(settings, output_dir="elsewhere"))
    monkeypatch.setattr(own, "train", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        own.demo_explainer(tmp_path, other)
    assert os.listdir(tmp_path) == [Path(first).name]
