"""The same numbers as other libraries, from files that tests/support/fixtures/make_peers.py makes, and describes.

Where a library is installed beside ours, it is called too.
"""

import functools
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from families import processor
from transformers import ViTConfig, ViTForImageClassification

from hf_explain import Classifier
from hf_explain.faithfulness import measure
from hf_explain.faithfulness.case import prepare
from hf_explain.faithfulness.correlations import (
    correlate_subsets,
    faithfulness_estimate,
    monotonicity_correlation,
    random_logit,
)
from hf_explain.faithfulness.imputation import impute, impute_iteratively
from hf_explain.faithfulness.road import road
from hf_explain.faithfulness.robustness import infidelity
from hf_explain.modeling.perturbation import rank_each, top_mask

FOLDER = Path(__file__).parents[1] / "support" / "fixtures" / "peers"


def load(name):
    found = np.load(FOLDER / f"{name}.npz")
    return {key: torch.from_numpy(found[key]) for key in found}


@functools.cache
def load_case():
    """classifier, x (6, 3, 48, 48), maps and other maps (6, 48, 48), targets (6,)."""
    found = load("case")
    config = json.loads((FOLDER / "peers.json").read_text())["case"]["config"]
    model = ViTForImageClassification(ViTConfig(**config)).eval()
    model.load_state_dict({k.removeprefix("weights/"): v for k, v in found.items() if k.startswith("weights/")})
    classifier = Classifier(model.double(), processor(48))  # float64, as the fixtures' forwards
    x = found["pictures"].float() / 255 * 2 - 1
    maps, others = ((found[key].double() - 576.69).view(6, 48, 48) / 2304 for key in ("order", "other_order"))
    with torch.no_grad():
        targets = classifier(x).argmax(-1)
    return classifier, x, maps, others, targets


def measured(preset, **changes):
    classifier, x, maps, _, targets = load_case()
    return measure(classifier, x, maps, targets, preset, **changes)


def close(found, expected):
    torch.testing.assert_close(found.double(), expected.double(), atol=1e-6, rtol=0)


def test_curves_are_rises():
    """Retyped from its protocol: steps of equal size, insertion from a blurred picture."""
    expected, found = load("rise"), measured("rise", step=144)
    for name in ("deletion", "insertion"):
        close(found.curves[name], expected[name])
        close(found.areas[name], expected[f"{name}_area"])


def test_curves_are_torch_cams():
    expected, found = load("torchcam"), measured("xplique", budgets=17)
    for i, name in enumerate(("deletion", "insertion")):
        close(found.curves[name], expected[name])
        close(found.areas[name].mean(), expected["mean_areas"][i])


def test_areas_are_xpliques():
    expected, found = load("xplique"), measured("xplique", budgets=17)
    for name in ("deletion", "insertion"):
        close(found.areas[name], expected[f"{name}_area"])


@pytest.mark.parametrize("name, reference", [("zero", "zero"), ("black", "minimum")])
def test_curves_are_quantus_pixel_flippings(name, reference):
    """Under its own protocol: channel entries, no clean point, points 1 apart."""
    found = measured("quantus", step=576, reference=reference)
    close(found.curves["deletion"], load("quantus")[f"pixel_flipping_{name}"])


def test_the_retyped_loop_of_all():
    """One ranking, masks by comparison: what RISE, xplique and torch-cam have in common, in a dozen lines."""
    classifier, x, maps, _, targets = load_case()
    steps, (n, p) = 16, (len(x), maps[0].numel())
    order = maps.flatten(1).argsort(1, descending=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(p).expand(n, p))
    curve = []
    with torch.no_grad():
        for cut in torch.linspace(0, p, steps + 1).round().int():
            seen = (x.flatten(2) * (rank >= cut)[:, None]).view_as(x)
            curve.append(classifier(seen).softmax(-1).gather(1, targets[:, None])[:, 0])
    close(measured("xplique", budgets=steps + 1).deletion, torch.trapezoid(torch.stack(curve, 1), dx=1 / steps))


@pytest.mark.skipif(importlib.util.find_spec("captum") is None, reason="captum is not installed")
def test_infidelity_is_captums():
    """Called as its users call it, with the same perturbations."""
    from captum.metrics import infidelity as theirs

    classifier, x, maps, _, targets = load_case()
    classifier.model.float()
    noise = 0.1 * torch.randn(4, *x.shape[1:], generator=torch.Generator().manual_seed(0)) * 2  # 2: its pixels' gain
    repeated = lambda pixels: noise.repeat(len(pixels) // 4, 1, 1, 1)  # noqa: E731
    expected = theirs(
        classifier, lambda pixels: (repeated(pixels), pixels - repeated(pixels)), x,
        maps.float()[:, None].expand_as(x).contiguous(), target=targets, n_perturb_samples=4,
    )  # fmt: skip
    found = infidelity(classifier, x, maps.float(), targets, draws=4, deviation=0.1, seed=0)
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-5)
    classifier.model.double()


@pytest.mark.parametrize("solve, tolerance", [(impute, 1e-5), (impute_iteratively, 1e-3)])
def test_imputation_is_grad_cams(solve, tolerance):
    _, x, maps, _, _ = load_case()
    expected = load("gradcam")
    for i, share in enumerate(expected["imputed_shares"].tolist()):
        found = solve(x[i : i + 1], top_mask(rank_each(maps[i : i + 1], 0), share))[0]
        assert torch.allclose(found, expected["imputed"][i], atol=tolerance)


def test_road_is_grad_cams():
    classifier, x, maps, _, targets = load_case()
    expected = load("gradcam")
    shares = [100 * count / maps[0].numel() for count in expected["removed"].tolist()]
    found = road(classifier, x, maps, targets, percentiles=shares, score="difference", noise=0)
    for name in ("most_first", "least_first"):
        assert torch.allclose(found.curves[name], expected[name].float(), atol=1e-5)


@pytest.mark.parametrize(
    "name, options",
    [
        ("zero", {"reference": "zero"}),
        ("zero", {"reference": 0.5}),  # that is mid gray in this processor's space
        ("black", {"reference": "minimum"}),
        ("abs", {"reference": "zero", "absolute": True}),
    ],
)
def test_faithfulness_estimate_is_quantus(name, options):
    classifier, x, maps, _, targets = load_case()
    expected = load("quantus")[f"estimate_{name}"].float()
    found = faithfulness_estimate(classifier, x, maps, targets, steps=12, **options)
    assert torch.allclose(found, expected, atol=1e-6)


def test_monotonicity_correlation_is_quantus():
    classifier, x, maps, _, targets = load_case()
    expected = load("quantus")["monotonicity"].float()
    found = monotonicity_correlation(classifier, x, maps, targets, steps=12, draws=2, grays=(0.5, 0.5))
    assert torch.allclose(found, expected, atol=1e-6)


def test_faithfulness_correlation_is_quantus():
    """Subsets as Quantus drew them, which are others for every picture."""
    classifier, x, maps, _, targets = load_case()
    expected = load("quantus")
    gray = x[:, :1].expand(-1, 3, -1, -1)
    for i in range(6):
        subsets = torch.zeros(10, 48 * 48, dtype=torch.bool)
        subsets.scatter_(1, expected["correlation_subsets"][:, i].long(), True)
        one = prepare(classifier, gray[i : i + 1], maps[i : i + 1], targets[i : i + 1], 4)
        with torch.no_grad():
            found = correlate_subsets(one, maps[i : i + 1], subsets.view(10, 48, 48), "zero", "logit", "pearson")
        assert torch.allclose(found, expected["correlation"][i : i + 1].float(), atol=1e-6)


@pytest.mark.parametrize("similarity", ["ssim", "pearson"])
def test_random_logit_is_quantus(similarity):
    classifier, x, maps, others, targets = load_case()
    expected = load("quantus")[f"random_logit_{similarity}"].float()
    stored = lambda classifier, pixel_values, targets: others  # noqa: E731
    found = random_logit(classifier, x, maps, targets, method=stored, similarity=similarity, batch_size=6)
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    "name, module",
    [("quantus", "quantus"), ("torchcam", "torchcam"), ("gradcam", "pytorch_grad_cam"), ("xplique", "xplique")],
)
def test_the_files_are_what_the_libraries_say(name, module, tmp_path, monkeypatch):
    """Where a library is installed it is asked again; its answer is what the file holds."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: make_peers.py says how, in an environment of its own")
    specification = importlib.util.spec_from_file_location("make_peers", FOLDER.parent / "make_peers.py")
    make_peers = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(make_peers)
    monkeypatch.setattr(make_peers, "FOLDER", tmp_path)
    (tmp_path / "case.npz").write_bytes((FOLDER / "case.npz").read_bytes())
    make_peers.PEERS[name]()
    again, kept = np.load(tmp_path / f"{name}.npz"), np.load(FOLDER / f"{name}.npz")
    assert set(again) == set(kept)
    for key in kept:
        np.testing.assert_allclose(again[key], kept[key], atol=1e-6, err_msg=key)


def test_rises_loop_says_what_its_file_holds(tmp_path, monkeypatch):
    """It needs nothing but numpy, scipy and torch."""
    test_the_files_are_what_the_libraries_say("rise", "scipy", tmp_path, monkeypatch)
