"""Where in a picture its image processor looks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch

from .errors import ExplainerError
from .pixel_space import PixelSpace

LEAN = 1 / 16


@dataclass(frozen=True)
class View:
    """What of a picture the processor shows the model. All are (left, top, right, bottom).

    Args:
        box: the pixels of the picture that are seen, those whose center is.
        cells: the part of the model's input that shows them; the rest is padding.
        frame: where exactly in the picture `cells` begins and ends, in pixels.
    """

    box: tuple[int, int, int, int]
    cells: tuple[int, int, int, int]
    frame: tuple[float, float, float, float]


# ---- where the processor looks ----


def find_view(image_processor, space: PixelSpace, height: int, width: int, size=None) -> View:
    """Where any processor that resizes, crops and pads looks, found by showing it ramps and reading what came out.

    `size` is (H, W) of the model's input for this picture, where known. If a ramp of another size than the picture's
    gives another one, this processor goes by more than the aspect ratio.
    """
    name, resizes = type(image_processor).__name__, bool(getattr(image_processor, "do_resize", True))
    shape = handy_shape(height, width) if resizes else (height, width)
    ramps, inside = show_ramps(image_processor, space, shape)
    if size is not None and inside.shape != tuple(size) and shape != (height, width):
        shape = (height, width)
        ramps, inside = show_ramps(image_processor, space, shape)
    columns, rows = np.flatnonzero(inside.any(0)), np.flatnonzero(inside.any(1))
    if not len(columns):
        raise ExplainerError(f"{name} shows nothing of a {width} x {height} picture; give another one.")
    cells = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    area = (slice(cells[1], cells[3]), slice(cells[0], cells[2]))
    across, down = ramps[0][area], ramps[1][area]
    horizontal, vertical = edges(across.mean(0), shape[1], resizes), edges(down.mean(1), shape[0], resizes)
    straight = max(np.ptp(across, axis=0).max(), np.ptp(down, axis=1).max()) < 0.02
    expected = size is None or inside.shape == tuple(size)
    if horizontal is None or vertical is None or not (straight and expected and inside[area].all()):
        raise ExplainerError(
            f"{name} does more than resize, crop and pad, so a map cannot be brought back to the picture; ask for "
            'output_size="model".'
        )
    (left, right), (top, bottom) = horizontal, vertical
    frame = (left * width, top * height, right * width, bottom * height)
    (x0, x1), (y0, y1) = whole_pixels(frame[0], frame[2], width), whole_pixels(frame[1], frame[3], height)
    return View((x0, y0, x1, y1), cells, frame)


def handy_shape(height: int, width: int) -> tuple[int, int]:
    """(height, width), or for large and tiny pictures that of one of (nearly) the same aspect ratio."""
    short, ratio = min(height, width), max(height, width) / min(height, width)
    if short >= 32 and short * ratio <= 1024:
        return height, width
    least = max(16, min(256, round(4096 / ratio)))
    short = min(range(least, least + 65), key=lambda s: (abs(s * ratio - round(s * ratio)) / s, s))
    return (round(short * ratio), short) if height > width else (short, round(short * ratio))


def show_ramps(image_processor, space: PixelSpace, shape) -> tuple[np.ndarray, np.ndarray]:
    """What the model sees of two ramps, from 0 to 1 to the right and downwards, (2, H, W), and where it sees any."""
    across, down = ((np.arange(length) + 0.5) / length for length in shape[::-1])
    across, down = np.broadcast_arrays(across[None], down[:, None])
    # Each ramp leans a little, so that the rounding to gray levels differs from row to row and averages out.
    red, green = (1 - LEAN) * across + LEAN * down, LEAN * across + (1 - LEAN) * down
    picture = (255 * np.dstack([red, green, np.zeros(shape)])).round().astype(np.uint8)
    one, negative = (
        space.to_rgb(torch.as_tensor(image_processor(images=image, return_tensors="pt")["pixel_values"])[0].double())
        for image in (PIL.Image.fromarray(picture), PIL.Image.fromarray(255 - picture))
    )
    red, green, _ = ((one + 1 - negative) / 2).numpy()
    ramps = np.stack([(1 - LEAN) * red - LEAN * green, (1 - LEAN) * green - LEAN * red]) / (1 - 2 * LEAN)
    return ramps, (negative[2] - one[2] > 0.5).numpy()  # padding has no negative


def edges(profile: np.ndarray, size: int, resizes: bool) -> tuple[float, float] | None:
    """Which shares of the picture the first cell of a ramp begins and the last one ends at; None if it is no ramp."""
    margin = 1 / 255 + 2 / size  # beyond it interpolation flattens the ramp
    good = (profile > margin) & (profile < 1 - margin)
    if good.sum() < 4:
        good = np.ones(len(profile), bool)
    x, y = np.flatnonzero(good) + 0.5, profile[good]
    if len(x) == 1:  # all of the picture in one cell, or one pixel of it
        slope = 1.0 if resizes else 1 / size
        start = y[0] - slope * x[0]
    else:
        slope, start = np.polyfit(x, y, 1)
        if slope <= 0 or np.abs(slope * x + start - y).max() > 2 / 255 + 2 * slope:
            return None
    first, last = start, start + slope * len(profile)
    return (0.0 if first < slope / 2 else float(first)), (1.0 if last > 1 - slope / 2 else float(last))


def whole_pixels(first: float, last: float, size: int) -> tuple[int, int]:
    """The pixels whose center lies between `first` and `last`; the one that holds the middle if there is none."""
    start, stop = math.ceil(first - 0.5), math.ceil(last - 0.5)
    if start < stop:
        return start, stop
    middle = min(int((first + last) / 2), size - 1)
    return middle, middle + 1
