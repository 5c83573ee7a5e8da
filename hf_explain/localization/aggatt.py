"""The AggAtt sheet: maps of many pictures, sorted by localization and averaged bin by bin, as a figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw

from ..modeling.errors import ExplainerError
from ..reports.lettering import DENSITY, GRID, INK
from ..reports.mosaic import Line, mosaic
from .aggregation import Aggregate, Bin, order_statistic

WHITE = np.array((255, 255, 255), float)
COLORS = {-1: np.array((178, 24, 43), float), 1: np.array((0, 109, 44), float)}  # against, for
NAMES = 156  # CSS pixels at the left


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

    def shown(values: np.ndarray, full: float, below: PIL.Image.Image | None = None) -> PIL.Image.Image:
        return framed(paint(values / max(full, 1e-30)), below, side * DENSITY, cell, n)

    short, words = score
    lines = []
    for name, found in rows:
        without = [f"{found.empty} without mass"] if found.empty else []
        said = [f"{short} {found.score:.2f} of {found.count} maps", *without, "their means"]
        lines.append(Line([shown(one.mean, found.scale) for one in found.bins], name=name, said=said))
        examples = [
            shown(
                one.map,
                order_statistic(np.abs(one.map).ravel(), 0.995),
                None if pictures is None else pictures[one.example],
            )
            for one in found.bins
        ]
        lines.append(Line(examples, [f"{short} {one.score:.2f}" for one in found.bins], said=["one of them"]))
    against = ", red: against" if any(b.mean.min() < 0 for _, found in rows for b in found.bins) else ""
    heads = [called(one) for one in rows[0][1].bins]
    return mosaic(lines, heads, title, side, f"{short}: {words}.  green: for the class{against}.", NAMES, most=5)


def called(part: Bin) -> str:
    first, last = part.share
    shares = f"{100 * first:g} - {100 * last:g} %"
    if first == 0 or last == 1:
        shares = f"best {100 * last:g} %" if first == 0 else f"worst {100 - 100 * first:g} %"
    return f"{shares}\n{part.count} map{'s' if part.count > 1 else ''}"


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
