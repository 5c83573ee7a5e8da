"""Figures of maps and of their curves, with PIL and numpy only: a comparison sheet, and deletion beside insertion.

Sizes are given in CSS pixels and drawn `DENSITY` times as large, so that they are sharp on every screen and on paper.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFilter
import PIL.ImageFont
import torch

from .modeling.perturbation import ExplainerError
from .modeling.views import View, colorize, overlay

DENSITY = 2
PAPER, INK, FAINT, GRID = "#ffffff", "#1b1d22", "#5b616b", "#e3e5e9"
# Okabe and Ito's colors, which color-blind readers tell apart, without the yellow that white paper swallows.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
YARDSTICK = "#858b95"
DASHES = ((), (9, 5), (2, 4))  # on and off, for when the colors begin again
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


def save(image: PIL.Image.Image, path) -> Path:
    """Where the figure was written as a PNG that prints at its CSS size; folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "PNG", dpi=(96 * DENSITY, 96 * DENSITY))
    return path


# ---- sheet ----


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
    heads = ["picture", "evidence"][: 1 + known] + [str(t) for t in titles]
    unit, side = DENSITY, cell * DENSITY
    margin, gap, pad = 16 * unit, 8 * unit, 5 * unit
    between = 12 * unit  # rows
    big, normal, small = (font(points * unit) for points in (18, 14, 12))
    head_lines = [wrap(text, normal, side, 3) for text in heads]
    figures = [cells(row, known, side) for row in rows]
    notes = [
        [wrap(row.caption, small, side, 3)] + [[]] * known + [wrap(n, small, side, 3) for n in row.notes]
        for row in rows
    ]
    heights = [
        max(f.height for f in figure if f) + pad + block(small, max(map(len, n))) for figure, n in zip(figures, notes)
    ]
    width = 2 * margin + len(heads) * (side + gap) - gap
    title_lines = wrap(title, big, width - 2 * margin, 3)
    top = margin + block(big, len(title_lines)) + (pad * 2 if title_lines else 0)
    body = top + block(normal, max(map(len, head_lines))) + pad
    legend = block(small, 1)
    height = body + sum(heights) + between * len(rows) + legend + margin
    page = PIL.Image.new("RGB", (width, height), PAPER)
    draw = PIL.ImageDraw.Draw(page)
    write(draw, (margin, margin), title_lines, big, INK)
    left = [margin + column * (side + gap) for column in range(len(heads))]
    for x, text in zip(left, head_lines):  # stand on one line
        write(draw, (x, body - pad - block(normal, len(text))), text, normal, INK)
    y = body
    for figure, note, tall in zip(figures, notes, heights):
        shown = max(f.height for f in figure if f)
        for x, image in zip(left, figure):
            if image:
                page.paste(image, (x, y))
                continue
            draw.rectangle((x, y, x + side - 1, y + shown - 1), GRID)
            draw.text((x + side // 2, y + shown // 2), "none", FAINT, small, anchor="mm")
        under = y + shown + pad
        for x, text in zip(left, note):
            write(draw, (x, under), text, small, FAINT)
        y += tall + between
    color_bar(page, (margin, y), small, width - 2 * margin)
    return page


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


def color_bar(page: PIL.Image.Image, at: tuple[int, int], face, width: int) -> None:
    """What the colors mean, where there is room for it."""
    low, high, long = "matters least", "matters most", 90 * DENSITY
    gap, tall = 6 * DENSITY, 10 * DENSITY
    first, second = (math.ceil(face.getlength(text)) for text in (low, high))
    if first + second + long + 2 * gap > width:
        return
    draw, (x, y) = PIL.ImageDraw.Draw(page), at
    ramp = colorize(np.linspace(0, 1, long, dtype=np.float32)[None].repeat(tall, 0))
    write(draw, (x, y), [low], face, FAINT)
    page.paste(PIL.Image.fromarray(ramp), (x + first + gap, y + (block(face, 1) - tall) // 2))
    write(draw, (x + first + long + 2 * gap, y), [high], face, FAINT)


# ---- curves ----

PANELS = {
    "deletion": ("Deletion", "lower is better", "share of the pixels removed"),
    "insertion": ("Insertion", "higher is better", "share of the pixels brought back"),
}
Curves = Mapping[str, Mapping[str, Sequence[float]]]


def draw_curves(
    curves: Curves, yardsticks: Sequence[str] = (), title: str = "", width: int = 960, tall: int = 270
) -> PIL.Image.Image:
    """A figure of deletion beside insertion: a mean curve per method with its interval shaded.

    >>> draw_curves({"random": {"deletion": [1, 0.5, 0], "insertion": [0, 0.5, 1]}}).size[0]
    1920

    Args:
        curves: per label "deletion" and "insertion", evenly spaced from no pixel to all of them, and the ends of their
            intervals as "deletion_low", "deletion_high", ... where known.
        yardsticks: labels that are not methods (a random map, the exact mask): drawn gray and dashed.
        width: of the figure, and `tall` the height of its axes, in CSS pixels.
    """
    if not curves:
        raise ExplainerError("no curves to draw; give those of at least one method.")
    if width < 600 or tall < 100:
        raise ExplainerError(f"width={width}, tall={tall}; two plots side by side need at least 600 and 100.")
    unit = 2 * DENSITY  # drawn twice as large once more, so that lines come out smooth
    large, normal, small = (font(points * unit) for points in (17, 14, 12.5))
    margin, ticks, pad = 18 * unit, 44 * unit, 6 * unit
    inner = width * unit - 2 * margin
    styles = style(list(curves), yardsticks)
    legend = lay_legend(list(curves), normal, inner, unit)
    title_lines = wrap(title, large, inner, 2)
    top = margin + block(large, len(title_lines)) + (2 * pad if title_lines else 0)
    head = block(large, 1) + block(small, 1) + pad
    foot = 2 * block(small, 1) + 3 * pad
    height = top + head + tall * unit + foot + block(normal, legend[-1][1] + 1) + margin
    page = PIL.Image.new("RGB", (width * unit, height + height % 2), PAPER)
    draw = PIL.ImageDraw.Draw(page)
    write(draw, (margin, margin), title_lines, large, INK)
    panel = (inner - margin) // 2
    for index, name in enumerate(PANELS):
        left = margin + index * (panel + margin)
        area = (left + ticks, top + head, left + panel - pad, top + head + tall * unit)
        draw_axes(draw, area, PANELS[name], large, small, unit)
        for label in reversed(list(curves)):  # the first on top
            draw_curve(page, area, curves[label], name, *styles[label], unit)
    y = top + head + tall * unit + foot
    for (x, line, text), label in zip(legend, curves):
        middle = y + block(normal, line) + block(normal, 1) // 2
        color, dash = styles[label]
        stroke(draw, [(margin + x, middle), (margin + x + 28 * unit, middle)], color, 3 * unit, dash, unit)
        write(draw, (margin + x + 36 * unit, y + block(normal, line)), [text], normal, INK)
    return page.reduce(unit // DENSITY)


def style(labels: Sequence[str], yardsticks: Sequence[str]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Color and dashes of every label: colors first, then the same ones dashed."""
    methods, gray = [one for one in labels if one not in yardsticks], [one for one in labels if one in yardsticks]
    count = len(PALETTE)
    styles: dict[str, tuple[str, tuple[int, ...]]] = {}
    styles |= {one: (PALETTE[i % count], DASHES[i // count % len(DASHES)]) for i, one in enumerate(methods)}
    return styles | {one: (YARDSTICK, DASHES[1 + i % 2]) for i, one in enumerate(gray)}


def lay_legend(labels: Sequence[str], face, width: int, unit: int) -> list[tuple[int, int, str]]:
    """x, line and text of each entry of the legend, from left to right and on as many lines as it takes."""
    sample, gap, entries, x, line = 36 * unit, 26 * unit, [], 0, 0
    for label in labels:
        text = shorten(plain(label), face, width - sample)
        long = sample + math.ceil(face.getlength(text))
        if x and x + long > width:
            x, line = 0, line + 1
        entries.append((x, line, text))
        x += long + gap
    return entries


def draw_axes(draw: PIL.ImageDraw.ImageDraw, area, texts: tuple[str, str, str], large, small, unit: int) -> None:
    left, top, right, bottom = area
    name, better, along = texts
    pad, line = 6 * unit, block(small, 1)
    head = top - pad - line - block(large, 1)
    write(draw, (left, head), [name], large, INK)
    draw.text((left + large.getlength(name + "  "), head + ascent(large)), better, FAINT, small, anchor="ls")
    write(draw, (left, top - pad - line), ["probability of the class"], small, FAINT)
    for tick in range(5):
        y, x = round(bottom - (bottom - top) * tick / 4), round(left + (right - left) * tick / 4)
        draw.line([(left, y), (right, y)], INK if tick == 0 else GRID, unit)
        draw.line([(x, bottom), (x, bottom + 4 * unit)], INK, unit)
        draw.text((left - pad, y), f"{tick / 4:.2f}", FAINT, small, anchor="rm")
        draw.text((x, bottom + pad), f"{25 * tick}%", FAINT, small, anchor="ra" if tick == 4 else "ma")
    draw.text(((left + right) // 2, bottom + pad + line), along, FAINT, small, anchor="ma")


def draw_curve(page: PIL.Image.Image, area, curve, name: str, color: str, dash: tuple[int, ...], unit: int) -> None:
    """One method in one plot; gaps where it is not a number."""
    if name not in curve:
        return
    draw = PIL.ImageDraw.Draw(page)
    if f"{name}_low" in curve and f"{name}_high" in curve:
        low, high = places(curve[f"{name}_low"], area), places(curve[f"{name}_high"], area)
        shade = PIL.Image.new("L", (area[2] - area[0], area[3] - area[1]))
        for first, second in zip(unbroken(low, high), unbroken(high, low)):
            border = [(x - area[0], y - area[1]) for x, y in first + second[::-1]]
            PIL.ImageDraw.Draw(shade).polygon(border, fill=42)
        page.paste(color, area[:2], shade)
    for piece in unbroken(places(curve[name], area)):
        if len(piece) > 1:
            stroke(draw, piece, color, round(2.2 * unit), dash, unit)
        else:
            (x, y), radius = piece[0], 3 * unit
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), color)


def places(values: Sequence[float], area) -> np.ndarray:
    """Where the points of a curve are on the page, (points, 2)."""
    left, top, right, bottom = area
    y = np.array([math.nan if v is None else v for v in values], float).clip(0, 1)
    x = np.linspace(0, 1, len(y)) if len(y) > 1 else np.zeros(len(y))
    return np.stack([left + x * (right - left), bottom - y * (bottom - top)], 1)


def unbroken(points: np.ndarray, *others: np.ndarray) -> list[list[tuple[float, float]]]:
    """The runs of points that are numbers, here and in the other curves."""
    good = np.isfinite(points).all(1)
    for other in others:
        good &= np.isfinite(other).all(1)
    starts = np.flatnonzero(good & ~np.r_[False, good[:-1]])
    stops = np.flatnonzero(good & ~np.r_[good[1:], False]) + 1
    return [[(float(x), float(y)) for x, y in points[a:b]] for a, b in zip(starts, stops)]


def stroke(draw, points: list[tuple[float, float]], color: str, width: int, dash: tuple[int, ...], unit: int) -> None:
    """A line through the points, dashed along its length."""
    if not dash:
        draw.line(points, color, width, joint="curve")
        return
    corners = np.array(points)
    at = np.r_[0, np.hypot(*np.diff(corners, axis=0).T).cumsum()]
    on, off = (length * unit for length in dash)
    for start in np.arange(0, at[-1], on + off):
        stop = min(start + on, at[-1])
        along = np.r_[start, at[(at > start) & (at < stop)], stop]
        piece = np.stack([np.interp(along, at, corners[:, axis]) for axis in (0, 1)], 1)
        draw.line([tuple(p) for p in piece], color, width, joint="curve")


# ---- text ----


def font(points: float) -> PIL.ImageFont.FreeTypeFont:
    """PIL's own font, so that a figure looks the same on every machine."""
    return PIL.ImageFont.load_default(points)  # type: ignore[return-value]


def plain(text: str) -> str:
    """The text with the letters PIL's own font has: ASCII."""
    for letter, close in {"–": "-", "—": "-", "−": "-", "×": "x", "’": "'", "µ": "u", "ß": "ss"}.items():
        text = text.replace(letter, close)
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return " ".join(text.encode("ascii", "replace").decode().split())


def wrap(text: str, face, width: int, most: int) -> list[str]:
    """The text in at most that many lines of that width; what does not fit ends in three dots."""
    lines: list[str] = []
    for word in plain(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and (len(lines) == most or face.getlength(longer) <= width):
            lines[-1] = longer
        else:
            lines.append(word)
    return [shorten(line, face, width) for line in lines]


def shorten(text: str, face, width: int) -> str:
    if face.getlength(text) <= width:
        return text
    while text and face.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."


def ascent(face) -> int:
    return face.getmetrics()[0]


def block(face, lines: int) -> int:
    """Height of that many lines."""
    return round(sum(face.getmetrics()) * 1.15) * lines


def write(draw: PIL.ImageDraw.ImageDraw, at: tuple[int, int], lines: Sequence[str], face, color: str) -> None:
    """Lines from the top left corner of the first on."""
    for index, line in enumerate(lines):
        draw.text((at[0], at[1] + block(face, index)), line, color, face)
