"""What may go into the pipeline: pictures, targets, and what is refused."""

import time

import datasets
import method_cases
import numpy as np
import PIL.Image
import pytest
import torch
import transformers as T
from families import LABELS, build, processor
from pipeline_cases import PICTURES, TASK, assert_refused, assert_same, check_result, picture
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

from hf_explain import METHODS
from hf_explain.modeling import pipeline_image_attribution


@pytest.fixture(scope="module")
def quick():
    """Where only labels matter."""
    return pipeline(TASK, model=build("vit"), image_processor=processor(64), method="random")


# ---- what goes in ----


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
