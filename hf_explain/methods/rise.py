"""RISE (arXiv 1806.07421): the mean of random smooth masks, each weighed by what is still seen through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from .batching import batches
from .forwards import forwards


def rise(
    classifier: Classifier, pixel_values, targets=None, *, masks: int = 256, cells: int = 8, share: float = 0.5,
    seed: int = 0, batch_size: int = 32,
) -> torch.Tensor:  # fmt: skip
    """What masks do not show is 0, the mean color of most processors.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> rise(random_classifier(), torch.rand(2, 3, 32, 32), masks=8).shape
    torch.Size([2, 32, 32])

    Args:
        masks: how many, the same for all pictures.
        cells: of a mask, a side.
        share: of the cells that stay.
    """
    options: dict[str, Any] = {"masks": masks, "cells": cells, "share": share, "seed": seed, "batch_size": batch_size}
    with forwards("rise", masks * len(pixel_values)) as done:
        pairs = batches(classifier, pixel_values, targets, batch_size)
        return torch.cat([seen_through_masks(classifier, x, t, done, **options) for x, t in pairs])


@torch.no_grad()
def seen_through_masks(
    classifier, maps: torch.Tensor, targets: torch.Tensor, done: Callable[[int], None], *, masks: int, cells: int,
    share: float, seed: int, batch_size: int,
) -> torch.Tensor:  # fmt: skip
    """RISE of pictures, or of maps (B, C, h, w) inside a classifier: (B, h, w)."""
    if masks < 1 or cells < 1 or not 0 < share < 1:
        raise ExplainerError(f"masks={masks}, cells={cells}, share={share}; give at least 1 each, and a share below 1.")
    generator, at_once = torch.Generator().manual_seed(seed), max(1, batch_size // len(maps))
    total = torch.zeros(len(maps), *maps.shape[-2:], device=maps.device)
    for first in range(0, masks, at_once):
        count = min(at_once, masks - first)
        drawn = [draw_mask(maps.shape[-2:], cells, share, generator) for _ in range(count)]
        kept = torch.stack(drawn).to(maps)  # (masks, h, w)
        shown = (maps[None] * kept[:, None, None]).flatten(0, 1)  # all pictures under the first mask, then the second
        scores = classifier.scores(classifier(shown))
        score = scores.gather(1, targets.repeat(count)[:, None]).view(count, len(maps))
        total += torch.einsum("mb,mhw->bhw", score.float(), kept.float())
        done(len(shown))
    return total / (masks * share)


def draw_mask(size, cells: int, share: float, generator: torch.Generator) -> torch.Tensor:
    """Cells that stay with probability `share`, enlarged smoothly and shifted by a part of a cell: (h, w)."""
    steps = [-(-length // cells) for length in size]  # of a cell, rounded up
    coarse = (torch.rand(1, 1, cells, cells, generator=generator) < share).float()
    large = F.interpolate(coarse, [(cells + 1) * step for step in steps], mode="bilinear", align_corners=False)[0, 0]
    y, x = (int(torch.randint(step, (), generator=generator)) for step in steps)
    return large[y : y + size[0], x : x + size[1]]
