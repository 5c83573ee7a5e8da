"""`pipeline("image-attribution")`: what goes in, what comes out, what is refused, and that it leaves no trace."""

import copy
import json
import threading

import method_cases
import numpy as np
import PIL.Image
import pytest
import torch
import transformers as T
from families import LABELS, build, processor
from pipeline_cases import PICTURES, TASK, assert_refused, assert_same, check_result, make_explainer, picture
from transformers import pipeline

from hf_explain import METHODS

# ---- what comes out ----


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


def test_options_of_a_method(plain_folder):
    """In the name or as a dict, when the pipeline is made or in a call, which changes those of its own method."""
    wide = {"window": 32, "stride": 32}
    inside = pipeline(TASK, model=plain_folder, method="occlusion(window=32, stride=32)")
    beside = pipeline(TASK, model=plain_folder, method="occlusion", method_options=wide)
    pixels = inside.preprocess(PICTURES[0])["pixel_values"]
    ask = lambda pipe, **options: pipe(PICTURES[0], target=2, output_size="model", **options)[0]["attribution"]  # noqa: E731
    expected = METHODS["occlusion"](inside.classifier, pixels, 2, **wide)[0].numpy()
    for found in (ask(inside), ask(beside), ask(beside, method="occlusion", method_options=wide)):
        assert np.array_equal(found, expected)
    other = METHODS["occlusion"](inside.classifier, pixels, 2, window=32, stride=16)[0].numpy()
    assert np.array_equal(ask(beside, method_options={"stride": 16}), other) and not np.array_equal(other, expected)
    black = ask(beside, method="gradient")  # another method takes nothing over
    assert np.array_equal(black, METHODS["gradient"](inside.classifier, pixels, 2)[0].numpy())
    assert np.array_equal(ask(inside), expected)
    few = pipeline(TASK, model=plain_folder, method="rise(masks=5)")
    two = few(PICTURES[:2], target=2, seed=3, batch_size=2, output_size="model")  # drawn for each picture alone
    for one, picture_ in zip(two, PICTURES[:2], strict=True):
        alone = METHODS["rise"](few.classifier, few.preprocess(picture_)["pixel_values"], 2, masks=5, seed=3)[0]
        assert np.array_equal(one[0]["attribution"], alone.numpy())


def test_wrong_options_of_a_method(plain_folder, explain):
    pipe = pipeline(TASK, model=plain_folder)
    assert_refused(lambda: pipe(PICTURES[0], method="occlusion(windw=3)"), "'windw'", "'window'", "stride")
    assert_refused(lambda: pipe(PICTURES[0], method="occlusion(window=3"), "window=3", "occlusion(window=8, stride=4)")
    assert_refused(lambda: pipe(PICTURES[0], method="occlusion", method_options={"window": "x"}), "'x'", "an integer")
    assert_refused(lambda: pipe(PICTURES[0], method="occlusion", method_options=3), "method_options=3", "a dict")
    assert_refused(lambda: pipe(PICTURES[0], method_options={"window": 3}), "a method is needed", "method=")
    assert_refused(lambda: pipeline(TASK, model=plain_folder, method_options={"window": 3}), "'window': 3", "method=")
    assert_refused(lambda: pipe(PICTURES[0], method="rise(seed=1)"), "seed", "seed=")
    assert_refused(lambda: explain(PICTURES[0], method_options={"window": 3}), "learned explainer", "method_options")


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
    from hf_explain.modeling.heatmaps import COLORS, colorize

    for shift in (-1.0, -0.2):
        values = np.linspace(shift, 1, 100, dtype=np.float32).reshape(10, 10)
        assert (colorize(values, signed=True)[values <= 0] == COLORS[0]).all()
        assert not (colorize(values)[values <= 0] == COLORS[0]).all()
    assert (colorize(-np.ones((4, 4), np.float32), signed=True) == COLORS[0]).all()
