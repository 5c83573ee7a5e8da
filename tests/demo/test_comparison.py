"""The comparison of methods where everything is known: a classifier that reads one red and one blue square."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from families import build, processor
from transformers import ResNetForImageClassification

from hf_explain import METHODS, Classifier, RankingExplainerForImageClassification
from hf_explain.data.scenes import to_pixels
from hf_explain.demo import comparison
from hf_explain.demo.comparison import (
    LABELS,
    SCORES,
    SMOOTHINGS,
    Scenes,
    attribute_with,
    choose_smoothing,
    compare,
    methods_to_compare,
    predict,
    summarize,
)
from hf_explain.faithfulness import measure
from hf_explain.faithfulness.intervals import interval, paired
from hf_explain.localization import average_precision, class_discrimination, pointing_game
from hf_explain.methods.smoothing import box

SIZE, COUNT, BUDGETS = 32, 5, 9
REFERENCES = ["black", 0.5]


class RedOrBlue(ResNetForImageClassification):
    """Each class is the red, or the blue, of the picture's strongest cell of 8 x 8 pixels; nothing is "nothing"."""

    def forward(self, pixel_values=None, **kwargs):
        output = super().forward(pixel_values, **kwargs)
        gray = pixel_values.mean(1)
        red, blue = (F.avg_pool2d((pixel_values[:, c] - gray)[:, None], 8).flatten(1).amax(1) for c in (0, 2))
        output.logits = torch.stack([12 * red - 6, 12 * blue - 7, torch.zeros_like(red)], 1)
        return output


@pytest.fixture(scope="module")
def classifier():
    plain = build("resnet", size=SIZE)
    plain.config.id2label = {0: "red", 1: "blue", 2: "nothing"}
    return Classifier(RedOrBlue(plain.config), processor(SIZE)).freeze()


def draw(count, seed):
    """Gray noise with a red square, a blue one in every second picture, and which pixel is whose."""
    random = np.random.default_rng(seed)
    gray = random.integers(90, 160, (count, SIZE, SIZE, 1), dtype=np.uint8)
    images, segments = np.repeat(gray, 3, axis=3), np.full((count, SIZE, SIZE), -1, np.int8)
    for i in range(count):
        for color, cell in zip((0, 1), random.permutation(16)[: 2 - i % 2], strict=False):
            at = (slice(8 * (cell // 4), 8 * (cell // 4) + 8), slice(8 * (cell % 4), 8 * (cell % 4) + 8))
            images[i][at] = [(255, 0, 0), (0, 0, 255)][color]
            segments[i][at] = color
    return images, np.zeros(count, int), segments


@pytest.fixture(scope="module")
def scenes(classifier):
    return Scenes(classifier, *draw(COUNT, 7), batch_size=16)


@pytest.fixture(scope="module")
def tune(classifier):
    return Scenes(classifier, *draw(3, 1), batch_size=16)


class Perfect:
    """An explainer that knows where the colors are."""

    device = torch.device("cpu")

    def __call__(self, pixel_values, targets):
        gray = pixel_values.mean(1)
        colors = torch.stack([pixel_values[:, 0] - gray, pixel_values[:, 2] - gray], 1)
        return type("Output", (), {"attributions": colors[torch.arange(len(targets)), targets]})


@pytest.fixture(scope="module")
def explainer(classifier):
    make = RankingExplainerForImageClassification.from_classifier
    return make(classifier, preset="tiny")


def run(explainer, scenes, tune):
    return compare(explainer, scenes, tune, REFERENCES, budgets=BUDGETS, refinement={"steps": 2})


@pytest.fixture(scope="module")
def compared(explainer, scenes, tune):
    return run(explainer, scenes, tune)


@pytest.fixture(scope="module")
def perfect(scenes, tune):
    return run(Perfect(), scenes, tune)


# ---- pictures ----


def test_scenes_are_seen_as_the_image_processor_writes_them(classifier, scenes):
    expected = processor(SIZE)(images=list(scenes.images), return_tensors="pt")["pixel_values"]
    assert torch.allclose(to_pixels(classifier, scenes.images), expected, atol=1e-5)
    assert torch.equal(scenes.pixel_values, to_pixels(classifier, scenes.images)) and len(scenes) == COUNT
    with torch.no_grad():
        logits = classifier(scenes.pixel_values)
    assert torch.equal(predict(classifier, scenes.pixel_values, 2), logits.argmax(-1))
    assert scenes.targets.tolist() == [0] * COUNT and scenes.found.all()


def test_evidence_is_of_what_was_predicted(classifier, monkeypatch):
    """Red is there and predicted; blue is predicted and there, or not: then there is no evidence but the label's."""
    images, labels, segments = draw(4, 7)
    monkeypatch.setattr(comparison, "predict", lambda *_: torch.tensor([0, 1, 1, 2]))
    scenes = Scenes(classifier, images, labels, segments)
    assert scenes.found.tolist() == [True, False, True, False]
    for i, shown in enumerate((0, 0, 1, 0)):
        assert np.array_equal(scenes.evidence[i].numpy(), segments[i] == shown)
    chosen, second = scenes.second()
    assert chosen.tolist() == [0, 2] and second.tolist() == [1, 0]


def test_the_second_class_is_the_largest_other(classifier):
    images, labels, segments = draw(4, 7)
    segments[:, 0, :3], segments[:3, 31, :5] = 2, 1
    scenes = Scenes(classifier, images, labels, segments)
    areas = [[int((s == c).sum()) for c in range(3)] for s in segments]
    chosen, second = scenes.second()
    assert chosen.tolist() == [0, 1, 2, 3]
    assert second.tolist() == [1 if a[1] > a[2] else 2 for a in areas] and set(second.tolist()) == {1, 2}


# ---- methods ----


def test_attribute_with_is_the_explainer(explainer, scenes):
    learned = attribute_with(explainer, batch_size=2)
    targets = torch.tensor([0, 1, 0, 1, 2])
    with torch.no_grad():
        expected = explainer(scenes.pixel_values, targets=targets).attributions
    found = learned(scenes.classifier, scenes.pixel_values, targets)
    assert torch.allclose(found, expected, atol=1e-4) and not found.requires_grad


def test_the_smoothing_is_the_best_on_the_pictures_for_tuning(classifier, tune, monkeypatch):
    maps = METHODS["integrated_gradients"](classifier, tune.pixel_values, tune.targets)

    def loss(size, reference):
        report = measure(
            classifier, tune.pixel_values, box(maps, size), tune.targets, reference=reference, budgets=11
        ).mean()
        return report["deletion"] - report["insertion"]

    losses = {size: sum(loss(size, reference) for reference in REFERENCES) for size in SMOOTHINGS}
    assert choose_smoothing(classifier, tune, REFERENCES) == min(losses, key=losses.get)
    assert len(set(losses.values())) == len(SMOOTHINGS)
    for best in SMOOTHINGS:  # whichever it is
        monkeypatch.setattr(comparison, "box", lambda m, size, best=best: m if size == best else -m)
        assert choose_smoothing(classifier, tune, REFERENCES) == best


def test_methods_are_what_their_names_say(explainer, scenes, tune, compared):
    classifier, x, targets = scenes.classifier, scenes.pixel_values, scenes.targets
    _, maps = compared
    smoothed = box(maps["integrated_gradients"], choose_smoothing(classifier, tune, REFERENCES))
    assert torch.allclose(maps["integrated_gradients_smoothed"], smoothed, atol=1e-5)
    for name in ("random", "gradient", "occlusion", "integrated_gradients"):
        options = {"window": x.shape[-1] // 8, "stride": x.shape[-1] // 16} if name == "occlusion" else {}
        expected = METHODS[name](classifier, x, targets, **options)
        assert torch.allclose(maps[name], expected, atol=1e-4 * float(expected.abs().max())), name
    assert torch.equal(maps["exact_mask"], scenes.evidence.float())
    methods = methods_to_compare(explainer, tune, REFERENCES, {"steps": 0})
    for name in ("learned", "integrated_gradients_smoothed"):
        refined = name.removesuffix("_smoothed") + "_refined"
        assert torch.allclose(methods[refined](classifier, x, targets), maps[name], atol=1e-4)  # with no steps
        assert not torch.allclose(maps[refined], maps[name], atol=1e-2)


# ---- the comparison ----


def test_every_method_is_measured_on_every_picture(compared, scenes):
    results, maps = compared
    assert set(results) == set(maps) == set(LABELS)
    chosen, _ = scenes.second()
    for name, entry in results.items():
        assert entry["label"] == LABELS[name] and (entry["ms"] is None) == (name == "exact_mask")
        assert entry["ms"] is None or entry["ms"] > 0
        assert set(entry["references"]) == {"black", "0.5"}
        for reference, found in entry["references"].items():
            assert len(found["deletion"]) == len(found["insertion"]) == COUNT
            assert np.shape(found["curves"]["deletion"]) == np.shape(found["curves"]["insertion"]) == (COUNT, BUDGETS)
            assert str(found["protocol"]["reference"]) == reference and found["protocol"]["budgets"] == BUDGETS
        assert len(entry["average_precision"]) == len(entry["pointing_game"]) == COUNT
        told = 0 if name == "exact_mask" or name.endswith("refined") else len(chosen)
        assert len(entry.get("class_discrimination", [])) == told
        assert maps[name].shape == (COUNT, SIZE, SIZE)
    assert 0 < len(chosen) < COUNT


@pytest.mark.parametrize("name", ["learned", "random", "exact_mask"])
def test_values_are_those_of_the_maps(name, compared, scenes, explainer):
    results, maps = compared
    entry, of = results[name], maps[name]
    for reference in REFERENCES:
        report = measure(
            scenes.classifier, scenes.pixel_values, of, scenes.targets, reference=reference, budgets=BUDGETS
        )
        found = entry["references"][str(reference)]
        for curve in ("deletion", "insertion"):
            assert found[curve] == pytest.approx(getattr(report, curve).tolist(), abs=1e-5)
            assert np.allclose(found["curves"][curve], report.curves[curve], atol=1e-5)
    assert entry["average_precision"] == average_precision(of, scenes.evidence).tolist()
    assert entry["pointing_game"] == pointing_game(of, scenes.evidence).tolist()
    if name != "exact_mask":
        chosen, second = scenes.second()
        method = {"learned": attribute_with(explainer), "random": METHODS["random"]}[name]
        others = method(scenes.classifier, scenes.pixel_values[chosen], second)
        masks = scenes.segments[chosen] == second[:, None, None]
        told = class_discrimination(of[chosen], others, scenes.evidence[chosen], masks)
        assert entry["class_discrimination"] == pytest.approx(told.tolist(), abs=1e-5)


def test_a_perfect_map_wins(perfect):
    results, _ = perfect
    learned = results["learned"]
    for name in ("average_precision", "pointing_game", "class_discrimination"):
        assert set(learned[name]) == {1.0}
        assert np.mean(results["random"][name]) < 0.9
    methods, comparisons = summarize([results])
    for reference in ("black", "0.5"):
        found = {name: method["references"][reference] for name, method in methods.items()}
        mean = {name: f["deletion"]["mean"] - f["insertion"]["mean"] for name, f in found.items()}
        assert mean["learned"] < mean["random"] - 0.3
        assert mean["learned"] <= min(mean[m] for m in ("random", "gradient", "occlusion")) + 1e-6
        assert mean["learned"] == pytest.approx(mean["exact_mask"], abs=0.06)
        assert all(found["random"][curve] != found["learned"][curve] for curve in ("deletion", "insertion"))
    won = [c["difference"]["low"] for c in comparisons if c["method"] == "learned" and c["against"] == "random"]
    assert len(won) == 4 and min(won) > 0  # better is positive, on deletion as on insertion


def test_predictions_that_are_nowhere_are_left_out_of_localization(classifier, explainer, tune, monkeypatch):
    monkeypatch.setattr(comparison, "predict", lambda *_: torch.tensor([0, 1, 2]))
    scenes = Scenes(classifier, *draw(3, 7))
    monkeypatch.setattr(comparison, "methods_to_compare", lambda *_: {"random": METHODS["random"]})
    entry = compare(explainer, scenes, tune, ["black"], budgets=5)[0]["random"]
    assert scenes.found.tolist() == [True, False, False]
    assert len(entry["average_precision"]) == len(entry["pointing_game"]) == len(entry["class_discrimination"]) == 1
    assert len(entry["references"]["black"]["deletion"]) == 3


def test_where_no_prediction_is_in_its_picture_nothing_is_localized(classifier, explainer, tune, monkeypatch):
    monkeypatch.setattr(comparison, "predict", lambda *_: torch.tensor([2, 2, 2]))
    scenes = Scenes(classifier, *draw(3, 7))
    monkeypatch.setattr(comparison, "methods_to_compare", lambda *_: {"random": METHODS["random"]})
    results, _ = compare(explainer, scenes, tune, ["black"], budgets=5)
    assert results["random"]["average_precision"] == [] and "class_discrimination" not in results["random"]
    methods, _ = summarize([results])
    assert not {"average_precision", "pointing_game", "class_discrimination"} & set(methods["random"])


def test_progress_goes_over_the_methods(explainer, scenes, tune, monkeypatch):
    monkeypatch.setattr(comparison, "methods_to_compare", lambda *_: {"random": METHODS["random"]})
    seen = []
    compare(explainer, scenes, tune, ["black"], budgets=3, progress=lambda them: seen.extend(them) or them)
    assert seen == ["random", "exact_mask"]


# ---- summaries ----


def made_up(seed, pictures=6):
    """The results of a run, as `compare` gives them, with numbers nobody measured."""
    random = np.random.default_rng(seed)
    results = {}
    for name in ("learned", "learned_refined", "gradient", "random"):
        references = {}
        for reference in ("black", "0.5"):
            areas = {curve: random.random(pictures).tolist() for curve in ("deletion", "insertion")}
            curves = {curve: random.random((pictures, 3)).tolist() for curve in ("deletion", "insertion")}
            references[reference] = areas | {"curves": curves, "protocol": {}}
        scores = {key: random.random(pictures - 1).tolist() for key in ("average_precision", "pointing_game")}
        told = {"class_discrimination": random.random(3).tolist()} if name != "gradient" else {}
        ms = None if name == "gradient" else float(random.integers(1, 9))
        results[name] = {"label": LABELS[name], "ms": ms, "references": references} | scores | told
    return results


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_a_summary_in_plain_loops(seeds):
    runs = [made_up(seed) for seed in seeds]
    methods, comparisons = summarize(runs)
    assert list(methods) == list(runs[0])
    for name, found in methods.items():
        mine = [run[name] for run in runs]
        assert found["label"] == LABELS[name]
        assert found["ms"] == (None if name == "gradient" else sorted(m["ms"] for m in mine)[len(mine) // 2])
        for reference in ("black", "0.5"):
            here = [m["references"][reference] for m in mine]
            for curve in ("deletion", "insertion"):
                values = [h[curve] for h in here]
                entry = found["references"][reference]
                assert entry[curve] == interval(values)
                assert entry[curve]["mean"] == pytest.approx(sum(map(sum, values)) / sum(map(len, values)))
                every = [picture for h in here for picture in h["curves"][curve]]
                for point in range(3):
                    column = [picture[point] for picture in every]
                    mean = sum(column) / len(column)
                    half = 1.96 * (sum((v - mean) ** 2 for v in column) / len(column)) ** 0.5 / len(column) ** 0.5
                    band = [entry["curves"][curve + end][point] for end in ("_low", "", "_high")]
                    assert band == pytest.approx([mean - half, mean, mean + half])
        for key in ("average_precision", "pointing_game"):
            assert found[key] == interval([m[key] for m in mine])
    assert "class_discrimination" not in methods["gradient"]
    assert set(SCORES) - {"deletion", "insertion"} <= set(methods["learned"])
    expected = [
        (ours, other, reference, curve)
        for ours in ("learned", "learned_refined")
        for other in ("gradient", "random")
        for reference in ("black", "0.5")
        for curve in ("deletion", "insertion")
    ]
    assert [(c["method"], c["against"], c["reference"], c["curve"]) for c in comparisons] == expected
    for found in comparisons:
        ours, theirs = (
            [run[found[which]]["references"][found["reference"]][found["curve"]] for run in runs]
            for which in ("method", "against")
        )
        if found["curve"] == "deletion":  # less is better
            ours, theirs = theirs, ours
        difference = paired([np.array(v) for v in ours], [np.array(v) for v in theirs])
        assert all(found["difference"][key] == pytest.approx(difference[key]) for key in difference)


def test_without_curves_and_without_refinement_there_is_a_summary():
    """As metrics.json holds it."""
    run = made_up(0)
    del run["learned_refined"]
    for entry in run.values():
        for found in entry["references"].values():
            del found["curves"]
    methods, comparisons = summarize([run])
    assert "curves" not in methods["learned"]["references"]["black"]
    assert {c["method"] for c in comparisons} == {"learned"} and len(comparisons) == 8
