"""What the tests of explainers share."""

import torch
from families import build, processor

import hf_explain

Ltx, DiffMask = hf_explain.LtxExplainerForImageClassification, hf_explain.DiffMaskExplainerForImageClassification


def make(cls, family="swin", **kwargs):
    """Untrained, but with maps that differ from pixel to pixel and from class to class."""
    options = {"gate_start": 0.0} if cls is DiffMask else {}
    explainer = cls.from_classifier(build(family), processor(64), preset=smallest(cls), **options, **kwargs)
    if cls is Ltx:  # whose masks are one half at first, and whose classes are alike
        for weight in (explainer.head.score.weight, explainer.head.classes.weight):
            torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(3))
    return explainer


def smallest(cls):
    return "tiny" if "tiny" in cls.presets else "small"
