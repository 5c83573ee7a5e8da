"""The benchmarks run, and their instruments measure."""

import importlib
import json
import pathlib
import sys
from functools import partial

import pytest
import torch
from transformers import ViTConfig

SCRIPTS = str(pathlib.Path(__file__).parents[1] / "scripts")
NAMES = ("benchmark", "costs.gpu", "costs.real", "costs.training", "costs.zoo", "costs.measuring")


@pytest.fixture
def benchmark(monkeypatch):
    """The script as a module, as if it were launched: its siblings are found beside it."""
    monkeypatch.syspath_prepend(SCRIPTS)
    threads = torch.get_num_threads()
    yield importlib.import_module("benchmark")
    torch.set_num_threads(threads)
    for name in NAMES:
        sys.modules.pop(name, None)


def rows_of(capsys):
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("# torch ")
    return [json.loads(line) for line in lines]


def test_only_the_app_needs_its_extra(monkeypatch, benchmark):
    monkeypatch.setitem(sys.modules, "gradio_client", None)  # as if it were not installed
    monkeypatch.setitem(sys.modules, "httpx", None)
    for name in ("benchmark", "costs.app_load"):
        sys.modules.pop(name, None)
    script = importlib.import_module("benchmark")
    with pytest.raises(ModuleNotFoundError):
        script.main(["app", "--threads", "1"])


def test_training(benchmark, capsys):
    sizes = "--size 16 --batch_size 2 --runs 1 --largest_grid 8 --presets tiny --threads 1 --memory_limit 0.1"
    benchmark.main(["training", *sizes.split()])
    rows = rows_of(capsys)
    steps, operators = [r for r in rows if "step_ms" in r], [r for r in rows if "N" in r]
    assert [(r["operator"], r["grid"], r["sampled"]) for r in steps] == [
        ("topk", 16, 0), ("topk", 16, 2), ("sinkhorn", 8, 0),
    ]  # fmt: skip
    for row in steps:
        assert row["perturbed"] == 2 * 2 * (row["sampled"] or 6)  # pictures, curves, inner budgets
        assert row["step_ms"] > row["bare_ms"] > 0 and row["step_peak_mb"] > 0
        assert row["overhead"] == pytest.approx(row["step_ms"] / row["bare_ms"] - 1, abs=0.01)
        assert row["holds"] is (row["overhead"] <= row["limit"])
    measured = {(r["operator"], r["N"]): r for r in operators}
    matrices = {name: measured[name, 64]["peak_in_matrices"] for name in ("unrolled", "gumbel_sinkhorn", "soft_topk")}
    assert matrices["unrolled"] > 60 and matrices["gumbel_sinkhorn"] < 12 and matrices["soft_topk"] < 1
    assert "memory_limit" in measured["gumbel_sinkhorn", 50176]["skipped"]
    assert measured["soft_topk", 50176]["ms"] > 0


def test_zoo(benchmark, capsys, monkeypatch):
    """On a tiny classifier; a step reads a picture, three for the slopes, and two of each curve."""
    zoo = sys.modules["costs.zoo"].ZOO
    small = {"image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    monkeypatch.setitem(zoo, "microsoft/resnet-50", partial(ViTConfig, intermediate_size=32, **small))
    sizes = "--size 32 --preset tiny --runs 1 --threads 1 --checkpoints microsoft/resnet-50"
    benchmark.main(["zoo", *sizes.split()])
    (row,) = rows_of(capsys)
    assert row["passes_per_picture"] == 1 + 3 + 2 * 2 and row["passes_per_judged_picture"] == 2 * 2 * 11
    assert row["gflop_per_picture"] > row["passes_per_picture"] * row["gflop_forward"] > 0
    assert row["cpu_seconds_per_picture"] > 0


def test_operations_are_those_of_the_products(benchmark):
    a, b = torch.zeros(3, 4, requires_grad=True), torch.zeros(4, 5)
    with sys.modules["costs.measuring"].Operations() as operations:
        torch.autograd.grad((a @ b).sum(), a)
    assert operations.count == 2 * (2 * 3 * 4 * 5)  # forward, and backward to a


def test_peak_bytes_counts_what_is_alive_at_once(benchmark):
    def call():
        a = torch.zeros(1000)
        a = a + 1  # two of them
        b = a.view(10, 100)  # no memory of its own
        del a
        c = torch.zeros(500)
        return b, c

    assert sys.modules["costs.measuring"].peak_bytes(call, torch.device("cpu")) == 8000


def test_the_unrolled_reference_is_our_operator(benchmark):
    from hf_explain.modeling.ranking import gumbel_sinkhorn

    scores = torch.randn(1, 9, generator=torch.Generator().manual_seed(0))
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    theirs = sys.modules["costs.training"].unrolled_sinkhorn(scores, 1.0, generators[0])
    assert torch.allclose(theirs, gumbel_sinkhorn(scores, 1.0, generator=generators[1]).permutation, atol=1e-5)


def test_gpu_in_a_dry_run(benchmark, capsys, tmp_path):
    few = "gpu --dry_run --runs 1 --threads 1 --classifiers ResNet-50 --modes fp32 bf16"
    benchmark.main([*few.split(), "--output_dir", str(tmp_path)])
    rows = rows_of(capsys)
    assert rows == [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert [row["what"] for row in rows] == [
        *["explanation", "step"] * 2, *["gumbel_sinkhorn"] * 2, "soft_topk", *["measure"] * 2,
    ]  # fmt: skip
    assert not any("failed" in row or "skipped" in row for row in rows)
    page = (tmp_path / "gpu.md").read_text()
    assert "a dry run on a CPU, with tiny models" in page and page.count("| ResNet-50 |") == 4


def test_gpu_says_what_it_left_out(benchmark, capsys, tmp_path):
    few = "gpu --dry_run --runs 1 --threads 1 --classifiers ResNet-50 --modes fp32 --minutes 0"
    benchmark.main([*few.split(), "--output_dir", str(tmp_path)])
    assert all(row["skipped"] == "after 0 minutes" for row in rows_of(capsys))


@pytest.mark.parametrize(
    ("given", "said"),
    [(["gpu"], "there is no GPU here, so nothing was measured"), (["gpu", "--dry_run"], "give it an --output_dir")],
)
def test_gpu_without_one(benchmark, given, said):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit, match=said):
        benchmark.main(given)


def test_levers_are_pulled_one_by_one(benchmark):
    """Each changes the prepared copy, or how it is called, and nothing outside of the block."""
    from costs.real import LEVERS, Pulled
    from transformers import EfficientNetConfig, EfficientNetForImageClassification

    from hf_explain.modeling import packing, preparing

    sizes = {"width_coefficient": 0.25, "depth_coefficient": 0.1, "hidden_dim": 320, "num_labels": 3}
    model = EfficientNetForImageClassification(EfficientNetConfig(hidden_act="relu6", **sizes)).eval()
    for module in model.requires_grad_(False).modules():
        if hasattr(module, "act_expand"):
            module.expand.weight.zero_()
            module.expand.bias.fill_(40.0)
    x, seen = torch.rand(1, 3, 64, 64), []
    kept = preparing.KNOWN, packing.KNOWN, preparing.CONVOLUTIONS
    for count in range(len(LEVERS)):
        with Pulled(LEVERS[:count])():
            fast, channels_last = preparing.prepared(model, x)
            kinds = [type(m).__name__ for m in fast.modules()]
            names = ("BatchNorm2d", "EfficientNetSqueezeExciteLayer", "FusedConvolution")
            seen.append((channels_last, *(name in kinds for name in names)))
    assert seen == [
        (False, True, True, False), (True, True, True, False), (True, False, True, False),
        (True, False, False, False), (True, False, False, True),
    ]  # fmt: skip
    assert kept == (preparing.KNOWN, packing.KNOWN, preparing.CONVOLUTIONS)
