"""A comparison sheet of maps: a picture, its evidence, and a column per method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageFilter
import torch

from ..modeling.errors import ExplainerError
from ..modeling.heatmaps import colorize, overlay
from ..modeling.views import View
from .lettering import DENSITY
from .mosaic import Line, mosaic

Values = np.ndarray | torch.Tensor


@dataclass(frozen=True)
class Row:
    """One picture of a sheet.

    Args:
        picture: a PIL image or a (H, W, 3) uint8 array.
        maps: (H, W) each, of the picture's size; NaN where the model never looked; None leaves a cell empty.
        evidence: (H, W) bool, the pixels that are known to matter.
        caption: goes under the picture.
        notes: one for each map, under it.
    """

    picture: PIL.Image.Image | np.ndarray
    maps: Sequence[Values | None]
    evidence: Values | None = None
    caption: str = ""
    notes: Sequence[str] = ()


def sheet(rows: Sequence[Row], titles: Sequence[str], title: str = "", cell: int = 136) -> PIL.Image.Image:
    """A figure with one row per picture: the picture, its evidence outlined if any is known, and one column per map.

    >>> import numpy as np
    >>> row = Row(np.zeros((64, 64, 3), np.uint8), [np.eye(64)], caption="a cat")
    >>> sheet([row], ["gradient"]).size[0] > 2 * 2 * 136
    True

    Args:
        titles: of the maps' columns.
        cell: longer side of a picture in CSS pixels.
    """
    check_rows(rows, titles)
    known = any(row.evidence is not None for row in rows)
    heads = ["picture", *["evidence"] * known, *map(str, titles)]
    lines = [Line(cells(row, known, cell * DENSITY), [row.caption, *[""] * known, *row.notes]) for row in rows]
    ramp = PIL.Image.fromarray(colorize(np.linspace(0, 1, 90 * DENSITY, dtype=np.float32)[None].repeat(20, 0)))
    legend = ["matters least", ramp, "matters most"] if len(heads) * cell > 270 else []
    return mosaic(lines, heads, title, cell, legend)


def check_rows(rows: Sequence[Row], titles: Sequence[str]) -> None:
    if not rows:
        raise ExplainerError("no rows for a sheet; give at least one picture.")
    for index, row in enumerate(rows):
        if len(row.maps) != len(titles) or len(row.notes) not in (0, len(titles)):
            raise ExplainerError(
                f"row {index} holds {len(row.maps)} maps and {len(row.notes)} notes for {len(titles)} titles; give one "
                "map per title, and one note per map or none."
            )
        size = to_picture(row.picture).size[::-1]
        for one in (*row.maps, row.evidence):
            if one is not None and tuple(one.shape) != size:
                raise ExplainerError(
                    f"row {index} holds a map of shape {tuple(one.shape)} for a picture of {size[0]} x {size[1]} "
                    "pixels; give maps of the picture's height and width."
                )


def cells(row: Row, known: bool, side: int) -> list[PIL.Image.Image | None]:
    """The pictures of a row from left to right, `side` pixels long each."""
    picture = to_picture(row.picture)
    shown: list[PIL.Image.Image | None] = [enlarge(picture, side)]
    if known:
        shown.append(None if row.evidence is None else outline(picture, row.evidence, side))
    return shown + [None if one is None else enlarge(on_picture(picture, one), side) for one in row.maps]


def to_picture(picture) -> PIL.Image.Image:
    return picture.convert("RGB") if isinstance(picture, PIL.Image.Image) else PIL.Image.fromarray(picture)


def on_picture(picture: PIL.Image.Image, attribution: Values) -> PIL.Image.Image:
    """The pipeline's overlay, of a map that may hold NaN: a frame of it keeps the picture's colors, holes are dark."""
    values = torch.as_tensor(attribution).detach().cpu().float()
    finite = torch.isfinite(values)
    if not finite.any():
        return picture
    rows, columns = (torch.nonzero(finite.any(axis)).flatten() for axis in (1, 0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    values = torch.where(finite, values, values[finite].min())
    return overlay(picture, values, View(box, box, box))


def outline(picture: PIL.Image.Image, evidence: Values, side: int) -> PIL.Image.Image:
    """The picture with a white line on black around the evidence, and the rest of it dimmed."""
    large = enlarge(picture, side)
    values = torch.as_tensor(evidence).cpu().bool().numpy()
    if not values.any():
        return large
    mask = PIL.Image.fromarray(values.astype(np.uint8) * 255).resize(large.size, PIL.Image.Resampling.NEAREST)
    dimmed = PIL.Image.blend(large, PIL.Image.new("RGB", large.size, "#202020"), 0.55)
    large = PIL.Image.composite(large, dimmed, mask)
    wide, line = 4 * DENSITY + 1, 2 * DENSITY + 1
    large.paste("#000000", mask=edge(mask, wide))
    large.paste("#ffffff", mask=edge(mask, line))
    return large


def edge(mask: PIL.Image.Image, width: int) -> PIL.Image.Image:
    """A line along the border of a mask, about `width` (odd) pixels wide."""
    grown, shrunk = mask.filter(PIL.ImageFilter.MaxFilter(width)), mask.filter(PIL.ImageFilter.MinFilter(width))
    return PIL.Image.fromarray(np.asarray(grown) - np.asarray(shrunk))


def enlarge(picture: PIL.Image.Image, side: int) -> PIL.Image.Image:
    """The picture with its longer side `side` pixels long. A small one keeps its pixels: blurring would add beauty."""
    times = side / max(picture.size)
    size = tuple(max(1, round(length * times)) for length in picture.size)
    if times > 1:
        whole = math.ceil(times)
        picture = picture.resize((picture.width * whole, picture.height * whole), PIL.Image.Resampling.NEAREST)
    return picture.resize(size, PIL.Image.Resampling.BOX)  # type: ignore[arg-type]
