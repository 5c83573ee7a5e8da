"""Pictures in rows and columns, and what is said above, under and beside them, as one figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import PIL.Image

from .lettering import DENSITY, FAINT, GRID, Page, block, house_style, measure, wrap

BIG, NORMAL, SMALL = 18, 13, 12  # letters, in CSS pixels as all that follows
MARGIN, GAP, PAD = 16, 8, 5
BETWEEN = 12  # lines


@dataclass(frozen=True)
class Line:
    """Pictures side by side, at most as large as a cell; None leaves a gray one that says so.

    Args:
        notes: one under each picture; without any, the next line follows close.
        name, said: at the left, the one large, the other small in lines of its own.
    """

    pictures: Sequence[PIL.Image.Image | None]
    notes: Sequence[str] = ()
    name: str = ""
    said: Sequence[str] = ()


@dataclass(frozen=True)
class Laid:
    """A line with its texts wrapped, and how many CSS pixels its pictures and all of it are high."""

    line: Line
    name: list[str]
    notes: list[list[str]]
    tall: float
    height: float


def mosaic(
    lines: Sequence[Line],
    heads: Sequence[str],
    title: str,
    side: int,
    legend: Sequence[str | PIL.Image.Image] = (),
    names: int = 0,
) -> PIL.Image.Image:
    """The figure, with a column `side` CSS pixels wide per head, right of `names` pixels for the names of the lines."""
    left = [MARGIN + names + column * (side + GAP) for column in range(len(heads))]
    width = left[-1] + side + MARGIN
    titles = wrap(title, BIG, width - 2 * MARGIN, 3)
    columns = [[line for part in head.split("\n") for line in wrap(part, NORMAL, side, 3)] for head in heads]
    top = MARGIN + block(BIG, len(titles)) + (2 * PAD if titles else 0)
    body = top + block(NORMAL, max(map(len, columns))) + PAD
    laid = [lay(line, side, names) for line in lines]
    end = body + sum(one.height for one in laid)
    with house_style():
        page = Page(width, math.ceil(end) + block(SMALL, 1) + MARGIN)
        page.write(MARGIN, MARGIN, titles, BIG)
        for x, text in zip(left, columns):  # stand on one line
            page.write(x, body - PAD - block(NORMAL, len(text)), text, NORMAL)
        y: float = body
        for one in laid:
            draw_line(page, y, one, left, side)
            y += one.height
        x = MARGIN
        for part in legend:
            if isinstance(part, str):
                page.write(x, y, wrap(part, SMALL, width - MARGIN - x, 1), SMALL, FAINT)
                x += round(measure(part, SMALL)) + PAD
            else:
                page.paste(x, y + (block(SMALL, 1) - part.height / DENSITY) / 2, part)
                x += part.width // DENSITY + PAD
        return page.draw()


def lay(line: Line, side: int, names: int) -> Laid:
    name, notes = wrap(line.name, NORMAL, names - GAP, 3), [wrap(note, SMALL, side, 3) for note in line.notes]
    shown = max(picture.height for picture in line.pictures if picture) / DENSITY
    tall = max(shown, block(NORMAL, len(name)) + PAD + block(SMALL, len(line.said)))
    under = PAD + block(SMALL, max(map(len, notes))) + BETWEEN if notes else GAP / 2
    return Laid(line, name, notes, tall, tall + under)


def draw_line(page: Page, y: float, laid: Laid, left: Sequence[int], side: int) -> None:
    page.write(MARGIN, y, laid.name, NORMAL)
    page.write(MARGIN, y + (block(NORMAL, len(laid.name)) + PAD if laid.name else 0), laid.line.said, SMALL, FAINT)
    for x, picture in zip(left, laid.line.pictures):
        page.paste(x, y, picture or PIL.Image.new("RGB", (side * DENSITY, round(laid.tall * DENSITY)), GRID))
        if not picture:
            page.write(x + side / 2, y + (laid.tall - SMALL) / 2, ["none"], SMALL, FAINT, ha="center")
    for x, note in zip(left, laid.notes):
        page.write(x, y + laid.tall + PAD, note, SMALL, FAINT)
