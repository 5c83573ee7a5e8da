"""What a map looks like: its colors, on the picture, or the picture with nothing but what matters most."""

from __future__ import annotations

import numpy as np
import PIL.Image
import torch

from ..modeling.errors import ExplainerError
from ..modeling.heatmaps import COLORS, color
from ..modeling.perturbation import rank_each

# Anchors, evenly spaced. The sequential maps rise evenly in lightness; the diverging one falls from its middle to both
# ends alike. "ember" is the one of the pipeline's heatmaps.
COLOR_MAPS: dict[str, np.ndarray] = {
    "ember": COLORS,
    "viridis": np.array(
        [(68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141), (39, 173, 129), (92, 200, 99),
         (170, 220, 50), (253, 231, 37)], np.float32,
    ),
    "gray": np.array([(0, 0, 0), (255, 255, 255)], np.float32),
    "blue-red": np.array(
        [(33, 102, 172), (103, 159, 205), (171, 205, 227), (245, 245, 245), (244, 190, 168), (224, 120, 97),
         (178, 24, 43)], np.float32,
    ),
}  # fmt: skip
DIVERGING = ("blue-red",)
AUTOMATIC = "automatic"  # diverging for a map whose zero means something, else ember
REMOVED = 0.12  # how much of a pixel's gray is left where it was removed


def choose_colors(name: str, signed: bool) -> str:
    """A key of `COLOR_MAPS`."""
    if name == AUTOMATIC:
        return "blue-red" if signed else "ember"
    if name not in COLOR_MAPS:
        raise ExplainerError(f"unknown colors {name!r:.40}; choose from {AUTOMATIC}, {', '.join(COLOR_MAPS)}.")
    return name


def scale(attribution: np.ndarray, diverging: bool) -> np.ndarray:
    """Values in [0, 1], NaN as they were: from the 1st to the 99th percentile; diverging, with zero at one half.

    >>> scale(np.array([[-2.0, 0.0], [1.0, 2.0]]), diverging=True).round(2).tolist()
    [[0.0, 0.5], [0.75, 1.0]]
    """
    seen = attribution[np.isfinite(attribution)]
    if not len(seen):
        return np.full(attribution.shape, np.nan)
    low, high = np.percentile(seen, (1, 99))
    if diverging:
        high = max(abs(low), abs(high)) or np.abs(seen).max()
        low = -high
    elif low == high:
        low, high = seen.min(), seen.max()
    if low == high:
        return np.where(np.isfinite(attribution), 0.5 if diverging else 0.0, np.nan)
    return ((attribution - low) / (high - low)).clip(0, 1)


def paint(
    picture: PIL.Image.Image, attribution: np.ndarray, colors: str = AUTOMATIC, opacity: float = 0.6, *,
    signed: bool = False,
) -> PIL.Image.Image:  # fmt: skip
    """The picture in gray under its map (H, W); where the model never looked it keeps its own colors."""
    name = choose_colors(colors, signed)
    values = scale(attribution, name in DIVERGING)
    gray = np.asarray(picture.convert("L"), np.float32)[..., None]
    blended = (1 - opacity) * gray + opacity * color(np.nan_to_num(values), COLOR_MAPS[name])
    seen = np.isfinite(attribution)[..., None]
    return to_image(np.where(seen, blended, np.asarray(picture)))


def keep(picture: PIL.Image.Image, mask: np.ndarray) -> PIL.Image.Image:
    """The picture where `mask` (H, W) is set, and a dark shade of it elsewhere."""
    gray = np.asarray(picture.convert("L"), np.float32)[..., None]
    return to_image(np.where(mask[..., None], np.asarray(picture), REMOVED * gray))


def top_share(attribution: np.ndarray, share: float) -> np.ndarray:
    """The top `share` of the pixels that the model saw, (H, W) bool; equal ones are ordered at random, by seed 0."""
    seen = np.isfinite(attribution)
    rank = rank_each(torch.as_tensor(attribution)[None], 0)[0].numpy()
    return (rank < round(share * seen.sum())) & seen


def to_image(values: np.ndarray) -> PIL.Image.Image:
    return PIL.Image.fromarray((values + 0.5).clip(0, 255).astype(np.uint8))
