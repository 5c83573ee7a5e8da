"""A checkpoint of every release, made by `checkpoints/make.py` then, loads in this version and gives the same maps."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import hf_explain
from hf_explain import ExplainerForImageClassification

FOLDERS = sorted(p.parent for p in Path(__file__).parents[1].glob("checkpoints/*/*/config.json"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_old_checkpoint(folder):
    explainer, info = ExplainerForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    expected = load_file(folder / "expected.safetensors")
    with torch.no_grad():
        targets = torch.tensor([[0, 3], [4, 1]]) if explainer.config.class_conditional else None
        output = explainer(expected["pixel_values"], targets=targets)
    assert expected["attributions"].std() > 1e-3
    assert torch.allclose(output.logits, expected["logits"], atol=1e-5)
    assert torch.allclose(output.attributions, expected["attributions"], atol=1e-5)


@pytest.mark.parametrize("kind", ["ranking", "hybrid", "ltx", "diffmask"])
def test_this_version_has_one(kind):
    assert (hf_explain.__version__, kind) in {(p.parent.name, p.name) for p in FOLDERS}


def test_the_hybrid_depends_on_its_slopes():
    """Else its maps would guard nothing that `ranking` does not."""
    for folder in (f for f in FOLDERS if f.name == "hybrid"):
        explainer = ExplainerForImageClassification.from_pretrained(folder)
        expected, targets = load_file(folder / "expected.safetensors"), torch.tensor([[0, 3], [4, 1]])
        x, (_, maps) = expected["pixel_values"], explainer.read(expected["pixel_values"])
        assert explainer.config.hybrid
        with torch.no_grad():
            without = explainer.attribute(x, maps, targets, slopes=0 * explainer.slopes(x, targets))
        assert (without - expected["attributions"]).std() > 0.1
