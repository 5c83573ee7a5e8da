"""What other libraries of attribution get wrong without a word, where no other file asks it of ours."""

import argparse
import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from families import LABELS, build, pictures, processor
from method_cases import SAME_FOR_ALL_CLASSES, defined, quick
from metric_cases import tiny
from transformers import pipeline

from hf_explain import METHODS, Classifier, ExplainerError, RankingExplainerForImageClassification, cli
from hf_explain.evaluating.sanity import modules_in_order, parameter_randomization
from hf_explain.explaining.regions import smallest_region
from hf_explain.faithfulness import PRESETS, information, measure
from hf_explain.faithfulness.correlations import (
    faithfulness_correlation,
    faithfulness_estimate,
    monotonicity_correlation,
    random_logit,
)
from hf_explain.faithfulness.information import information_curves
from hf_explain.faithfulness.masked_confidence import masked_confidence
from hf_explain.faithfulness.road import road
from hf_explain.faithfulness.robustness import infidelity, max_sensitivity
from hf_explain.jobs.flags import add_flags
from hf_explain.localization.grid_classifier import GridClassifier
from hf_explain.methods.inner import attribute_at
from hf_explain.methods.layers import find_layers, look_for_layers

ROOT = Path(__file__).resolve().parents[2]


def by_class(classifier, pixel_values, targets):
    return torch.sin(3 * pixel_values).sum(1) * (1 + targets)[:, None, None]


def areas(*call, **options):
    return torch.stack(list(measure(*call, **options).areas.values()), 1)


def region(classifier, x, maps, targets, **options):
    with torch.no_grad():
        predicted = classifier(x).argmax(-1)  # it takes no other class
    return smallest_region(classifier, x, maps, predicted, budgets=9, **options).shares


METRICS = {
    "aha": lambda *call, **options: areas(*call, budgets=5, **options),
    "ltx": lambda *call, **options: areas(*call, "ltx", **options),
    "quantus": lambda *call, **options: areas(*call, "quantus", step=6, **options),
    "road": lambda *call, **options: road(*call, noise=0, **options).combined,
    "faithfulness_correlation": lambda *call, **options: faithfulness_correlation(*call, grid=2, **options),
    "faithfulness_estimate": lambda *call, **options: faithfulness_estimate(*call, steps=5, **options),
    "monotonicity_correlation": lambda *call, **options: monotonicity_correlation(*call, steps=5, draws=3, **options),
    "random_logit": lambda *call, **options: random_logit(*call, method=by_class, similarity="pearson", **options),
    "infidelity": lambda *call, **options: infidelity(*call, draws=3, **options),
    "sp": lambda *call, **options: areas(*call, "sp", **options),
    "masked_confidence": lambda *call, **options: masked_confidence(*call, normalize=True, **options).drop,
    "information": lambda *call, **options: information_curves(*call, least_score=0, points=50, **options)["sic"].area,
}


def weighted(height, width):
    """Logits (B, 5) in which every entry of a picture has a weight of its own."""
    weights = torch.randn(3 * height * width, 5, generator=torch.Generator().manual_seed(0)) / 2
    return lambda x: torch.tanh(x.flatten(1)) @ weights


def case(count, height, width):
    maps = torch.randn(count, height, width, generator=torch.Generator().manual_seed(2))
    return pictures(count, (height, width)), maps, torch.arange(count) % 5


# ---- which pixels ----


def test_pictures_that_are_not_square_in_plain_loops():
    x, maps, targets = case(2, 4, 6)
    logits = weighted(4, 6)
    report = measure(tiny(logits), x, maps, targets, reference="black", budgets=7)
    for picture, attribution, target, *curves in zip(x, maps, targets, *report.curves.values(), strict=True):
        places = [(row, column) for row in range(4) for column in range(6)]
        places.sort(key=lambda at: -float(attribution[at]))
        for name, curve in zip(report.curves, curves, strict=True):
            for value, k in zip(curve.tolist(), range(0, 25, 4), strict=True):
                image = picture.clone() if name == "deletion" else torch.full_like(picture, -1.0)
                for row, column in places[:k]:
                    image[:, row, column] = -1.0 if name == "deletion" else picture[:, row, column]
                assert value == pytest.approx(float(logits(image[None]).softmax(-1)[0, target]), abs=1e-6)


@pytest.mark.parametrize("name", [name for name in METRICS if name not in ("infidelity", "information", "sp")])
def test_rows_are_not_taken_for_columns(name):
    """A picture, its map and its classifier lying on their side score as they did upright."""
    x, maps, targets = case(3, 4, 6)
    logits = weighted(4, 6)
    upright = METRICS[name](tiny(logits), x, maps, targets)
    lying = METRICS[name](tiny(lambda x: logits(x.mT)), x.mT.contiguous(), maps.mT.contiguous(), targets)
    torch.testing.assert_close(lying, upright, atol=1e-5, rtol=1e-5)


def test_the_least_important_are_the_most_important_from_the_other_end_under_ties():
    """Exactly so many pixels, also where 70 % of the map is one value, and below zero."""
    x, maps = pictures(1, (10, 10)), torch.zeros(1, 10, 10)
    maps[0, :3] = -torch.rand(3, 10)
    classifier = tiny(weighted(10, 10))
    measure(classifier, x, maps, 0, "ltx", batch_size=1)
    gone = torch.cat([(seen != x).all(1) for seen in classifier.seen])
    assert torch.equal(gone, torch.cat([(seen != x).any(1) for seen in classifier.seen]))  # whole pixels
    assert gone.sum((1, 2)).tolist() == [0, *range(10, 100, 10), *range(10, 100, 10)]
    most, least = gone[1:10], gone[10:]
    assert torch.equal(most, ~least.flip(0))
    assert most[6, 3:].all() and not most[6, :3].any()  # of seventy, those that are not negative


def test_information_curves_show_as_many_pixels_of_a_tied_map(monkeypatch):
    shown = []

    def spy(picture, known):
        shown.append(int(known.sum()))
        return picture

    monkeypatch.setattr(information, "interpolate", spy)
    x, free, _ = case(1, 10, 10)
    free[:, [0, 0, -1, -1], [0, -1, 0, -1]] = 9.0  # the corners are always shown
    for maps in (free, (free > 8).float(), -(free < 8).float()):
        information_curves(tiny(weighted(10, 10)), x, maps, 0, thresholds=(0.1, 0.3, 0.5, 0.8), start_share=0)
    assert shown == [4, 10, 30, 50, 80] * 3


def test_dropped_patches_are_those_the_map_ranks_first():
    """Seen by the first layer, of pictures with more patches in a row than a patch has rows, and not square."""
    model, (x, maps, _) = build("vit", patch_size=4), case(1, 64, 96)
    seen = []
    model.vit.layers[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0]))
    measure(Classifier(model, processor(64)), x, maps, 0, "drop", budgets=5, batch_size=1)
    falling = maps[0].view(16, 4, 24, 4).mean((1, 3)).flatten().argsort(descending=True)
    whole = max(seen, key=len)
    assert sorted(map(len, seen)) == sorted(
        [385, 1, *(1 + 384 - k for k in (96, 192, 288)), *(1 + k for k in (96, 192, 288))]
    )
    for tokens in seen:
        kept = (tokens[1:, None] == whole[None, 1:]).all(-1).float().argmax(1)
        most, least = falling[: len(kept)], falling[384 - len(kept) :]
        assert any(torch.equal(kept, end.sort().values) for end in (most, least))


# ---- which pictures ----


@pytest.mark.parametrize("batch_size", [2, 100])
@pytest.mark.parametrize("name", ["drop", "smallest region", *METRICS])
def test_no_picture_is_left_out_of_any_batch(name, batch_size):
    """Five pictures in batches whose last is shorter are five pictures alone."""
    if name == "drop":
        classifier, (x, maps, targets) = Classifier(build("vit"), processor(64)), case(5, 64, 64)
        metric = lambda *call, **options: areas(*call, "drop", budgets=4, **options)  # noqa: E731
    else:
        classifier, (x, maps, targets) = tiny(weighted(8, 8)), case(5, 8, 8)
        metric = METRICS.get(name, region)
    alone = torch.cat([metric(classifier, x[i : i + 1], maps[i : i + 1], targets[i : i + 1]) for i in range(5)])
    together = metric(classifier, x, maps, targets, batch_size=batch_size)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4, equal_nan=True)
    assert len(alone.unique(dim=0)) > 1  # so that one picture's number is no other's


@pytest.mark.parametrize("name", METRICS)
def test_one_class_is_meant_for_all_pictures_and_other_numbers_are_refused(name):
    classifier, (x, maps, _) = tiny(weighted(8, 8)), case(4, 8, 8)
    for one in (0, 3):
        every = METRICS[name](classifier, x, maps, [one] * 4)
        torch.testing.assert_close(METRICS[name](classifier, x, maps, one), every, rtol=0, atol=0, equal_nan=True)
        alone = torch.cat([METRICS[name](classifier, x[i : i + 1], maps[i : i + 1], [one]) for i in range(4)])
        torch.testing.assert_close(every, alone, atol=1e-4, rtol=1e-4, equal_nan=True)
    for wrong in ([0], [0, 1], [0, 1, 2, 3, 4], []):
        with pytest.raises(ExplainerError, match="; give None, one integer, 4 of them"):
            METRICS[name](classifier, x, maps, wrong)
    for wrong in (maps[:1], maps[0], maps[:3], maps[:, None]):
        with pytest.raises(ExplainerError, match="give one map"):
            METRICS[name](classifier, x, wrong, 0)


def test_one_class_for_all_pictures_at_the_other_doors():
    classifier, x = Classifier(build("resnet"), processor(64)), pictures(3)
    explainer = RankingExplainerForImageClassification.from_classifier(classifier, preset="tiny")
    layer = find_layers(classifier)["final"]
    doors = {
        "explainer": lambda targets: explainer(x, targets=targets).attributions,
        "attribute_at": lambda targets: attribute_at(classifier, x, targets, layer=layer),
        "parameter_randomization": lambda targets: torch.stack(
            [step.correlation for step in parameter_randomization(classifier, x, "gradient", targets, steps=2)]
        ),
        "max_sensitivity": lambda targets: max_sensitivity(classifier, x, targets, method=by_class, draws=2),
    }
    for door in doors.values():
        torch.testing.assert_close(door(0), door([0, 0, 0]), rtol=0, atol=0)
        for wrong in ([0], [0, 1], [0, 1, 2, 3]):
            with pytest.raises(ExplainerError, match="for 3 images; give"):
                door(wrong)


# ---- which class ----

ZERO = [0, np.int64(0), torch.tensor(0), "tabby", "tabby, tabby cat"]


@pytest.fixture(scope="module")
def certain():
    """A classifier that is sure of class 3, so that a request for class 0 cannot be met by the prediction."""
    model = build("vit")
    model.classifier.bias.data[3] = 50.0
    return Classifier(model, processor(64))


@pytest.mark.parametrize("name", [name for name in defined("vit") if name not in SAME_FOR_ALL_CLASSES])
def test_class_0_has_its_own_map(certain, name):
    x, method = pictures(2), quick(name)
    wanted, predicted = method(certain, x, torch.tensor([0, 0])), method(certain, x)
    torch.testing.assert_close(method(certain, x, 0), wanted)
    torch.testing.assert_close(method(certain, x, 3), predicted)
    assert not torch.allclose(wanted, predicted, atol=1e-2 * float(wanted.abs().max()))


@pytest.mark.parametrize("method", ["gradient", None])
@pytest.mark.parametrize("count", [1, 3])
def test_class_0_in_the_pipeline(certain, method, count):
    """By number or by label, for one picture or many, at the call or once: its map, and its name with it."""
    images = [*np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)]
    x = certain.image_processor(images=images, return_tensors="pt")["pixel_values"]
    if method is None:
        model, options = RankingExplainerForImageClassification.from_classifier(certain, preset="tiny"), {}
        made = lambda targets: model(x, targets=targets).attributions.detach()  # noqa: E731
    else:
        model, options = certain.model, {"image_processor": certain.image_processor, "method": method}
        made = lambda targets: METHODS[method](certain, x, targets)  # noqa: E731
    wanted, scale = made(torch.zeros(count, dtype=torch.int64)), float(made(0).abs().max())
    assert not any(torch.allclose(a, b, atol=1e-2 * scale) for a, b in zip(wanted, made(None), strict=True))
    pipe = pipeline("image-attribution", model=model, **options)
    once = pipeline("image-attribution", model=model, target=0, **options)
    calls = [pipe(images, target=target, output_size="model", batch_size=2) for target in [*ZERO, [0] * count]]
    for results in [*calls, once(images, output_size="model", batch_size=2)]:
        for [result], expected in zip(results, wanted, strict=True):
            assert (result["index"], result["label"]) == (0, LABELS[0]) and result["score"] < 1e-6
            np.testing.assert_allclose(result["attribution"], expected, atol=1e-4 * scale)
    assert pipe(images)[0][0]["index"] == 3


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "sp"])
def test_class_0_is_measured(certain, preset):
    x, maps, _ = case(2, 64, 64)
    report = measure(certain, x, maps, 0, preset)
    assert report.targets.tolist() == [0, 0]
    for curve in PRESETS[preset].curves:
        if curve.score in ("probability", "indicator"):
            assert report.curves[curve.name].max() < 1e-6  # class 3 has it all
    found = road(certain, x, maps, 0, percentiles=(50,))
    assert found.targets.tolist() == [0, 0] and found.curves["most_first"].max() < 1e-6


# ---- errors ----


def hooks(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [[dict(getattr(module, kind)) for kind in kinds] for module in model.modules()]


WITH_HOOKS = {
    "find_layers": lambda classifier, layer, x: look_for_layers(classifier, (64, 64)),
    "attribute_at": lambda classifier, layer, x: attribute_at(classifier, x, 1, layer=layer),
    "dipart": lambda classifier, layer, x: GridClassifier(classifier, "dipart")(x.repeat(1, 1, 2, 2)),
    "modules_in_order": lambda classifier, layer, x: modules_in_order(classifier, x),
    "parameter_randomization": lambda classifier, layer, x: parameter_randomization(classifier, x, "gradient", steps=2),
    "drop": lambda classifier, layer, x: measure(classifier, x, torch.rand(1, 64, 64), 1, "drop"),
}


@pytest.mark.parametrize("error", [IndexError, np.exceptions.AxisError])
@pytest.mark.parametrize("name", WITH_HOOKS)
def test_an_index_error_of_the_model_is_not_swallowed(name, error, monkeypatch):
    """It is raised while our hook, or noise instead of weights, is in the model: it comes out, and they are gone."""
    classifier, x = Classifier(build("vit" if name == "drop" else "resnet"), processor(64)).freeze(), pictures(1)
    layer = find_layers(classifier)["final"]  # transformers' own hooks, which stay, come with the first call
    model, before = classifier.model, hooks(classifier.model)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    original, raised = model.classifier.forward, []

    def altered():
        changed = [key for key, value in model.state_dict().items() if not torch.equal(value, weights[key])]
        return bool(changed) or hooks(model) != before

    def forward(*arguments):
        if altered():
            raised.append(error("in the model"))
            raise raised[-1]
        return original(*arguments)

    monkeypatch.setattr(model.classifier, "forward", forward)
    with pytest.raises(error, match="in the model") as caught:
        WITH_HOOKS[name](classifier, layer, x)
    assert raised == [caught.value] and not altered()


# ---- numpy ----


@pytest.mark.parametrize("name", METRICS)
def test_areas_need_no_function_that_some_numpy_lacks(name, monkeypatch):
    """`trapz` went with numpy 2.4, `trapezoid` came with 2.0."""
    for function in ("trapz", "trapezoid"):
        monkeypatch.delattr(np, function, raising=False)
    x, maps, targets = case(2, 8, 8)
    assert len(METRICS[name](tiny(weighted(8, 8)), x, maps, targets)) == 2


# ---- names and flags ----


def test_only_what_starts_at_the_reference_is_called_insertion():
    for protocol in PRESETS.values():
        for curve in protocol.curves:
            assert (curve.name == "insertion") == (curve.kind == "insertion")
            assert ("negative" in curve.name) == (curve.kind == "negative")


@pytest.mark.parametrize("command", ["demo", "train", "evaluate"])
def test_a_flag_is_on_only_if_it_was_given(command, capsys):
    """And `--flag False` is no way to turn it on."""
    parser = argparse.ArgumentParser()
    add_flags(parser, importlib.import_module(cli.COMMANDS[command][0]).FLAGS)
    needed = [word for action in parser._actions if action.required for word in (action.option_strings[0], "x")]
    flags = [action for action in parser._actions if action.nargs == 0 and action.dest != "help"]
    assert flags
    for flag in flags:
        [option] = flag.option_strings
        assert getattr(parser.parse_args(needed), flag.dest) is False
        assert getattr(parser.parse_args([*needed, option]), flag.dest) is True
        with pytest.raises(SystemExit):
            parser.parse_args([*needed, option, "False"])
        assert "unrecognized arguments: False" in capsys.readouterr().err


def test_no_argument_is_read_by_bool():
    """bool("False") is True."""
    files = [path for folder in ("hf_explain", "scripts", "spaces") for path in (ROOT / folder).glob("**/*.py")]
    source = "".join(path.read_text("utf-8") for path in files)
    assert "type=int" in source and not re.search(r"type\s*=\s*bool\b", source)
