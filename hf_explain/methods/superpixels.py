"""Regions of a picture to switch on and off: cells of a grid, or superpixels (SLIC, TPAMI 2012)."""

from __future__ import annotations

import torch

from ..modeling.errors import ExplainerError
from ..modeling.pixel_space import PixelSpace


def read_regions(regions, pixel_values: torch.Tensor, space: PixelSpace | None) -> torch.Tensor:
    """Number of the region each pixel is in, (B, H, W) from 0 up.

    Args:
        regions: cells per side of a grid; "superpixels" for about 64 of them; or the numbers themselves, (H, W) or
            (B, H, W).
    """
    batch, _, height, width = pixel_values.shape
    if isinstance(regions, torch.Tensor):
        given = regions.to(pixel_values.device).long()
        if tuple(given.shape[-2:]) != (height, width) or given.ndim not in (2, 3) or int(given.min()) < 0:
            raise ExplainerError(
                f"regions of shape {tuple(given.shape)} for {height} x {width} pictures; give a number from 0 up for "
                "each pixel."
            )
        return given.expand(batch, -1, -1)
    if regions == "superpixels":
        if space is None:
            raise ExplainerError(
                "superpixels are found by color, but how this classifier's image processor writes colors is unknown; "
                "give regions=8, or Classifier(model, image_processor)."
            )
        return torch.stack([superpixels(one) for one in space.to_rgb(pixel_values.float())])
    if isinstance(regions, bool) or not isinstance(regions, int) or not 1 <= regions <= min(height, width):
        raise ExplainerError(
            f"regions={regions!r}; give cells per side, from 1 to {min(height, width)}, 'superpixels', or a tensor."
        )
    rows, columns = (torch.arange(length, device=pixel_values.device) * regions // length for length in (height, width))
    return (rows[:, None] * regions + columns).expand(batch, -1, -1)


def superpixels(rgb: torch.Tensor, count: int = 64, compactness: float = 0.25, rounds: int = 10) -> torch.Tensor:
    """About `count` superpixels of an RGB picture (3, H, W) in [0, 1], numbered without gaps: (H, W).

    k-means over color and place, from a regular grid; a pixel may be far from its region's other pixels, as no step
    enforces that they touch.
    """
    _, height, width = rgb.shape
    side = max(1, round((height * width / count) ** 0.5))
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([y, x]).to(rgb) / side
    points = torch.cat([rgb, compactness * place]).flatten(1).T  # (P, 5)
    rows, columns = (torch.arange(side // 2, length, side) for length in (height, width))
    chosen = (rows[:, None] * width + columns).flatten()
    centers = points[chosen.to(points.device)]
    for _ in range(rounds):
        nearest = torch.cdist(points, centers).argmin(1)
        sums = torch.zeros_like(centers).index_add_(0, nearest, points)
        counts = torch.bincount(nearest, minlength=len(centers)).clamp(min=1)
        centers = sums / counts[:, None]
    return torch.unique(nearest, return_inverse=True)[1].view(height, width)
