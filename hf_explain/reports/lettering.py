"""The style all figures share: colors, density, and text in PIL's own font."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

DENSITY = 2  # figures are sized in CSS pixels and drawn so many times as large: sharp on every screen and on paper
PAPER, INK, FAINT, GRID = "#ffffff", "#1b1d22", "#5b616b", "#e3e5e9"


def save(image: PIL.Image.Image, path) -> Path:
    """Where the figure was written, as a PNG or a .jpg that prints at its CSS size; folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "JPEG" if path.suffix == ".jpg" else "PNG", dpi=(96 * DENSITY, 96 * DENSITY), quality=85)
    return path


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
