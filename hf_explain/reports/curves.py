"""Deletion beside insertion as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import PIL.Image

from ..modeling.errors import ExplainerError
from .lettering import FAINT, GRID, INK, POINT, blank, block, draw, house_style, measure, wrap, write

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
YARDSTICK = "#858b95"
DASHES = ("-", (0, (4, 2.2)), (0, (1, 1.8)))  # in widths of the line, for when the colors begin again
PANELS = {
    "deletion": ("Deletion", "lower is better", "share of the pixels removed", "probability of the class"),
    "insertion": ("Insertion", "higher is better", "share of the pixels brought back", "probability of the class"),
}
Curves = Mapping[str, Mapping[str, Sequence[float]]]
# CSS pixels
MARGIN, PAD, TICKS, SAMPLE, GAP = 18, 6, 44, 28, 26
LARGE, NORMAL, SMALL = 17, 14, 12


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
    inner = width - 2 * MARGIN
    styles = style(list(curves), yardsticks)
    legend = lay_legend(list(curves), inner)
    title_lines = wrap(title, LARGE, inner, 2)
    top = MARGIN + block(LARGE, len(title_lines)) + (2 * PAD if title_lines else 0)
    top_of_axes = top + block(LARGE, 1) + block(SMALL, 1) + PAD
    top_of_legend = top_of_axes + tall + 2 * block(SMALL, 1) + 3 * PAD
    height = top_of_legend + block(NORMAL, legend[-1][1] + 1) + MARGIN
    with house_style():
        page = blank(width, height)
        write(page, MARGIN, MARGIN, title_lines, LARGE)
        panel = (inner - MARGIN) / 2
        for index, (name, texts) in enumerate(panels.items()):
            left = MARGIN + TICKS + index * (panel + MARGIN)
            axes = draw_axes(page, (left, top_of_axes, panel - TICKS - PAD, tall), texts)
            for label in reversed(list(curves)):  # the first on top
                draw_curve(axes, curves[label], name, styles[label])
        for label, (x, line, text) in zip(curves, legend):
            y = top_of_legend + block(NORMAL, line)
            page.plot([MARGIN + x, MARGIN + x + SAMPLE], [y + 0.65 * NORMAL] * 2, **styles[label])
            write(page, MARGIN + x + SAMPLE + PAD, y, [text], NORMAL)
        return draw(page)


def style(labels: Sequence[str], yardsticks: Sequence[str]) -> dict[str, dict]:
    """What the line of every label looks like: colors first, then the same ones dashed."""
    methods, gray = [one for one in labels if one not in yardsticks], [one for one in labels if one in yardsticks]
    count = len(PALETTE)
    looks = {one: (PALETTE[i % count], DASHES[i // count % len(DASHES)]) for i, one in enumerate(methods)}
    looks |= {one: (YARDSTICK, DASHES[1 + i % 2]) for i, one in enumerate(gray)}
    return {one: {"color": color, "linestyle": dash, "linewidth": 2.2 * POINT} for one, (color, dash) in looks.items()}


def lay_legend(labels: Sequence[str], width: float) -> list[tuple[float, int, str]]:
    """x, line and text of each entry of the legend, from left to right and on as many lines as it takes."""
    entries: list[tuple[float, int, str]] = []
    x, line = 0.0, 0
    for label in labels:
        text = " ".join(wrap(label, NORMAL, width - SAMPLE - PAD, 1))
        long = SAMPLE + PAD + measure(text, NORMAL)
        if x and x + long > width:
            x, line = 0.0, line + 1
        entries.append((x, line, text))
        x += long + GAP
    return entries


def draw_axes(page, place: tuple[float, float, float, float], texts: tuple[str, str, str, str]):
    """The axes of one plot, from 0 to 1 both ways, with what is said above and under them."""
    (left, top, wide, tall), (name, better, along, up) = place, texts
    above = top - PAD - block(SMALL, 1)
    write(page, left, above - block(LARGE, 1), [name], LARGE)
    write(page, left + measure(name + "  ", LARGE), above - block(LARGE, 1) + LARGE - SMALL, [better], SMALL, FAINT)
    write(page, left, above, [up], SMALL, FAINT)
    (_, width), (height, _) = page.get_xlim(), page.get_ylim()
    place = (left / width, 1 - (top + tall) / height, wide / width, tall / height)
    axes = page.figure.add_axes(place, xlim=(0, 1), ylim=(0, 1))
    axes.set_xlabel(along, color=FAINT, fontsize=POINT * SMALL)
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set_xticks(ticks, [f"{tick:.0%}" for tick in ticks])
    axes.set_yticks(ticks)
    axes.tick_params(color=INK, labelcolor=FAINT, labelsize=POINT * SMALL)
    axes.tick_params("y", length=0, pad=POINT * PAD)
    axes.get_xticklabels()[-1].set_ha("right")
    axes.grid(axis="y", color=GRID, linewidth=POINT)
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.spines["bottom"].set(color=INK, linewidth=POINT)
    return axes


def draw_curve(axes, curve: Mapping[str, Sequence[float]], name: str, look: dict) -> None:
    """One method in one plot; gaps where it is not a number."""
    if name not in curve:
        return
    low, high = f"{name}_low", f"{name}_high"
    if low in curve and high in curve:
        axes.fill_between(*points(curve[low]), points(curve[high])[1], color=look["color"], alpha=0.16, linewidth=0)
    x, y = points(curve[name])
    axes.plot(x, y, clip_on=False, **look)
    good = np.isfinite(y)
    alone = good & ~np.r_[False, good[:-1]] & ~np.r_[good[1:], False]
    axes.plot(x[alone], y[alone], "o", color=look["color"], markersize=6 * POINT, clip_on=False)


def points(values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Where the points of a curve are, x and y in [0, 1]."""
    x = np.linspace(0, 1, len(values)) if len(values) > 1 else np.zeros(len(values))
    return x, np.array(values, float).clip(0, 1)
