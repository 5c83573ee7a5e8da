"""Scores in packs are those of the whole, and so are their slopes."""

import pytest
import torch
from families import build, pictures

from hf_explain import Classifier
from hf_explain.modeling.model_call import counted
from hf_explain.modeling.perturbation import blend
from hf_explain.training import packing


@pytest.mark.parametrize("size", [None, 1, 3, 100])
def test_values_and_slopes(monkeypatch, size):
    classifier, x = Classifier(build("resnet")).freeze(), pictures(7)
    masks = torch.rand(7, 64, 64, requires_grad=True)
    weights = torch.linspace(-1, 2, 7)

    def probability(part, at):
        return classifier.scores(classifier(blend(x[at], part, torch.zeros(1)[:, None, None, None])))[:, 0]

    whole = probability(masks, torch.arange(7))
    (slope,) = torch.autograd.grad((weights * whole**2).sum(), masks)
    monkeypatch.setattr(packing, "fastest_batch", lambda *_, **__: size)
    with counted(classifier.model) as seen:
        packed = packing.score_in_packs(probability, masks, classifier, x)
    (found,) = torch.autograd.grad((weights * packed**2).sum(), masks)
    assert seen == {None: [7], 1: [1] * 7, 3: [3, 3, 1], 100: [7]}[size]
    assert torch.allclose(whole, packed, atol=1e-6) and torch.allclose(
        slope, found, atol=1e-6 * float(slope.abs().max()) + 1e-9
    )


def test_without_a_gradient_there_is_no_backward(monkeypatch):
    classifier, x = Classifier(build("resnet")).freeze(), pictures(4)
    monkeypatch.setattr(packing, "fastest_batch", lambda *_, **__: 2)
    monkeypatch.setattr(packing.InPacks, "apply", None)
    with torch.no_grad():
        found = packing.score_in_packs(lambda part, at: classifier(part)[:, 0], x, classifier, x)
    assert torch.allclose(found, classifier(x)[:, 0], atol=1e-6)
