"""How alike two lists of numbers are, row by row: what the correlation metrics compare with."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..modeling.errors import ExplainerError


def pearson(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Correlation of rows (B, K): (B,).

    >>> pearson(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[-1.0, -2.0, -4.0]])).round(decimals=4)
    tensor([-1.])
    """
    still = (a == a[:, :1]).all(1) | (b == b[:, :1]).all(1)
    a, b = (v.double() - v.double().mean(1, keepdim=True) for v in (a, b))
    found = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    return torch.where(still, torch.nan, found.clamp(-1, 1)).float()


def spearman(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Correlation of the ranks in rows (B, K), equal numbers sharing their mean rank: (B,).

    >>> spearman(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 8.0, 27.0]])).round(decimals=3).tolist()
    [1.0]
    """
    return pearson(mean_rank(a), mean_rank(b))


def mean_rank(values: torch.Tensor) -> torch.Tensor:
    ordered, values = values.sort(1).values, values.contiguous()
    return (torch.searchsorted(ordered, values) + torch.searchsorted(ordered, values, right=True)) / 2


def ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Structural similarity of rows (B, K), with windows of 7 along the row, as Quantus compares flattened maps: (B,).

    Each row is divided by its largest absolute value first.

    >>> x = torch.rand(1, 16)
    >>> ssim(x, x).round(decimals=3).tolist()
    [1.0]
    """
    a, b = (v.double() / v.double().abs().amax(1, keepdim=True).clamp(min=1e-30) for v in (a, b))
    both = torch.cat([a, b], 1)
    extent = both.amax(1, keepdim=True) - both.amin(1, keepdim=True)
    c1, c2 = (0.01 * extent) ** 2, (0.03 * extent) ** 2
    one, other = a.unfold(1, 7, 1), b.unfold(1, 7, 1)  # (B, K - 6, 7)
    mean_a, mean_b = one.mean(2), other.mean(2)
    variances = one.var(2) + other.var(2)
    covariance = ((one - mean_a[..., None]) * (other - mean_b[..., None])).sum(2) / 6
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (top / ((mean_a**2 + mean_b**2 + c1) * (variances + c2))).mean(1).float()


SIMILARITIES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "pearson": pearson,
    "spearman": spearman,
    "ssim": ssim,
}


def find_similarity(name: str):
    if name not in SIMILARITIES:
        raise ExplainerError(f"unknown similarity {name!r}; choose from {', '.join(SIMILARITIES)}.")
    return SIMILARITIES[name]
