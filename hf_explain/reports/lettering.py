"""What all figures share: a page measured in CSS pixels and drawn by matplotlib, its colors, and text that fits."""

from __future__ import annotations

import functools
import textwrap
import unicodedata
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import PIL.Image

DENSITY = 2  # figures are sized in CSS pixels and drawn so many times as large: sharp on every screen and on paper
PAPER, INK, FAINT, GRID = "#ffffff", "#1b1d22", "#5b616b", "#e3e5e9"
FONT = "DejaVu Sans"  # comes with matplotlib, so that a figure looks the same on every machine
POINT = 0.75  # of a CSS pixel; matplotlib measures letters and lines in points


def house_style(**settings) -> AbstractContextManager[None]:
    """matplotlib as it comes, whatever the user has set, with these settings ("_" for "."); $ is a letter."""
    import matplotlib.style

    named = {key.replace("_", "."): value for key, value in settings.items()}
    return matplotlib.style.context({"font.family": FONT, "text.parse_math": False, **named}, after_reset=True)


class Page:
    """A figure whose places are CSS pixels from its top left corner."""

    def __init__(self, width: float, height: float):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure = Figure((width / 96, height / 96), 96 * DENSITY, facecolor=PAPER)
        self.canvas = FigureCanvasAgg(self.figure)

    def box(self, x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
        """The place as matplotlib has it: shares of the page from the lower left corner."""
        return x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height

    def write(self, x: float, y: float, lines: Sequence[str], size: float, color: str = INK, **more) -> None:
        """Lines from the top left corner of the first on."""
        for index, line in enumerate(lines):
            baseline = y + block(size, index) + size
            self.figure.text(*self.box(x, baseline, 0, 0)[:2], line, fontsize=POINT * size, color=color, **more)

    def line(self, x: float, y: float, long: float, look: dict) -> None:
        from matplotlib.lines import Line2D

        (left, middle, share, _) = self.box(x, y, long, 0)
        self.figure.add_artist(Line2D([left, left + share], [middle, middle], **look))

    def paste(self, x: float, y: float, picture: PIL.Image.Image) -> None:
        """A picture, pixel by pixel."""
        bottom = self.height * DENSITY - round(y * DENSITY) - picture.height
        self.figure.figimage(np.asarray(picture.convert("RGB")), round(x * DENSITY), bottom)

    def draw(self) -> PIL.Image.Image:
        self.canvas.draw()
        return PIL.Image.fromarray(np.array(self.canvas.buffer_rgba())[..., :3])


def save(image: PIL.Image.Image, path) -> Path:
    """Where the figure was written, as a PNG or a .jpg that prints at its CSS size; folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "JPEG" if path.suffix == ".jpg" else "PNG", dpi=(96 * DENSITY, 96 * DENSITY), quality=85)
    return path


# ---- text ----


def wrap(text: str, size: float, width: float, most: int) -> list[str]:
    """The text in at most that many lines of that width; what does not fit ends in three dots."""
    text = plain(text)
    narrow = int(4 * width / size)  # no letter is narrower than a quarter of its height
    for letters in range(max(3, min(len(text), narrow)), 2, -1):
        lines = textwrap.wrap(text, letters, max_lines=most, placeholder="...")
        if all(measure(line, size) <= width for line in lines):
            return lines
    return []


def plain(text: str) -> str:
    """The text with a question mark for each letter that the font does not have."""
    known = letters_of_font()
    return "".join(c if ord(c) in known else "?" for c in " ".join(unicodedata.normalize("NFC", text).split()))


@functools.cache
def letters_of_font() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont(FONT)).get_charmap())


def measure(text: str, size: float) -> float:
    """Width in CSS pixels."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    face = FontProperties(family=FONT, size=POINT * size)
    return RendererAgg(1, 1, 96 * DENSITY).get_text_width_height_descent(text, face, False)[0] / DENSITY


def block(size: float, lines: int) -> int:
    """Height of that many lines."""
    return round(1.35 * size) * lines
