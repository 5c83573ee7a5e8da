"""Tiny deterministic classifiers and pictures on which a metric can be restated one pixel at a time."""

import torch
from families import build, pictures, processor

from hf_explain import Classifier

WEIGHTS = torch.randn(48, 5, generator=torch.Generator().manual_seed(0)) / 2


def bent(x):
    """Logits (B, 5) of pictures (B, 3, 4, 4)."""
    return torch.tanh(x.flatten(1)) @ WEIGHTS.to(x)


def tiny(logits=bent):
    """A `Classifier` whose logits are a function of the picture and that notes what it saw."""
    classifier = Classifier(build("resnet"), processor(64))
    classifier.seen = []

    def forward(pixel_values):
        classifier.seen.append(pixel_values.clone())
        return logits(pixel_values)

    classifier.forward = forward
    return classifier


def case(count=6, side=4):
    """Pictures, maps with negative values and without ties, and targets."""
    maps = torch.randn(count, side, side, generator=torch.Generator().manual_seed(2))
    return pictures(count, (side, side)), maps, torch.arange(count) % 5


def pixels(side=4):
    return [(y, x) for y in range(side) for x in range(side)]


def score(picture, target, kind="logit", logits=bent):
    found = logits(picture[None])[0]
    if kind == "indicator":
        return float(found.argmax() == target)
    return float((found if kind == "logit" else found.softmax(-1))[target])


def correlation(a, b):
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    top = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    spread_a, spread_b = sum((x - mean_a) ** 2 for x in a), sum((y - mean_b) ** 2 for y in b)
    return top / (spread_a * spread_b) ** 0.5


def ranks(values):
    """Equal values share the mean of their places."""
    below = [sum(other < value for other in values) for value in values]
    return [low + (sum(other == value for other in values) + 1) / 2 for low, value in zip(below, values, strict=True)]
