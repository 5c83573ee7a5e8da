"""Post-smoothing of maps: gradients are noisy, and a fair comparison smooths them."""

from __future__ import annotations

import torch

from ..modeling.errors import ExplainerError
from ..modeling.references import blur_with


def box(maps: torch.Tensor, size: int) -> torch.Tensor:
    """Mean over a size x size window, reflected borders: (B, H, W) -> (B, H, W).

    >>> box(torch.ones(2, 8, 8), 3).shape
    torch.Size([2, 8, 8])
    """
    check(maps, size)
    return blur_with(maps[:, None], torch.ones(size))[:, 0]


def gaussian(maps: torch.Tensor, size: int) -> torch.Tensor:
    """A size x size Gaussian with sigma = size / 4, reflected borders: (B, H, W) -> (B, H, W).

    >>> gaussian(torch.ones(2, 8, 8), 5).shape
    torch.Size([2, 8, 8])
    """
    check(maps, size)
    at = torch.arange(size) - size // 2
    return blur_with(maps[:, None], torch.exp(-0.5 * (at / (size / 4)) ** 2))[:, 0]


def check(maps: torch.Tensor, size: int) -> None:
    if maps.ndim != 3:
        raise ExplainerError(f"maps of shape {tuple(maps.shape)}; give (B, H, W).")
    if size < 1 or size % 2 == 0 or size // 2 >= min(maps.shape[1:]):
        raise ExplainerError(
            f"size={size} for maps of {maps.shape[1]} x {maps.shape[2]}; give an odd size below twice that."
        )
