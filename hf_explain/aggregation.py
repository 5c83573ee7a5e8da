"""AggAtt: all maps of a method in one row, from the best to the worst (arXiv 2205.10435).

Maps that ask for the same cell are sorted by how much of them is in it, cut into bins, and averaged bin by bin: so the
few best maps, which a paper likes to show, stand beside what most maps are like, and beside the worst.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import PIL.Image
import PIL.ImageDraw
import torch

from .lettering import DENSITY, FAINT, GRID, INK, PAPER, block, font, wrap, write
from .localization import enlarge, localization_score, smoothed
from .modeling.perturbation import ExplainerError

CUTS = (0.0, 0.02, 0.05, 0.5, 0.95, 0.98, 1.0)
WHITE = np.array((255, 255, 255), float)
COLORS = {-1: np.array((178, 24, 43), float), 1: np.array((0, 109, 44), float)}  # against, for


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
    edges = bin_edges(len(maps), cuts)  # before any work
    scores = localization_score(maps, torch.full((len(maps),), cell), n, size, smooth)
    order = sort_maps(scores.values, scores.inside)
    size = size or (maps.shape[-2], maps.shape[-1])

    def shown(index: int) -> torch.Tensor:
        large = enlarge(smoothed(maps[index : index + 1].float().cpu(), n, smooth, False), size)[0]
        return large if signed else large.clamp(min=0)

    bins = []
    for (first, last), share in zip(pairwise(edges), pairwise(cuts), strict=True):
        if first == last:
            continue
        total = torch.zeros(size, dtype=torch.float64)
        for index in order[first:last]:
            total += shown(index)
        example = order[(first + last - 1) // 2]
        mean, one = (total / (last - first)).float().numpy(), shown(example).numpy()
        bins.append(Bin(share, last - first, mean, example, one, float(scores.values[example])))
    scale = order_statistic(np.concatenate([np.abs(b.mean).ravel() for b in bins]), 0.995)
    return Aggregate(bins, scale, float(scores.values.mean()), len(maps), int(scores.empty.sum()))


def order_statistic(values: np.ndarray, share: float) -> float:
    """The value that `share` of all values do not exceed."""
    at = max(0, math.ceil(share * len(values) - 1e-9) - 1)
    return float(np.partition(values, at)[at])


# ---- the figure ----


def aggatt_sheet(
    rows: Sequence[tuple[str, Aggregate]],
    pictures: Sequence[PIL.Image.Image | None] | None = None,
    cell: int = 0,
    n: int = 2,
    title: str = "",
    side: int = 104,
    score: tuple[str, str] = ("L", "share of the positive mass in the framed cell, the one asked for"),
) -> PIL.Image.Image:
    """Per method a line of mean maps, best bin first, over a line with the map in the middle of each bin.

    >>> found = aggregate(torch.rand(30, 8, 8), cell=0)
    >>> aggatt_sheet([("random", found)], title="30 maps").mode
    'RGB'

    Args:
        rows: name and `aggregate(...)` of each method.
        pictures: the grid of every map, to lay examples over.
        cell, n: which cell was asked for: it is framed.
        side: of a map in CSS pixels.
        score: what the maps are sorted by: in short under them, and in words in the legend.
    """
    shares = [b.share for b in rows[0][1].bins] if rows else []
    if not rows or any([b.share for b in found.bins] != shares for _, found in rows):
        raise ExplainerError(
            "the rows of a sheet need at least one method, and the same bins in all; aggregate them alike."
        )
    unit, long = DENSITY, side * DENSITY
    margin, gap, pad, names = 16 * unit, 8 * unit, 5 * unit, 156 * unit
    big, normal, small = (font(points * unit) for points in (18, 14, 12))
    width = 2 * margin + names + len(shares) * (long + gap) - gap
    heading = wrap(title, big, width - 2 * margin, 3)
    top = margin + block(big, len(heading)) + (2 * pad if heading else 0)
    body = top + block(small, 2) + pad
    tall = 2 * long + gap // 2 + pad + block(small, 1) + 2 * gap
    page = PIL.Image.new("RGB", (width, body + len(rows) * tall + block(small, 1) + margin), PAPER)
    draw = PIL.ImageDraw.Draw(page)
    write(draw, (margin, margin), heading, big, INK)
    left = [margin + names + column * (long + gap) for column in range(len(shares))]
    for x, one in zip(left, rows[0][1].bins, strict=True):
        write(draw, (x, top), [called(one.share), f"{one.count} map{'s' if one.count > 1 else ''}"], small, INK)
    y = body
    for name, found in rows:
        lines = wrap(name, normal, names - gap, 4)
        write(draw, (margin, y), lines, normal, INK)
        under = y + block(normal, len(lines)) + pad
        without = [f"{found.empty} without mass"] if found.empty else []
        write(
            draw, (margin, under), [f"{score[0]} {found.score:.2f}", f"of {found.count} maps", *without], small, FAINT
        )
        write(draw, (margin, y + long - block(small, 1)), ["mean"], small, FAINT)
        write(draw, (margin, y + 2 * long + gap // 2 - block(small, 1)), ["one of them"], small, FAINT)
        for x, one in zip(left, found.bins, strict=True):
            page.paste(framed(paint(one.mean / max(found.scale, 1e-30)), None, long, cell, n), (x, y))
            own = order_statistic(np.abs(one.map).ravel(), 0.995)
            below = None if pictures is None else pictures[one.example]
            example = framed(paint(one.map / max(own, 1e-30)), below, long, cell, n)
            page.paste(example, (x, y + long + gap // 2))
            write(draw, (x, y + 2 * long + gap // 2 + pad), [f"{score[0]} {one.score:.2f}"], small, FAINT)
        y += tall
    against = ", red: against" if any(b.mean.min() < 0 for _, found in rows for b in found.bins) else ""
    legend = f"{score[0]}: {score[1]}.  green: for the class{against}."
    write(draw, (margin, y), wrap(legend, small, width - 2 * margin, 1), small, FAINT)
    return page


def called(share: tuple[float, float]) -> str:
    low, high = (f"{100 * s:g}" for s in share)
    return (
        f"best {high} %"
        if share[0] == 0
        else f"worst {100 - 100 * share[0]:g} %"
        if share[1] == 1
        else f"{low} - {high} %"
    )


def paint(values: np.ndarray) -> np.ndarray:
    """Colors (H, W, 3) of values in [-1, 1]: red, white, green; what is beyond is cut.

    >>> paint(np.array([[-9.0, 0.0, 1.0]]))[0].tolist()
    [[178, 24, 43], [255, 255, 255], [0, 109, 44]]
    """
    strength = np.abs(values).clip(0, 1)[..., None]
    full = np.where(values[..., None] < 0, COLORS[-1], COLORS[1])
    return (WHITE + strength * (full - WHITE)).round().astype(np.uint8)


def framed(colors: np.ndarray, below: PIL.Image.Image | None, side: int, cell: int, n: int) -> PIL.Image.Image:
    """A map with its cell framed, multiplied over the picture in pale gray if there is one."""
    image = PIL.Image.fromarray(colors).resize((side, side), PIL.Image.Resampling.BILINEAR)
    if below is not None:
        gray = below.convert("L").resize((side, side), PIL.Image.Resampling.BICUBIC)
        pale = 0.55 + 0.45 * np.asarray(gray, float)[..., None] / 255
        image = PIL.Image.fromarray((np.asarray(image, float) * pale).round().astype(np.uint8))
    draw, (row, column) = PIL.ImageDraw.Draw(image), divmod(cell, n)
    draw.rectangle((0, 0, side - 1, side - 1), outline=GRID, width=DENSITY)
    x, y = (round(at * side / n) for at in (column, row))
    draw.rectangle((x, y, x + side // n - 1, y + side // n - 1), outline=INK, width=2 * DENSITY)
    return image
