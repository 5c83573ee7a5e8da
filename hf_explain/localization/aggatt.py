"""The AggAtt sheet: maps of many pictures, sorted by localization and averaged bin by bin, as a figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw

from ..modeling.errors import ExplainerError
from ..reports.lettering import DENSITY, FAINT, GRID, INK, PAPER, block, font, wrap, write
from .aggregation import Aggregate, order_statistic

WHITE = np.array((255, 255, 255), float)
COLORS = {-1: np.array((178, 24, 43), float), 1: np.array((0, 109, 44), float)}  # against, for


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

    >>> import torch
    >>> from hf_explain.localization.aggregation import aggregate
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
