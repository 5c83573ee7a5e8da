"""Maps that are refined and measured in the pipeline."""

import json

import numpy as np
import pytest
import torch
import transformers as T
from families import LABELS, build, processor
from pipeline_cases import PICTURES, TASK, assert_refused, assert_same, check_result, make_explainer, picture
from transformers import pipeline

import hf_explain
from hf_explain import METHODS, ExplainerError
from hf_explain.faithfulness import measure
from hf_explain.training.refinement import SHARES, refine

# ---- refined ----


def test_maps_are_refined_class_by_class(refinable):
    pipe, start = refinable
    pixels = pipe.preprocess(PICTURES[0])["pixel_values"]
    refined = pipe(PICTURES[0], target=[3, 0], refine_steps=2, seed=5, output_size="model")
    for result, index, map_ in zip(refined, (3, 0), start(pixels, [3, 0]), strict=True):
        [expected] = refine(pipe.classifier, pixels, map_[None], index, steps=2, seed=5)
        np.testing.assert_allclose(result["attribution"], expected.numpy(), atol=1e-4)
        assert result["label"] == LABELS[index]
    plain = pipe(PICTURES[0], target=[3, 0], output_size="model")
    again = pipe(PICTURES[0], target=[3, 0], refine_steps=0, output_size="model")
    assert_same([again], [plain], atol=0)
    for one, other in zip(plain, refined, strict=True):
        assert not np.allclose(one["attribution"], other["attribution"]) and one["score"] == other["score"]


def test_refined_maps_do_not_depend_on_the_batch(refinable):
    pipe, _ = refinable
    targets = [[0, 1], [2], 3]
    alone = [pipe(p, target=t, refine_steps=1) for p, t in zip(PICTURES, targets)]
    assert_same(pipe(PICTURES[:3], target=targets, batch_size=3, refine_steps=1), alone, atol=1e-3)


@pytest.mark.parametrize(("batch_size", "one", "three"), [(1, 1, 1), (5, 5, 5), (36, 36, 36), (None, 32, 16)])
def test_refinement_shows_as_many_pictures_as_asked(refinable, seen, batch_size, one, three):
    """No more, which might not fit, and no fewer where there are enough; one picture at a time if nothing was asked."""
    pipe, _ = refinable
    calls = ((PICTURES[0], [*range(5)], one), (PICTURES[:3], [[0, 1], [2, 3], [4]], three))
    for pictures, target, most in calls:
        seen.clear()
        pipe(pictures, target=target, refine_steps=1, batch_size=batch_size)
        assert max(seen) == most and seen.count(most) >= 4
    if batch_size == 5:
        seen.clear()
        method = {} if isinstance(pipe.model, hf_explain.ExplainerForImageClassification) else {"method": "gradient"}
        same = pipeline(TASK, model=pipe.model, image_processor=pipe.image_processor, batch_size=5, **method)
        same(PICTURES[0], refine_steps=1)
        assert max(seen) == 5


def test_each_class_of_a_picture_is_refined_once(refinable, seen):
    """However many the other pictures have, and also if it is asked for twice."""
    pipe, _ = refinable
    call = {"target": [[0, 1, 2], [3], [4, 4]], "batch_size": 3}
    counts = []
    for steps in (0, 1):
        seen.clear()
        results = pipe(PICTURES[:3], refine_steps=steps, **call)
        counts.append(sum(seen))
    assert counts[1] - counts[0] == 5 * (1 + 2 * 6 + 2 * 2 * len(SHARES))
    assert [[r["index"] for r in one] for one in results] == call["target"]
    assert np.array_equal(results[2][0]["attribution"], results[2][1]["attribution"])
    assert_same([pipe(PICTURES[1], target=3, refine_steps=1)], [results[1]], atol=1e-3)


def test_refinement_may_be_set_once(explain):
    pipe = pipeline(TASK, model=explain.model, refine_steps=1, seed=7)
    expected = explain(PICTURES[0], refine_steps=1, seed=7)
    assert_same([pipe(PICTURES[0])], [expected], atol=1e-6)
    assert_same([pipeline(TASK, model=explain.model, refine_steps=1)(PICTURES[0], seed=7)], [expected], atol=1e-6)
    assert_same([pipe(PICTURES[0], refine_steps=0)], [explain(PICTURES[0])])
    assert_refused(lambda: pipe(PICTURES[0], refine_steps=0, seed=7), "seed=7", "refine_steps=")


def test_a_refined_map_has_no_values_outside_the_crop():
    crop = T.BitImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    [result] = pipeline(TASK, model=make_explainer(image_processor=crop))(picture(133, 75), refine_steps=1)
    check_result(result, (133, 75))
    assert result["box"] == (28, 0, 104, 75)


# ---- measured on the spot ----


@pytest.mark.parametrize("refine_steps", [0, 1])
def test_a_map_comes_with_its_measured_faithfulness(explain, refine_steps):
    """The numbers are those of `measure` on the map that was returned, for every class of every picture."""
    call = {"target": [[3, 0], 1], "refine_steps": refine_steps, "output_size": "model"}
    results = explain(PICTURES[:2], measure="aha", batch_size=2, **call)
    assert [len(entries) for entries in results] == [2, 1]
    classifier = explain.model.classifier
    for image, entries in zip(PICTURES, results):
        x = classifier.image_processor(images=image, return_tensors="pt")["pixel_values"]
        for entry in entries:
            report = measure(classifier, x, torch.as_tensor(entry["attribution"])[None], entry["index"])
            found = entry["faithfulness"]
            assert found["deletion"] == pytest.approx(float(report.deletion[0]), abs=1e-4)
            assert found["insertion"] == pytest.approx(float(report.insertion[0]), abs=1e-4)
            assert len(found["curves"]["deletion"]) == 21 and found["protocol"]["reference"] == "mean"
            json.dumps(found)
    assert "faithfulness" not in explain(PICTURES[0])[0]


def test_measuring_asks_for_each_pair_once(by_gradient, monkeypatch):
    """Classes that fill up a shorter list are not measured again."""
    asked = []

    def noting(classifier, pixel_values, maps, targets, *rest, **options):
        asked.extend(
            (one.numpy().tobytes(), target) for one, target in zip(pixel_values, targets.tolist(), strict=True)
        )
        return measure(classifier, pixel_values, maps, targets, *rest, **options)

    monkeypatch.setattr("hf_explain.explaining.pipeline.measure_faithfulness", noting)
    by_gradient(PICTURES[:2], target=[[3, 0, 1], [1]], batch_size=2, measure="aha")
    assert sorted(target for _, target in asked) == [0, 1, 1, 3]
    assert len(set(asked)) == 4 and len({picture for picture, _ in asked}) == 2


def test_presets_of_true_classes_are_of_the_explained_one(by_gradient):
    found = by_gradient(PICTURES[0], target=2, measure="ltx")[0]["faithfulness"]
    assert set(found) == {"positive", "negative", "deletion", "negative_deletion", "curves", "protocol"}
    assert found["protocol"]["label"] == "explained"


def test_what_cannot_be_measured(explain, monkeypatch):
    with pytest.raises(ExplainerError, match="unknown preset 'best'"):
        explain(PICTURES[0], measure="best")
    monkeypatch.setitem(METHODS, "flat", lambda classifier, x, targets=None: torch.ones(len(x), *x.shape[-2:]))
    flat = pipeline(TASK, model=build("vit"), image_processor=processor(64), method="flat")
    with pytest.raises(ExplainerError, match="is constant, so it ranks nothing and cannot be measured"):
        flat(PICTURES[0], measure="aha")
    assert len(flat(PICTURES[0])) == 1
