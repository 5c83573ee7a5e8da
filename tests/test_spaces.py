"""The Spaces: metrics of `evaluate` and their apps, as they are loaded from a folder and from a (loopback) Hub."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import evaluate
import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from families import build, pictures, processor
from loopback_hub import LoopbackHub

from hf_explain import Classifier, ExplainerError
from hf_explain.faithfulness import measure
from hf_explain.localization import average_precision, localization_score, pointing_game
from hf_explain.localization.grid_scores import cell_masks

ROOT = Path(__file__).resolve().parent.parent
SPACES = ["deletion_insertion", "grid_localization"]
COLORS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}  # all that the Hub allows


@pytest.fixture
def load(monkeypatch, tmp_path):
    """A metric by the relative path that the cards give."""
    monkeypatch.chdir(ROOT)
    return lambda space, **kwargs: evaluate.load(f"./spaces/{space}", cache_dir=str(tmp_path), **kwargs)


@pytest.fixture(scope="module")
def classifier():
    return Classifier(build("resnet"), processor(64))


def draw(count=3, size=(64, 64), seed=1):
    return pictures(count, size, seed), torch.rand(count, *size, generator=torch.Generator().manual_seed(seed))


def module(space, file, name=None):
    spec = importlib.util.spec_from_file_location(name or f"{space}_{file}", ROOT / "spaces" / space / f"{file}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def front_matter(space):
    _, head, card = (ROOT / "spaces" / space / "README.md").read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(head), card


# ---- what a Space consists of ----


@pytest.mark.parametrize("space", SPACES)
def test_front_matter(space):
    head, card = front_matter(space)
    expected = {
        "title",
        "emoji",
        "colorFrom",
        "colorTo",
        "sdk",
        "sdk_version",
        "app_file",
        "pinned",
        "tags",
        "description",
    }
    assert expected <= set(head) <= expected | {"python_version", "license", "short_description"}
    assert {head["colorFrom"], head["colorTo"]} <= COLORS and head["sdk"] == "gradio"
    assert f"gradio=={head['sdk_version']}\n" in (ROOT / "constraints.txt").read_text()
    assert (ROOT / "spaces" / space / head["app_file"]).is_file() and head["tags"] == ["evaluate", "metric"]
    assert len(head["short_description"]) <= 60  # the Hub refuses longer ones
    assert isinstance(head["python_version"], str)  # not a number: 3.10 would be 3.1
    assert f'python_requires=">={head["python_version"]}"' in (ROOT / "setup.py").read_text()
    for title in ("What it measures", "How to use it", "Limits", "Citation"):
        assert f"\n## {title}\n" in card


@pytest.mark.parametrize("space", SPACES)
def test_requirements_name_what_is_imported(space):
    folder = ROOT / "spaces" / space
    lines = [line for line in (folder / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    named = {re.split("[<>=]", line)[0].replace("-", "_") for line in lines}
    imported = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                assert len(node.names) == 1, "evaluate's scan of dependencies reads one name per line"
                imported.add(node.names[0].name.split(".")[0])
            elif isinstance(node, ast.ImportFrom):
                assert not node.level
                imported.add(node.module.split(".")[0])
    imported = {"pillow" if name == "PIL" else name for name in imported} - sys.stdlib_module_names
    assert imported - {"gradio"} == named  # gradio comes by sdk_version


def test_the_folder_is_no_package():
    """Else `import spaces`, of the package of that name, would find it instead."""
    assert not list((ROOT / "spaces").glob("**/__init__.py"))


@pytest.mark.parametrize("space", SPACES)
def test_cases_of_the_space(load, space):
    metric = load(space)
    for case in module(space, "tests").test_cases:
        inputs = {name: value for name, value in case.items() if name != "result"}
        found = metric.compute(**inputs)
        assert {name: found[name] for name in case["result"]} == pytest.approx(case["result"], abs=1e-6)


def example(space):
    blocks = re.findall(r"```python\n(.*?)```", front_matter(space)[1], re.DOTALL)
    return "\n".join(blocks)


@pytest.mark.parametrize("space", SPACES)
def test_the_code_of_the_card_runs(space, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(ROOT)
    model = tmp_path / "model"
    build("resnet").save_pretrained(model)
    processor(64).save_pretrained(model)
    code = re.sub(r'"\w+/(vit-base-patch16-224|resnet-18)"', repr(str(model)), example(space))
    for index, name in enumerate(set(re.findall(r"\w+\.jpg", code))):
        noise = np.random.default_rng(index).integers(0, 255, (70, 90, 3), dtype=np.uint8)
        PIL.Image.fromarray(noise).save(tmp_path / name)
        code = code.replace(f'"{name}"', repr(str(tmp_path / name)))
    exec(compile(code, space, "exec"), {"__name__": "card"})
    assert "'size'" in capsys.readouterr().out  # of the protocol


# ---- deletion and insertion: the traps of evaluate, one by one ----


@pytest.mark.parametrize("given", [True, False])
def test_it_is_measure_at_any_size(load, classifier, given):
    """Also when sizes vary between computes of one object: features of a fixed size cannot be reshaped."""
    metric = load("deletion_insertion")
    for size in ((64, 64), (224, 224), (64, 96), (64, 64)):
        x, maps = draw(2, size)
        targets = torch.tensor([1, 4]) if given else None
        extra = {"targets": targets} if given else {}
        expected = measure(classifier, x, maps, targets, budgets=5)
        found = metric.compute(model=classifier, pixel_values=x, attributions=maps, budgets=5, **extra)
        for name, values in expected.intervals().items():
            assert found[name] == pytest.approx(values["mean"], abs=1e-6)
            assert found[f"{name}_low"] == pytest.approx(values["low"], abs=1e-6)
            assert found[f"{name}_high"] == pytest.approx(values["high"], abs=1e-6)
        assert found["protocol"] == expected.protocol and found["protocol"]["size"] == list(size)


def test_pieces_and_kinds_of_arrays_make_no_difference(load, classifier):
    x, maps = draw()
    given = {"model": classifier, "per_picture": True, "budgets": 5}
    metric = load("deletion_insertion")
    whole = metric.compute(pixel_values=x, attributions=maps, targets=2, **given)
    assert len(whole["deletion_per_picture"]) == 3 and metric.info.format == "torch"
    for picture, one in zip(x, maps, strict=True):
        metric.add(pixel_values=picture, attributions=one.requires_grad_(), targets=2)
    assert metric.compute(**given) == whole
    metric.add_batch(pixel_values=x[:2].numpy(), attributions=maps.detach()[:2].numpy(), targets=np.array([2, 2]))
    metric.add_batch(pixel_values=x[2:].tolist(), attributions=maps.detach()[2:].double(), targets=[2])
    assert metric.compute(**given) == whole
    in_memory = load("deletion_insertion", keep_in_memory=True)
    given |= {"model": classifier.model, "image_processor": classifier.image_processor}
    assert in_memory.compute(pixel_values=x, attributions=maps, targets=2, **given) == whole


def test_a_preset_and_its_file(load, classifier, tmp_path):
    x, maps = draw(2)
    metric = load("deletion_insertion")
    found = metric.compute(model=classifier, pixel_values=x, attributions=maps, preset="chefer", reference="blur")
    assert {"positive", "negative_low", "protocol"} <= set(found) and found["protocol"]["reference"] == "blur"
    path = evaluate.save(tmp_path / "result.json", **found)
    assert json.loads(Path(path).read_text())["positive"] == found["positive"]


def test_wrong_settings_leave_what_was_added(load, classifier):
    x, maps = draw(2)
    metric = load("deletion_insertion")
    metric.add_batch(pixel_values=x, attributions=maps)
    for wrong, said in (
        ({"model": classifier, "preset": "other"}, "unknown preset 'other'"),
        ({"model": classifier, "refrence": "blur"}, "unknown argument refrence"),
        ({}, "NoneType .* give an image classification model"),
    ):
        with pytest.raises(ExplainerError, match=said):
            metric.compute(**wrong)
    assert metric.compute(model=classifier, budgets=5)["protocol"]["pictures"] == 2


def test_wrong_input_of_deletion_and_insertion(load, classifier):
    x, maps = draw(2)
    metric = load("deletion_insertion")
    given = {"model": classifier, "budgets": 5}
    with pytest.raises(ExplainerError, match="attributions is missing"):
        metric.compute(pixel_values=x, **given)
    with pytest.raises(ExplainerError, match=r"attributions of shape \(2, 64, 60\)"):
        metric.add_batch(pixel_values=x, attributions=maps[..., :60])
    for targets in ([0], 1.5, [True, False], -1, [[0, 1]]):
        with pytest.raises(ExplainerError, match="for 2 pictures; give one class index per picture"):
            metric.add_batch(pixel_values=x, attributions=maps, targets=targets)
    metric.add_batch(pixel_values=x, attributions=maps)
    with pytest.raises(ExplainerError, match="pictures of 32 x 64 after others of 64 x 64; compute those first"):
        metric.add_batch(pixel_values=x[:, :, :32], attributions=maps[:, :32])
    metric.add_batch(pixel_values=x, attributions=maps, targets=[0, 1])
    with pytest.raises(ExplainerError, match="targets of 2 of 4 pictures were given"):
        metric.compute(**given)
    with pytest.raises(ExplainerError, match="image 0 holds NaN"):  # a NaN is still one after it was stored
        metric.compute(pixel_values=x, attributions=maps / torch.zeros(1), **given)
    assert metric.compute(pixel_values=x, attributions=maps, **given)["protocol"]["pictures"] == 2  # as if nothing was


def test_combined(load, classifier):
    """`evaluate.combine` hands every argument to every metric, and its add_batch needs every input by name."""
    x, maps = draw(4)
    labels = torch.tensor([[0, 1, 2, 3]] * 4)
    inputs = {"pixel_values": x, "attributions": maps, "targets": labels[0], "labels": labels, "masks": None}
    both = evaluate.combine([load(space) for space in SPACES])
    found = both.compute(**inputs, model=classifier, budgets=5, n=2)
    expected = measure(classifier, x, maps, labels[0], budgets=5).mean()
    expected |= {"localization": float(localization_score(maps, labels[0]).values.mean())}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert found["deletion_insertion_protocol"]["pictures"] == found["grid_localization_protocol"]["maps"] == 4
    both.add_batch(**inputs)
    assert both.compute(model=classifier, budgets=5, n=2) == found
    for i in range(4):
        both.add(**{name: None if value is None else value[i] for name, value in inputs.items()})
    assert both.compute(model=classifier, budgets=5, n=2) == found


@pytest.mark.parametrize("space", SPACES)
def test_without_the_library_it_says_what_to_install(load, space, monkeypatch):
    monkeypatch.setitem(sys.modules, "hf_explain", None)
    with pytest.raises(ImportError, match="pip install hf_explain"):
        load(space)


# ---- localization ----


def test_it_is_localization_at_any_size(load):
    metric = load("grid_localization")
    for size, n in (((64, 64), 2), ((96, 48), 3), ((64, 64), 4)):
        maps, cells = draw(3, size)[1] - 0.3, torch.tensor([0, n, n * n - 1])
        found = metric.compute(attributions=maps.numpy(), targets=cells.tolist(), n=n, per_picture=True)
        masks = cell_masks(cells, n, size)
        for name, values in (
            ("localization", localization_score(maps, cells, n).values),
            ("pointing_game", pointing_game(maps, masks)),
            ("average_precision", average_precision(maps, masks)),
        ):
            assert found[f"{name}_per_picture"] == pytest.approx(values.tolist(), abs=1e-6)
            assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]
        assert found["protocol"]["chance"]["localization"] == 1 / n**2 and json.dumps(found)


def test_masks_and_labels_may_be_added_in_pieces(load):
    maps, masks = draw(3)[1], draw(3, seed=2)[1] > 0.8
    labels = torch.tensor([[7, 5, 8, 9], [5, 6, 1, 2], [3, 4, 0, 5]])
    metric = load("grid_localization")
    whole = metric.compute(attributions=maps, targets=[5, 5, 5], labels=labels, masks=masks)
    assert whole["localization"] == pytest.approx(
        float(localization_score(maps, torch.tensor([1, 0, 3])).values.mean())
    )
    assert whole["average_precision"] == pytest.approx(float(average_precision(maps, masks).mean()), abs=1e-6)
    assert whole["protocol"]["evidence"] == "masks"
    for i in range(3):
        metric.add(attributions=maps[i], targets=5, labels=labels[i].numpy(), masks=masks[i])
    assert metric.compute() == whole


def test_wrong_input_of_localization(load):
    maps, cells = draw(2)[1], torch.tensor([0, 3])
    metric = load("grid_localization")
    for wrong, said in (
        ({"targets": None}, "targets is missing"),
        ({"attributions": maps[0]}, r"attributions of shape \(64, 64\)"),
        ({"targets": [0.0, 1.0]}, "for 2 maps; give one cell"),
        ({"labels": [0, 1]}, r"labels of shape \(2,\) for 2 maps"),
        ({"labels": [[0, 1, 2, 0], [0, 1, 2, 3]]}, r"class 0 of map 0 is in 2 of its cells \[0, 1, 2, 0\]"),
        ({"labels": [[0, 1], [3, 1]]}, "labels of 2 cells for n=2"),
        ({"masks": torch.zeros(2, 64, 64)}, "with at least one pixel in it"),
        ({"targets": [0, 4]}, "cells from 0 to 3"),
        ({"m": 3}, "unknown argument m; give attributions"),
        ({"attributions": maps / 0}, "holds NaN or infinite"),
    ):
        with pytest.raises(ExplainerError, match=said):
            metric.compute(**{"attributions": maps, "targets": cells, **wrong})
    metric.add_batch(attributions=maps, targets=cells)
    with pytest.raises(ExplainerError, match="maps of 64 x 64 with masks after others of 64 x 64"):
        metric.add_batch(attributions=maps, targets=cells, masks=maps > 0.5)
    assert metric.compute()["protocol"]["maps"] == 2


# ---- the apps ----


@pytest.mark.parametrize(
    ("space", "settings"),
    [
        ("deletion_insertion", ("input_x_gradient", "aha")),
        ("grid_localization", ("input_x_gradient", "final")),
    ],
)
def test_the_app_works_without_a_network(space, settings):
    import gradio

    app = module(space, "app")
    assert isinstance(app.demo, gradio.Blocks) and app.name.value == app.TINY
    for picture in (None, PIL.Image.new("RGB", (80, 60), "red")):
        given = [(picture, None)] * 4 if picture and space == "grid_localization" else picture
        found = app.explain(given, app.TINY, *settings)
        for output, value in zip(app.outputs, found, strict=True):
            output.postprocess(value)
    if space == "deletion_insertion":
        _, curves, areas, protocol = found
        assert curves.size[0] > 600 and protocol["name"] == "aha"
        assert [row[0] for row in areas] == ["input_x_gradient", app.FLOOR]
    else:
        maps, table, note = found
        assert len(maps) == len(table) == 4 and maps[0][0].size == (128, 128) and "Mean localization" in note
        with pytest.raises(gradio.Error, match="1 pictures were given; give four"):
            app.explain(given[:1], app.TINY, *settings)
    with pytest.raises(gradio.Error, match="Without a network, choose: tiny"):
        app.explain(None, "tester/nothing", *settings)


# ---- from the Hub ----

CLIENT = """
import sys, evaluate, torch
from huggingface_hub import HfApi
for space in ("deletion_insertion", "grid_localization"):
    HfApi().create_repo("tester/" + space, repo_type="space", space_sdk="gradio")
    HfApi().upload_folder(repo_id="tester/" + space, folder_path=sys.argv[1] + "/spaces/" + space, repo_type="space")
    metric = evaluate.load("tester/" + space)
    sys.path.insert(0, sys.argv[1] + "/spaces/" + space)
    from tests import test_cases
    del sys.modules["tests"], sys.path[0]
    for case in test_cases:
        expected = case.pop("result")
        found = metric.compute(**case)
        assert all(abs(found[name] - value) < 1e-6 for name, value in expected.items()), (found, expected)
    print(type(metric).__name__)
"""


def test_from_the_hub(tmp_path):
    """As it is published, with the real clients in a process of its own."""
    with LoopbackHub() as hub:
        environment = {**os.environ, **hub.environment(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
        environment |= {"HF_UPDATE_DOWNLOAD_COUNTS": "0", "NO_PROXY": "127.0.0.1"}
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, str(ROOT)], capture_output=True, text=True, env=environment, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["DeletionInsertion", "GridLocalization"]
        for space in SPACES:
            assert f"{space}.py" in hub.files(f"tester/{space}", repo_type="space")
