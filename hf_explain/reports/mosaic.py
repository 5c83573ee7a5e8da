"""Pictures in rows and columns, and what is said above, under and beside them, as one figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import PIL.Image

from .lettering import DENSITY, FAINT, GRID, blank, block, draw, house_style, measure, paste, wrap, write

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


def mosaic(
    lines: Sequence[Line],
    heads: Sequence[str],
    title: str,
    side: int,
    legend: str | Sequence = (),
    names: int = 0,
    most: int = 3,
) -> PIL.Image.Image:
    """The figure, with a column `side` CSS pixels wide per head, right of `names` pixels for the names of the lines.

    Args:
        legend: a text under all lines, or texts and pictures from left to right.
        most: lines of the title, and of such a text.
    """
    left = [MARGIN + names + column * (side + GAP) for column in range(len(heads))]
    width = left[-1] + side + MARGIN
    titles = wrap(title, BIG, width - 2 * MARGIN, most)
    columns = [[line for part in head.split("\n") for line in wrap(part, NORMAL, side, 3)] for head in heads]
    beside = [wrap(line.name, NORMAL, names - GAP, 3) for line in lines]
    notes = [[wrap(note, SMALL, side, 3) for note in line.notes] for line in lines]
    tall = [max(picture.height for picture in line.pictures if picture) / DENSITY for line in lines]
    under = [PAD + block(SMALL, max(map(len, some))) + BETWEEN if some else GAP / 2 for some in notes]
    foot = wrap(legend, SMALL, width - 2 * MARGIN, most) if isinstance(legend, str) else []
    top = MARGIN + block(BIG, len(titles)) + (2 * PAD if titles else 0)
    body = top + block(NORMAL, max(map(len, columns))) + PAD
    with house_style():
        page = blank(width, math.ceil(body + sum(tall) + sum(under)) + block(SMALL, max(1, len(foot))) + MARGIN)
        write(page, MARGIN, MARGIN, titles, BIG)
        for x, text in zip(left, columns):  # stand on one line
            write(page, x, body - PAD - block(NORMAL, len(text)), text, NORMAL)
        y: float = body
        for line, name, texts, high, below in zip(lines, beside, notes, tall, under):
            write(page, MARGIN, y, name, NORMAL)
            write(page, MARGIN, y + (block(NORMAL, len(name)) + PAD if name else 0), line.said, SMALL, FAINT)
            for x, picture in zip(left, line.pictures):
                paste(page, x, y, picture or PIL.Image.new("RGB", (side * DENSITY, round(high * DENSITY)), GRID))
                if not picture:
                    write(page, x + side / 2, y + (high - SMALL) / 2, ["none"], SMALL, FAINT, ha="center")
            for x, text in zip(left, texts):
                write(page, x, y + high + PAD, text, SMALL, FAINT)
            y += high + below
        write(page, MARGIN, y, foot, SMALL, FAINT)
        x = MARGIN
        for part in () if foot else legend:
            if isinstance(part, str):
                write(page, x, y, wrap(part, SMALL, width - MARGIN - x, 1), SMALL, FAINT)
                x += round(measure(part, SMALL)) + PAD
            else:
                paste(page, x, y + (block(SMALL, 1) - part.height / DENSITY) // 2, part)
                x += part.width // DENSITY + PAD
        return draw(page)
