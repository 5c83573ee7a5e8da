"""What all figures share: a page of matplotlib measured in CSS pixels, its colors, and text that fits."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import PIL.Image

DENSITY = 2  # figures are sized in CSS pixels and drawn so many times as large: sharp on every screen and on paper
POINT = 0.75  # of a CSS pixel; matplotlib measures letters and lines in points
PAPER, INK, FAINT, GRID = "#ffffff", "#1b1d22", "#5b616b", "#e3e5e9"
FONT = "DejaVu Sans"  # comes with matplotlib, so that a figure looks the same on every machine


def house_style() -> AbstractContextManager[None]:
    """matplotlib as it comes, whatever the user has set; and $ is a letter."""
    import matplotlib.style

    return matplotlib.style.context({"font.family": FONT, "text.parse_math": False}, after_reset=True)


def blank(width: float, height: float):
    """Axes as large as the figure, whose places are CSS pixels from the top left corner."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width / 96, height / 96), 96 * DENSITY, facecolor=PAPER)
    FigureCanvasAgg(figure)
    page = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    page.set_axis_off()
    return page


def write(page, x: float, y: float, lines: Sequence[str], size: float, color: str = INK, **more) -> None:
    """Lines from the top left corner of the first on."""
    for index, line in enumerate(lines):
        page.text(x, y + block(size, index) + size, line, fontsize=POINT * size, color=color, **more)


def paste(page, x: float, y: float, picture: PIL.Image.Image) -> None:
    """A picture, pixel by pixel."""
    across, down = picture.width / DENSITY, picture.height / DENSITY
    page.imshow(picture, extent=(x, x + across, y + down, y), interpolation="nearest", aspect="auto")


def draw(page) -> PIL.Image.Image:
    canvas = page.figure.canvas
    canvas.draw()
    return PIL.Image.fromarray(np.array(canvas.buffer_rgba())[..., :3])


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
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont(FONT)).get_charmap()
    return "".join(c if ord(c) in known else "?" for c in " ".join(unicodedata.normalize("NFC", text).split()))


def measure(text: str, size: float) -> float:
    """Width in CSS pixels."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    face = FontProperties(family=FONT, size=POINT * size)
    return RendererAgg(1, 1, 96 * DENSITY).get_text_width_height_descent(text, face, False)[0] / DENSITY


def block(size: float, lines: int) -> int:
    """Height of that many lines."""
    return round(1.35 * size) * lines
