"""`pipeline("image-attribution")`: what goes in, what comes out, what is refused, and that it leaves no trace."""

import copy
import json
import threading
import time

import datasets
import method_cases
import numpy as np
import PIL.Image
import pytest
import torch
import transformers as T
from families import LABELS, build, processor
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

import hf_explain
from hf_explain import METHODS, ExplainerError
from hf_explain.faithfulness import measure
from hf_explain.modeling import pipeline_image_attribution
from hf_explain.refinement import SHARES, refine

KEYS = {"label", "index", "score", "attribution", "heatmap", "box"}
TASK = "image-attribution"


def picture(width=40, height=30, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return PIL.Image.fromarray(noise)


PICTURES = [picture(40 + i, 30 + 2 * i, seed=i) for i in range(4)]


def make_explainer(model=None, image_processor=None):
    model = model if model is not None else build("swin")
    make = hf_explain.RankingExplainerForImageClassification.from_classifier
    return make(model, image_processor or processor(64), preset="tiny")


@pytest.fixture(scope="module")
def explain():
    return pipeline(TASK, model=make_explainer())


@pytest.fixture(scope="module")
def by_gradient():
    return pipeline(TASK, model=build("vit"), image_processor=processor(64), method="gradient")


@pytest.fixture(scope="module")
def quick():
    """Where only labels matter."""
    return pipeline(TASK, model=build("vit"), image_processor=processor(64), method="random")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved explainer with its classifier."""
    path = tmp_path_factory.mktemp("saved") / "explainer"
    make_explainer().save_pretrained(path, include_classifier=True)
    return str(path)


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory):
    """A saved classifier with its processor."""
    path = tmp_path_factory.mktemp("saved") / "classifier"
    build("vit").save_pretrained(path)
    processor(64).save_pretrained(path)
    return str(path)


def assert_same(results, expected, atol=1e-5):
    assert len(results) == len(expected)
    for one, other in zip(results, expected, strict=True):
        assert [r["label"] for r in one] == [r["label"] for r in other]
        for r, e in zip(one, other, strict=True):
            np.testing.assert_allclose(r["attribution"], e["attribution"], atol=atol)
            assert r["score"] == pytest.approx(e["score"], abs=atol) and r["box"] == e["box"]


def assert_refused(call, *words):
    with pytest.raises(ExplainerError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400 and message.endswith(".") and ";" in message, message
    for word in words:
        assert word in message, message


# ---- what comes out ----


def check_result(result, size):
    width, height = size
    assert set(result) == KEYS
    assert result["label"] in LABELS.values() and isinstance(result["score"], float) and 0 <= result["score"] <= 1
    assert result["attribution"].dtype == np.float32 and result["attribution"].shape == (height, width)
    assert result["heatmap"].mode == "RGB" and result["heatmap"].size == (width, height)
    left, top, right, bottom = result["box"]
    seen = np.isfinite(result["attribution"])
    assert seen[top:bottom, left:right].all() and seen.sum() == (right - left) * (bottom - top)


def test_one_picture(explain, by_gradient):
    for pipe in (explain, by_gradient):
        results = pipe(PICTURES[1])
        assert isinstance(results, list) and len(results) == 1
        check_result(results[0], PICTURES[1].size)


@pytest.mark.parametrize("name", [*method_cases.defined("vit"), "input-x-gradient", "Gradient"])
def test_a_plain_classifier_with_a_method(name, plain_folder, monkeypatch):
    if name in METHODS:
        monkeypatch.setitem(METHODS, name, method_cases.quick(name))
    pipe = pipeline(TASK, model=plain_folder, method=name)
    [[result], [other]] = pipe(PICTURES[:2], target=[2, "zebra"])
    check_result(result, PICTURES[0].size)
    assert (result["label"], other["label"]) == (LABELS[2], LABELS[4])
    [again] = pipeline(TASK, model=plain_folder)(PICTURES[0], target=2, method=name)
    assert np.array_equal(result["attribution"], again["attribution"])
    pixels = pipe.preprocess(PICTURES[0])["pixel_values"]
    function = METHODS[name.replace("-", "_").lower()]
    [raw] = pipe(PICTURES[0], target=2, output_size="model")
    assert np.array_equal(raw["attribution"], function(pipe.classifier, pixels, torch.tensor([2]))[0].numpy())


def test_each_map_is_that_of_its_class(explain):
    pixels = explain.preprocess(PICTURES[0])["pixel_values"]
    output = explain.model(pixels, targets=[[3, 0, 4]])
    results = explain(PICTURES[0], target=[3, 0, 4], output_size="model")
    for i, (index, result) in enumerate(zip((3, 0, 4), results, strict=True)):
        assert result["label"] == LABELS[index]
        assert result["score"] == pytest.approx(float(output.logits.softmax(-1)[0, index]), abs=1e-6)
        np.testing.assert_allclose(result["attribution"], output.attributions[0, i].detach().numpy(), atol=1e-5)
    maps = [r["attribution"] for r in results]
    assert not np.allclose(maps[0], maps[1])


def test_output_size_model(explain):
    [result] = explain(PICTURES[0], output_size="model")
    assert result["attribution"].shape == (64, 64) and result["box"] == (0, 0, 64, 64)
    assert result["heatmap"].size == (64, 64)
    kept = pipeline(TASK, model=explain.model, output_size="model")
    assert kept(PICTURES[0])[0]["box"] == (0, 0, 64, 64) and kept(PICTURES[0], output_size="image")[0]["box"] == (
        0,
        0,
        40,
        30,
    )


def test_a_processor_that_turns_the_picture():
    class Turned(T.ViTImageProcessorPil):
        def __call__(self, images, **kwargs):
            values = super().__call__(images, **kwargs)
            values["pixel_values"] = values["pixel_values"].rot90(1, (2, 3))
            return values

    pipe = pipeline(
        TASK, model=build("vit"), image_processor=Turned(size={"height": 64, "width": 64}), method="gradient"
    )
    assert_refused(lambda: pipe(PICTURES[0]), "Turned", 'output_size="model"')
    [result] = pipe(PICTURES[0], output_size="model")
    view = np.asarray(result["heatmap"].convert("L"), dtype=float)
    turned = np.rot90(np.asarray(PICTURES[0].resize((64, 64), PIL.Image.Resampling.BILINEAR).convert("L"), dtype=float))
    assert np.corrcoef(view.ravel(), turned.ravel())[0, 1] > 0.5


def test_a_cropped_picture_has_no_map_outside_the_crop():
    crop = T.BitImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    pipe = pipeline(TASK, model=make_explainer(image_processor=crop))
    [result] = pipe(picture(133, 75))
    check_result(result, (133, 75))
    assert result["box"] == (28, 0, 104, 75)  # 113 x 64, of which 24 to 88 are seen
    heat, original = np.asarray(result["heatmap"]), np.asarray(picture(133, 75))
    assert np.array_equal(heat[:, :28], original[:, :28]) and not np.array_equal(heat[:, 28:104], original[:, 28:104])


@pytest.mark.parametrize(
    ("kwargs", "labels", "scores"),
    [
        ({"problem_type": "single_label_classification"}, LABELS, lambda x: x.softmax(-1)),
        ({"problem_type": "multi_label_classification"}, LABELS, torch.sigmoid),
        ({"num_labels": 1}, {0: "defect"}, torch.sigmoid),
    ],
)
def test_scores_follow_the_problem_type(kwargs, labels, scores):
    config = build("vit").config
    config.update(kwargs)
    config.id2label, config.label2id = labels, {v: k for k, v in labels.items()}
    torch.manual_seed(0)
    model = T.AutoModelForImageClassification.from_config(config).eval()
    for pipe in (
        pipeline(TASK, model=model, image_processor=processor(64), method="gradient"),
        pipeline(TASK, model=make_explainer(model)),
    ):
        results = pipe(PICTURES[0], target=list(range(len(labels))))
        with torch.no_grad():
            expected = scores(model(pipe.preprocess(PICTURES[0])["pixel_values"]).logits)[0]
        assert [r["score"] for r in results] == pytest.approx(expected.tolist(), abs=1e-5)
        [best] = pipe(PICTURES[0])
        assert best["label"] == labels[int(expected.argmax())]


# ---- refined ----


@pytest.fixture(params=["explainer", "gradient"])
def refinable(request, explain, by_gradient):
    """With the function that gives its maps (T, H, W) before they are refined."""
    if request.param == "explainer":
        return explain, lambda pixels, targets: explain.model(pixels, targets=[targets]).attributions[0].detach()
    columns = lambda pixels, targets: [METHODS["gradient"](by_gradient.classifier, pixels, t) for t in targets]  # noqa: E731
    return by_gradient, lambda pixels, targets: torch.cat(columns(pixels, targets))


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


@pytest.fixture
def seen(refinable):
    """How many pictures each forward of the classifier was shown."""
    counts = []
    handle = refinable[0].classifier.model.register_forward_pre_hook(
        lambda model, args, kwargs: counts.append(len([*args, *kwargs.values()][0])), with_kwargs=True
    )
    yield counts
    handle.remove()


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


# ---- what goes in ----


@pytest.fixture(scope="module")
def expected(explain):
    return [explain(p) for p in PICTURES]


def test_lists_and_tuples(explain, expected):
    for many in (PICTURES, tuple(PICTURES), [np.asarray(p) for p in PICTURES]):
        results = explain(many)
        assert isinstance(results, list)
        assert_same(results, expected)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batch_size_changes_nothing(explain, expected, batch_size):
    assert_same(explain(PICTURES, batch_size=batch_size), expected)
    assert_same(pipeline(TASK, model=explain.model, batch_size=batch_size)(PICTURES), expected)


@pytest.mark.parametrize("name", METHODS)
def test_a_result_does_not_depend_on_the_batch(name, monkeypatch):
    monkeypatch.setitem(METHODS, name, method_cases.quick(name))
    family = "vit" if method_cases.is_defined(name, "vit") else "resnet"
    pipe = pipeline(TASK, model=build(family), image_processor=processor(64), method=name)
    targets = [[0, 1], [2], 3, 4]
    alone = [pipe(p, target=t) for p, t in zip(PICTURES, targets, strict=True)]
    assert_same(pipe(PICTURES, target=targets, batch_size=3), alone)
    assert_same(pipe(PICTURES[::-1], target=targets[::-1], batch_size=4), alone[::-1])


def test_processes_that_read(explain, expected, tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path, p in zip(paths, PICTURES, strict=True):
        p.save(path)
    assert_same(explain(paths, batch_size=3, num_workers=2), expected)
    (tmp_path / "2.png").write_bytes(b"nothing")
    assert_refused(lambda: explain(paths, num_workers=2), "picture 2 of the input", "2.png", "complete")


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_generator_is_read_as_needed(explain, expected, batch_size):
    read = []
    results = explain((read.append(i) or p for i, p in enumerate(PICTURES)), batch_size=batch_size)
    assert iter(results) is results and read == []
    first = next(results)
    assert len(read) == batch_size
    assert_same([first, *results], expected)
    assert list(explain(iter([]))) == []


def test_data_sets(explain, expected):
    features = datasets.Features({"label": datasets.Value("int64"), "image": datasets.Image()})
    ds = datasets.Dataset.from_dict({"label": [0, 1, 2, 3], "image": PICTURES}, features=features)
    for many in (ds, ds["image"], KeyDataset(ds, "image"), ds.rename_column("image", "photo"), ds.with_format("torch")):
        results = explain(many, batch_size=3)
        assert iter(results) is results
        assert_same(list(results), expected)
    stream = ds.to_iterable_dataset()
    unknown = stream.map(lambda row: row)  # its columns are known only from its rows
    for many in (stream, unknown, stream.select_columns("image"), (row["image"] for row in stream)):
        assert_same(list(explain(many, batch_size=3, num_workers=2)), expected)
    list(stream)  # by which datasets makes it a torch data set, too
    assert_same(list(explain(stream)), expected)
    assert_same(list(explain(torch.utils.data.Subset(ds["image"], [0, 1, 2, 3]))), expected)


def test_data_sets_without_pictures(explain):
    ds = datasets.Dataset.from_dict({"text": ["a"], "label": [1]})
    assert_refused(lambda: explain(ds), "text, label", "no 'image'", "ds[")
    assert_refused(lambda: next(explain(ds.to_iterable_dataset().map(lambda row: row))), "text, label", "ds[")
    two = datasets.Features({"left": datasets.Image(), "right": datasets.Image()})
    pairs = datasets.Dataset.from_dict({"left": PICTURES[:1], "right": PICTURES[:1]}, features=two)
    assert_refused(lambda: explain(pairs), "left, right", "several pictures", "ds[")
    assert_refused(lambda: explain(ds.select([])), "text, label")
    assert_refused(lambda: explain(pairs["left"].__class__(pairs.select([]), "left")), "empty")


@pytest.mark.parametrize("kwargs", [{"device": "cpu"}, {"device": -1}, {"device_map": "cpu"}])
def test_devices(explain, folder, kwargs):
    assert_same([pipeline(TASK, model=folder, **kwargs)(PICTURES[0])], [explain(PICTURES[0])])


def test_half_precision(explain, folder, plain_folder):
    pipe = pipeline(TASK, model=folder, dtype=torch.bfloat16)
    assert pipe.classifier.dtype == torch.bfloat16
    results = pipe(PICTURES, batch_size=3, target=1)
    check_result(results[0][0], PICTURES[0].size)
    for [result], [full] in zip(results, explain(PICTURES, target=1), strict=True):
        assert np.corrcoef(result["attribution"].ravel(), full["attribution"].ravel())[0, 1] > 0.9
    for name in ("gradient", "occlusion", "semantic_pullback", "grad_cam"):
        [result] = pipeline(TASK, model=plain_folder, dtype=torch.bfloat16, method=name)(PICTURES[0])
        check_result(result, PICTURES[0].size)


def test_a_saved_explainer(explain, folder):
    assert_same([pipeline(TASK, model=folder)(PICTURES[0])], [explain(PICTURES[0])])


def test_mixed_sizes_are_grouped(by_gradient):
    keep = processor(64, do_resize=False)
    pipe = pipeline(TASK, model=build("convnext"), image_processor=keep, method="gradient")
    pictures = [picture(64, 96), picture(96, 64, 1), picture(64, 96, 2), picture(64, 64, 3)]
    targets = [0, [1, 2], [3, 4, 0], 1]
    alone = [pipe(p, target=t) for p, t in zip(pictures, targets, strict=True)]
    assert_same(pipe(pictures, target=targets, batch_size=4), alone)
    for p, results in zip(pictures, alone, strict=True):
        check_result(results[0], p.size)


def test_a_very_large_picture(explain):
    large = PIL.Image.new("RGB", (8000, 6000), "olive")
    start = time.process_time()  # of this process only: the machine may be busy
    [result] = explain(large)
    assert time.process_time() - start < 5
    assert result["attribution"].shape == (6000, 8000) and result["heatmap"].size == (8000, 6000)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (1, 200), (2000, 100)])
def test_odd_sizes(explain, size):
    check_result(explain(picture(*size))[0], size)


# ---- targets ----


def labels_of(results):
    return [[r["label"] for r in one] for one in results]


@pytest.mark.parametrize(
    ("target", "indices"),
    [
        (1, [[1], [1], [1]]),
        ("zebra", [[4], [4], [4]]),
        ("tabby", [[0], [0], [0]]),  # a unique synonym
        ("tabby, tabby cat", [[0], [0], [0]]),
        ("machine", [[3], [3], [3]]),
        (np.int64(2), [[2], [2], [2]]),
        (torch.tensor(2), [[2], [2], [2]]),
        ([0, "zebra", np.int32(2)], [[0], [4], [2]]),
        ((0, 1, 2), [[0], [1], [2]]),
        (range(3), [[0], [1], [2]]),
        (np.array([3, 2, 1]), [[3], [2], [1]]),
        (torch.tensor([3, 2, 1]), [[3], [2], [1]]),
        (torch.tensor([[3, 2], [1, 0], [4, 4]]), [[3, 2], [1, 0], [4, 4]]),
        ([[0], [1, "zebra"], [2, 3, 1]], [[0], [1, 4], [2, 3, 1]]),
        ([0, [1, 2], ("zebra",)], [[0], [1, 2], [4]]),
    ],
)
def test_targets_of_many(quick, target, indices):
    expected = [[LABELS[i] for i in row] for row in indices]
    assert labels_of(quick(PICTURES[:3], target=target, batch_size=2)) == expected
    assert labels_of(quick(iter(PICTURES[:3]), target=target, batch_size=2)) == expected


@pytest.mark.parametrize(
    ("target", "indices"),
    [(1, [1]), ("tabby", [0]), ([1], [1]), ([0, "zebra"], [0, 4]), (torch.tensor([2, 1]), [2, 1]), ((3,), [3])],
)
def test_targets_of_one(explain, target, indices):
    assert labels_of([explain(PICTURES[0], target=target)]) == [[LABELS[i] for i in indices]]


def test_top_k(explain, by_gradient):
    for pipe in (explain, by_gradient):
        scores = [r["score"] for r in pipe(PICTURES[0], target=range(5))]
        results = pipe(PICTURES[0], top_k=3)
        assert [r["score"] for r in results] == pytest.approx(sorted(scores, reverse=True)[:3], abs=1e-6)
        assert len(pipe(PICTURES[0], top_k=99)) == 5 and len(pipe(PICTURES[0], top_k=np.int64(2))) == 2
        assert [len(r) for r in pipe(PICTURES, top_k=2, batch_size=3)] == [2] * 4


def test_defaults_given_at_the_start(explain):
    first = pipeline(TASK, model=explain.model, top_k=2, batch_size=2)
    assert len(first(PICTURES[0])) == 2 and labels_of([first(PICTURES[0], target="zebra")]) == [["zebra"]]
    second = pipeline(TASK, model=explain.model, target="zebra")
    assert labels_of([second(PICTURES[0])]) == [["zebra"]] and len(second(PICTURES[0], top_k=3)) == 3


BAD_TARGETS = {
    "unknown": ("tabbi", ["'tabbi'", "nearest", "tabby, tabby cat"]),
    "ambiguous": ("crane", ["'crane'", "2 ", "3 ", "indices"]),
    "too large": (5, ["5", "0 to 4"]),
    "negative": (-1, ["-1", "0 to 4"]),
    "true": (True, ["True", "0 to 4"]),
    "numpy true": (np.True_, ["True", "0 to 4"]),
    "fraction": (1.5, ["1.5", "0 to 4"]),
    "numpy fraction": (np.float32(1.0), ["1.0", "0 to 4"]),
    "no list": (b"zebra", ["zebra", "0 to 4"]),
}


@pytest.mark.parametrize("name", BAD_TARGETS)
def test_bad_targets(explain, name):
    target, words = BAD_TARGETS[name]
    for inputs in (PICTURES[0], PICTURES[:2], iter(PICTURES)):  # also before the first picture of an iterator is read
        assert_refused(lambda inputs=inputs: explain(inputs, target=target), *words)
    assert_refused(lambda: explain(PICTURES[:2], target=[0, [1, target]]), *words)


def test_target_counts(explain):
    assert_refused(lambda: explain(PICTURES[0], target=[]), "empty list of targets")
    assert_refused(lambda: explain(PICTURES[0], target=[[1, 2]]), "[1, 2]")
    assert_refused(lambda: explain(PICTURES[:3], target=[]), "0 targets for 3 images")
    assert_refused(lambda: explain(PICTURES[:3], target=[0, [], 1]), "empty list of targets")
    assert_refused(lambda: explain(PICTURES[:3], target=[0, 1]), "2 targets for 3 images", "one per image")
    assert_refused(lambda: explain(PICTURES[:1], target=[0, 1]), "2 targets for 1 images", "list of lists")
    assert_refused(lambda: list(explain(iter(PICTURES[:3]), target=[0, 1], batch_size=2)), "2 targets for 3 images")
    assert_refused(lambda: list(explain(iter(PICTURES[:3]), target=[0, 1, 2, 3, 4])), "5 targets for 3 images")
    results = explain(iter(PICTURES[:3]), target=[0, 1])
    assert labels_of([next(results), next(results)]) == [[LABELS[0]], [LABELS[1]]]  # what could be done was


# ---- what is refused ----


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"measure": "best"}, ["unknown preset 'best'", "aha"]),
        ({"refine_steps": -1}, ["refine_steps=-1", "at least 0"]),
        ({"refine_steps": 2.5}, ["refine_steps=2.5", "integer"]),
        ({"refine_steps": True}, ["refine_steps=True"]),
        ({"refine_steps": 0, "seed": 3}, ["seed=3", "leave it out", "refine_steps="]),
        ({"tragte": 1}, ["tragte=1", "target"]),
        ({"method": "gradient"}, ["gradient", "RankingExplainer", "leave method out"]),
        ({"top_k": 0}, ["top_k=0", "at least 1"]),
        ({"top_k": True}, ["top_k=True"]),
        ({"top_k": 1.5}, ["top_k=1.5"]),
        ({"top_k": 2, "target": 1}, ["top_k=2", "target=1", "both"]),
        ({"output_size": "x"}, ["output_size='x'", '"model"']),
        ({"seed": -1}, ["seed=-1"]),
    ],
)
def test_bad_options(explain, kwargs, words):
    assert_refused(lambda: explain(PICTURES[0], **kwargs), *words)
    assert_refused(lambda: pipeline(TASK, model=explain.model, **kwargs), *words)


def test_bad_sizes_of_batches(explain):
    for kwargs in ({"batch_size": 0}, {"batch_size": "3"}, {"num_workers": -1}, {"batch_size": True}):
        assert_refused(lambda kwargs=kwargs: explain(PICTURES, **kwargs), next(iter(kwargs)), "integer")
        if "batch_size" in kwargs:
            assert_refused(lambda kwargs=kwargs: explain(PICTURES[0], **kwargs), "batch_size", "integer")
        pipe = pipeline(TASK, model=explain.model, **kwargs)
        assert_refused(lambda pipe=pipe: pipe(PICTURES), next(iter(kwargs)), "integer")


def test_bad_pictures(explain):
    assert_refused(lambda: explain([]), "empty list of pictures")
    assert_refused(lambda: explain(()), "empty list of pictures")
    assert_refused(lambda: explain(np.zeros((2, 8, 8, 3), np.uint8)), "(2, 8, 8, 3)", "list(array)")
    assert_refused(lambda: explain(None), "NoneType", "path")
    assert_refused(lambda: explain(3), "int", "path")
    assert_refused(lambda: explain({"image": PICTURES[0]}), "dict", "path")
    assert_refused(lambda: explain("gone.png"), "gone.png", "no file")
    assert_refused(lambda: explain([PICTURES[0], "gone.png"]), "picture 1 of the input", "gone.png", "no file")
    assert_refused(lambda: explain([PICTURES[0], (PICTURES[1], 3)]), "tuple", "path")


def test_a_method_is_needed_and_must_be_known(plain_folder):
    pipe = pipeline(TASK, model=plain_folder)
    assert_refused(lambda: pipe(PICTURES[0]), "ViTForImageClassification", "method", "input_x_gradient")
    assert_refused(lambda: pipe(PICTURES[0], method=None), "method")
    assert_refused(lambda: pipe(PICTURES[0], method="grad-kam"), "'grad-kam'", "input_x_gradient")
    assert_refused(lambda: pipeline(TASK, model=plain_folder, method=3), "3", "input_x_gradient")
    assert_refused(lambda: pipe(PICTURES[0], method="gradient", steps=3), "steps=3", "method")


def test_the_pipeline_that_travels(explain, by_gradient):
    """Without the library there are learned explainers only."""
    travelling = pipeline_image_attribution.ImageAttributionPipeline
    pipe = travelling(model=explain.model)
    assert_same([pipe(PICTURES[0])], [explain(PICTURES[0])])
    assert_same(pipe(PICTURES, batch_size=3), explain(PICTURES))
    for name in ("method", "measure", "refine_steps"):
        assert_refused(lambda name=name: pipe(PICTURES[0], **{name: 1}), name, "pip install hf-explain", "top_k")
    assert_refused(lambda: pipe(PICTURES[0], nonsense=1), "nonsense=1", "top_k")
    assert_refused(lambda: travelling(model=by_gradient.model), "ViTForImage", "pip install hf-explain")


def test_models_that_are_no_picture_classifiers(tmp_path):
    vit = T.ViTModel(build("vit").config)
    vit.config.architectures = ["ViTModel"]
    vit.save_pretrained(tmp_path / "headless")
    processor(64).save_pretrained(tmp_path / "headless")
    headless = str(tmp_path / "headless")
    assert_refused(lambda: pipeline(TASK, model=headless, method="gradient"), "headless", "ViTModel", "head")
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 9,
    }
    T.BertModel(T.BertConfig(**sizes)).save_pretrained(tmp_path / "text")
    assert_refused(lambda: pipeline(TASK, model=str(tmp_path / "text"), method="gradient"), "BertModel")
    bert = T.BertForSequenceClassification(T.BertConfig(**sizes))
    assert_refused(lambda: pipeline(TASK, model=bert, image_processor=processor(64)), "BertForSequence", "input_ids")
    regression = build("vit", problem_type="regression")
    regression.save_pretrained(tmp_path / "regression")
    processor(64).save_pretrained(tmp_path / "regression")
    assert_refused(lambda: pipeline(TASK, model=str(tmp_path / "regression"), method="gradient"), "regression")


def test_processors(plain_folder, explain):
    model = build("vit")
    assert_refused(lambda: pipeline(TASK, model=model, method="gradient"), "image_processor=")
    loaded = T.AutoModelForImageClassification.from_pretrained(plain_folder)  # the one saved beside it is found
    assert len(pipeline(TASK, model=loaded, method="gradient")(PICTURES[0])) == 1
    other = processor(64, image_mean=[0, 0, 0], image_std=[1, 1, 1])
    assert_refused(lambda: pipeline(TASK, model=explain.model, image_processor=other), "image_processor")
    larger = processor(96)  # the same colors: allowed, and the explainer keeps its own
    pipe = pipeline(TASK, model=explain.model, image_processor=larger, output_size="model")
    assert pipe(PICTURES[0])[0]["attribution"].shape == (96, 96)
    assert explain.model.image_processor is not larger and explain(PICTURES[0], output_size="model")[0]["box"][2] == 64


def test_damaged_weights():
    model = build("vit")
    pipe = pipeline(TASK, model=model, image_processor=processor(64), method="gradient")
    with torch.no_grad():
        model.classifier.weight.fill_(torch.nan)
    assert_refused(lambda: pipe(PICTURES[0]), "NaN", "load it again")
    assert_refused(lambda: pipe(PICTURES[0], refine_steps=1), "NaN", "load it again")


# ---- nothing is left behind ----

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")


def trace(model):
    """What a call must not change."""
    return {
        "hooks": {name: [len(getattr(m, kind)) for kind in HOOKS] for name, m in model.named_modules()},
        "parameters": {
            n: (p.requires_grad, p.dtype, p.grad is None, p.data_ptr()) for n, p in model.named_parameters()
        },
        "training": [m.training for m in model.modules()],
        "windows": [(m.window_size, m.shift_size) for m in model.modules() if hasattr(m, "shift_size")],
        "attention": model.config._attn_implementation,
        "attributes": {name: sorted(vars(m)) for name, m in model.named_modules()},
        "random": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype()),
        "threads": torch.get_num_threads(),
    }


def used_swin():
    """Half of it trainable. Its last stage stops shifting windows while it sees a picture of 64 pixels."""
    model = build("swin")
    with torch.no_grad():
        model(torch.zeros(1, 3, 64, 64), output_hidden_states=True)  # transformers installs its capture hooks once
    for i, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(i % 2 == 0)
    fresh = build("swin")
    for m, new in zip(model.modules(), fresh.modules(), strict=True):
        if hasattr(m, "shift_size"):
            m.window_size, m.shift_size = new.window_size, new.shift_size
    return model


@pytest.mark.parametrize("name", [*method_cases.defined("swin"), None])
@pytest.mark.parametrize("fails", [False, True])
def test_no_trace(name, fails, monkeypatch):
    if name is not None:
        monkeypatch.setitem(METHODS, name, method_cases.quick(name))
    model = used_swin()
    if name is None:
        pipe = pipeline(TASK, model=make_explainer(model))
    else:
        model.train()
        pipe = pipeline(TASK, model=model, image_processor=processor(64), method=name)
    before = trace(model)
    if fails:

        def fail(*args, **kwargs):
            raise IndexError("from the last layer")

        with monkeypatch.context() as patch:
            patch.setattr(model.classifier, "forward", fail)
            with pytest.raises(IndexError, match=r"^from the last layer$"):
                pipe(PICTURES, batch_size=2, target=1)
            with pytest.raises(IndexError, match=r"^from the last layer$"):
                pipe(PICTURES[0], target=1, refine_steps=1)
    else:
        pipe(PICTURES, batch_size=3, target=[0, [1, 2], 3, 4])
        pipe(PICTURES[0], top_k=2, output_size="model")
        pipe(PICTURES[0], refine_steps=1, seed=1)
        assert next(pipe(iter(PICTURES)))  # and an iterator that is not read to its end
    after = trace(model)
    for what in before:
        assert after[what] == before[what], what
    assert len(pipe(PICTURES[0])) == 1


@pytest.mark.parametrize("method", ["gradient", None])
def test_two_threads(method):
    """Pictures of two sizes, of which the smaller stops the shift of Swin's windows for the time of its call."""
    model, keep = build("swin"), processor(64, do_resize=False)
    pipe = pipeline(TASK, model=model, image_processor=keep, method=method) if method else None
    pipe = pipe or pipeline(TASK, model=make_explainer(model, keep))
    pictures = [picture(64, 64), picture(128, 128, 1)]
    alone, got, failed = [pipe(p, target=1) for p in pictures], [[], []], []

    def work(i):
        try:
            for _ in range(8):
                got[i].append(pipe(pictures[i], target=1))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for i in range(2):
        assert_same(got[i], [alone[i]] * 8)


# ---- saving and copying ----


def test_save_and_load(tmp_path, explain, by_gradient):
    for pipe, options in ((explain, {}), (by_gradient, {"method": "gradient"})):
        folder = tmp_path / type(pipe.model).__name__
        pipe.save_pretrained(folder)
        assert "custom_pipelines" not in json.loads((folder / "config.json").read_text())
        assert_same([pipeline(TASK, model=str(folder), **options)(PICTURES[0])], [pipe(PICTURES[0])])


def test_remote_code_is_written_only_when_asked_for(tmp_path, explain, by_gradient):
    explain.save_pretrained(tmp_path / "remote", remote_code=True)
    written = json.loads((tmp_path / "remote" / "config.json").read_text())["custom_pipelines"][TASK]
    assert written["impl"] == "pipeline_image_attribution.ImageAttributionPipeline"
    for name in ("pipeline_image_attribution", "reading", "pictures", "views", "modeling_ranking"):
        assert (tmp_path / "remote" / f"{name}.py").exists()
    assert not hasattr(explain.model.config, "custom_pipelines")
    assert_refused(lambda: by_gradient.save_pretrained(tmp_path / "x", remote_code=True), "ViTForImage", "plain")
    assert_refused(lambda: by_gradient.push_to_hub("somebody/something"), "ViTForImage", "plain")
    assert not (tmp_path / "x").exists()
    explain.model.config.custom_pipelines = {TASK: {}}  # as if loaded from such a branch
    try:
        explain.save_pretrained(tmp_path / "plain")
        assert explain.model.config.custom_pipelines == {TASK: {}}
    finally:
        del explain.model.config.custom_pipelines
    assert "custom_pipelines" not in json.loads((tmp_path / "plain" / "config.json").read_text())


def test_a_copy(explain):
    assert_same([copy.deepcopy(explain)(PICTURES[0])], [explain(PICTURES[0])])


# ---- smaller doors ----


def test_an_open_file_is_one_picture(explain, tmp_path):
    PICTURES[0].save(tmp_path / "x.png")
    with open(tmp_path / "x.png", "rb") as file:
        assert_same([explain(file)], [explain(PICTURES[0])])


def test_what_is_refused_at_smaller_doors(explain, explainer):
    assert_refused(lambda: explain(PIL.Image.new("RGB", (0, 5))), "0 x 5", "give one")
    assert_refused(lambda: explain(PICTURES[0], target=[["zebra", 0]]), "nested too deep", "flat list")
    assert_refused(lambda: pipeline(TASK, model=explainer, seed=3), "seed=3", "leave it out")


def test_the_signature_names_the_options(explain):
    import inspect

    named = set(inspect.signature(explain.__call__).parameters)
    assert {"target", "top_k", "method", "refine_steps", "seed", "output_size", "batch_size", "num_workers"} <= named
    public = {name for name in vars(type(explain)) if not name.startswith("_")}
    assert public <= {"preprocess", "postprocess", "save_pretrained", "push_to_hub"}


def test_zero_has_one_color_in_signed_maps():
    """Of a signed map only what speaks for the class is bright: zero and less are as dark in every map."""
    from hf_explain.modeling.views import COLORS, colorize

    for shift in (-1.0, -0.2):
        values = np.linspace(shift, 1, 100, dtype=np.float32).reshape(10, 10)
        assert (colorize(values, signed=True)[values <= 0] == COLORS[0]).all()
        assert not (colorize(values)[values <= 0] == COLORS[0]).all()
    assert (colorize(-np.ones((4, 4), np.float32), signed=True) == COLORS[0]).all()


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

    monkeypatch.setattr("hf_explain.faithfulness.measure", noting)
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
