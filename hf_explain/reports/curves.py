"""Deletion beside insertion as a figure, with PIL and numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw

from ..modeling.errors import ExplainerError
from .lettering import DENSITY, FAINT, GRID, INK, PAPER, ascent, block, font, plain, shorten, wrap, write

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
YARDSTICK = "#858b95"
DASHES = ((), (9, 5), (2, 4))  # on and off, for when the colors begin again
PANELS = {
    "deletion": ("Deletion", "lower is better", "share of the pixels removed", "probability of the class"),
    "insertion": ("Insertion", "higher is better", "share of the pixels brought back", "probability of the class"),
}
Curves = Mapping[str, Mapping[str, Sequence[float]]]


def draw_curves(
    curves: Curves, yardsticks: Sequence[str] = (), title: str = "", width: int = 960, tall: int = 270, panels=PANELS
) -> PIL.Image.Image:
    """A figure of deletion beside insertion: a mean curve per method with its interval shaded.

    >>> draw_curves({"random": {"deletion": [1, 0.5, 0], "insertion": [0, 0.5, 1]}}).size[0]
    1920

    Args:
        curves: per label "deletion" and "insertion", evenly spaced from no pixel to all of them, and the ends of their
            intervals as "deletion_low", "deletion_high", ... where known.
        yardsticks: labels that are not methods (a random map, the exact mask): drawn gray and dashed.
        width: of the figure, and `tall` the height of its axes, in CSS pixels.
        panels: other curves than these two: key -> (name, which is better, along x, along y).
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
    for index, name in enumerate(panels):
        left = margin + index * (panel + margin)
        area = (left + ticks, top + head, left + panel - pad, top + head + tall * unit)
        draw_axes(draw, area, panels[name], large, small, unit)
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


def draw_axes(draw: PIL.ImageDraw.ImageDraw, area, texts: tuple[str, str, str, str], large, small, unit: int) -> None:
    left, top, right, bottom = area
    name, better, along, up = texts
    pad, line = 6 * unit, block(small, 1)
    head = top - pad - line - block(large, 1)
    write(draw, (left, head), [name], large, INK)
    draw.text((left + large.getlength(name + "  "), head + ascent(large)), better, FAINT, small, anchor="ls")
    write(draw, (left, top - pad - line), [up], small, FAINT)
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
