"""A map laid over the picture, in colors."""

from __future__ import annotations

import math

import numpy as np
import PIL.Image
import torch

from .views import View

# Anchors of a perceptually uniform color map from black over purple and orange to pale yellow.
DARK = [(0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85)]
BRIGHT = [(227, 89, 51), (249, 140, 10), (249, 201, 50), (252, 255, 164)]
COLORS = np.array(DARK + BRIGHT, dtype=np.float32)


# ---- the map on the picture ----


def fill_box(part: np.ndarray, view: View) -> PIL.Image.Image:
    """Values of `view.cells`, (h, w) float32 or (h, w, 3) uint8, as they lie in `view.box`: bilinear, antialiased."""
    (left, top, right, bottom), (x, y, x_end, y_end) = view.box, view.frame
    across, down = part.shape[1] / (x_end - x), part.shape[0] / (y_end - y)  # cells per pixel
    source = np.array([(left - x) * across, (top - y) * down, (right - x) * across, (bottom - y) * down])
    # The box may be up to half a pixel wider than the frame: there the outermost cells go on.
    beyond = math.ceil(max(0.0, *-source[:2], source[2] - part.shape[1], source[3] - part.shape[0]) - 1e-9)
    if beyond:
        part = np.pad(part, [(beyond, beyond)] * 2 + [(0, 0)] * (part.ndim - 2), mode="edge")
    limit = np.array([part.shape[1], part.shape[0]] * 2)
    source = (source + beyond).clip(0, limit)
    image = PIL.Image.fromarray(part)
    return image.resize((right - left, bottom - top), PIL.Image.Resampling.BILINEAR, box=tuple(source))


def paste(attribution: torch.Tensor, view: View, height: int, width: int) -> np.ndarray:
    """A map of the model's input (H, W) on the picture: float32 (height, width), NaN where the model never looked."""
    left, top, right, bottom = view.box
    x0, y0, x1, y1 = view.cells
    seen = np.array(fill_box(attribution[y0:y1, x0:x1].float().numpy(), view))
    if seen.shape == (height, width):
        return seen
    canvas = np.full((height, width), np.nan, np.float32)
    canvas[top:bottom, left:right] = seen
    return canvas


def overlay(
    picture: PIL.Image.Image,
    attribution: torch.Tensor,
    view: View | None = None,
    opacity: float = 0.5,
    signed: bool = False,
) -> PIL.Image.Image:
    """The picture under its map: bright where it matters. Without a view, `picture` is what the model saw.

    `signed` says that zero means "no matter" and negative "against": both are dark then. Else only the order counts.
    """
    if view is None:
        size = (0, 0, *picture.size)
        view = View(size, size, size)
    x0, y0, x1, y1 = view.cells
    colored = fill_box(colorize(attribution[y0:y1, x0:x1].float().numpy(), signed), view)
    whole = colored.size == picture.size
    gray = (picture if whole else picture.crop(view.box)).convert("L").convert("RGB")
    blended = PIL.Image.blend(gray, colored, opacity)
    if whole:
        return blended
    result = picture.copy()
    result.paste(blended, view.box[:2])
    return result


def colorize(values: np.ndarray, signed: bool = False) -> np.ndarray:
    """Colors (h, w, 3) of a map, from its 1st percentile (if signed, from zero) to its 99th; a constant is dark."""
    low, high = np.percentile(values, (1, 99))
    low = 0.0 if signed else low
    if high <= low:  # a few pixels stand out of a constant
        low, high = (0.0 if signed else values.min()), values.max()
    scaled = ((values - low) / (high - low)).clip(0, 1) if high > low else np.zeros_like(values)
    return color(scaled, COLORS).round().astype(np.uint8)


def color(values: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Colors (h, w, 3), float, of values in [0, 1]: between anchors that are evenly spaced."""
    at = values * (len(anchors) - 1)
    below = at.astype(int).clip(0, len(anchors) - 2)
    share = (at - below)[..., None]
    return anchors[below] * (1 - share) + anchors[below + 1] * share
