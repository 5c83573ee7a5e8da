"""AggAtt: all maps of a method in one row, from the best to the worst (arXiv 2205.10435).

Maps that ask for the same cell are sorted by how much of them is in it, cut into bins, and averaged bin by bin: so the
few best maps, which a paper likes to show, stand beside what most maps are like, and beside the worst.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from ..modeling.errors import ExplainerError
from .grid_scores import enlarge, localization_score, smoothed

CUTS = (0.0, 0.02, 0.05, 0.5, 0.95, 0.98, 1.0)


@dataclass(frozen=True)
class Bin:
    """Maps of neighboring ranks.

    Args:
        share: of all maps, from the best: (0.0, 0.02) is the best 2 %.
        count: of maps.
        mean: of them, (H, W).
        example: which map is in the middle of them; `map` is that map, `score` its score.
    """

    share: tuple[float, float]
    count: int
    mean: np.ndarray
    example: int
    map: np.ndarray
    score: float


@dataclass(frozen=True)
class Aggregate:
    """The bins of one method from the best to the worst, the value that has full color, and the mean score of `count`
    maps, of which `empty` have no positive mass and score 0."""

    bins: list[Bin]
    scale: float
    score: float
    count: int
    empty: int


def bin_edges(count: int, cuts: Sequence[float] = CUTS) -> list[int]:
    """Ranks where the bins begin and end, for any number of maps; a bin that gets none is left empty.

    >>> bin_edges(500), bin_edges(30)
    ([0, 10, 25, 250, 475, 490, 500], [0, 1, 2, 15, 29, 29, 30])
    """
    if count < 1 or list(cuts) != sorted(cuts) or len(cuts) < 2 or cuts[0] != 0 or cuts[-1] != 1:
        raise ExplainerError(
            f"{count} maps and cuts={tuple(cuts)}; give at least one map, and cuts that rise from 0 to 1."
        )
    return [math.floor(cut * count + 0.5 + 1e-9) for cut in cuts]


def sort_maps(values: torch.Tensor, inside: torch.Tensor) -> list[int]:
    """Indices from the best score to the worst; of equal scores, first the more mass inside the cell.

    >>> sort_maps(torch.tensor([0.2, 0.9, 0.2]), torch.tensor([1.0, 1.0, 5.0]))
    [1, 2, 0]
    """
    pairs = zip(values.tolist(), inside.tolist(), strict=True)
    return [index for index, _ in sorted(enumerate(pairs), key=lambda item: (-item[1][0], -item[1][1]))]


def aggregate(
    maps: torch.Tensor,
    cell: int = 0,
    n: int = 2,
    size: tuple[int, int] | None = None,
    cuts: Sequence[float] = CUTS,
    signed: bool = False,
    smooth: int | None = None,
) -> Aggregate:
    """The bins of one method's maps (S, h, w) that all ask for one cell.

    >>> found = aggregate(torch.rand(30, 8, 8), cell=0)
    >>> [one.count for one in found.bins], found.bins[0].mean.shape
    ([1, 1, 13, 14, 1], (8, 8))

    Args:
        size: of the grid in pixels, to which maps are enlarged.
        signed: keep what is negative, instead of averaging the positive parts.
        smooth: as of `localization_score`, for scores and pictures.
    """
    bin_edges(len(maps), cuts)  # before any work
    scores = localization_score(maps, torch.full((len(maps),), cell), n, size, smooth)
    order = sort_maps(scores.values, scores.inside)
    size = size or (maps.shape[-2], maps.shape[-1])

    def shown(index: int) -> torch.Tensor:
        large = enlarge(smoothed(maps[index : index + 1].float().cpu(), n, smooth, False), size)[0]
        return large if signed else large.clamp(min=0)

    bins, scale = average_bins(((i, shown(i).numpy()) for i in order), order, scores.values.tolist(), cuts)
    return Aggregate(bins, scale, float(scores.values.mean()), len(maps), int(scores.empty.sum()))


def average_bins(
    maps: Iterable[tuple[int, np.ndarray]], order: Sequence[int], scores: Sequence[float], cuts: Sequence[float]
) -> tuple[list[Bin], float]:
    """The bins of all maps, which may come in any order and are seen once, and the value that has full color.

    Args:
        order: indices of the maps from the best to the worst.
        scores: of each map, by its index.
    """
    parts = [list(order[first:last]) for first, last in pairwise(bin_edges(len(order), cuts))]
    place = {index: number for number, part in enumerate(parts) for index in part}
    middle = [part[(len(part) - 1) // 2] if part else None for part in parts]
    sums: dict[int, np.ndarray] = {}
    examples: dict[int, np.ndarray] = {}
    for index, one in maps:
        number = place[index]
        sums[number] = sums.get(number, 0) + one.astype(np.float64)
        if index == middle[number]:
            examples[index] = one
    bins = [
        Bin(share, len(part), (sums[number] / len(part)).astype(np.float32), at, examples[at], float(scores[at]))
        for number, (part, at, share) in enumerate(zip(parts, middle, pairwise(cuts), strict=True))
        if at is not None
    ]
    return bins, order_statistic(np.concatenate([np.abs(b.mean).ravel() for b in bins]), 0.995)


def order_statistic(values: np.ndarray, share: float) -> float:
    """The value that `share` of all values do not exceed."""
    at = max(0, math.ceil(share * len(values) - 1e-9) - 1)
    return float(np.partition(values, at)[at])
