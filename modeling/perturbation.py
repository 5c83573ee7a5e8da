"""The only place a picture is altered: from a map to ranks, from ranks to a mask, from a mask to a picture.

Tensors only, all of them `pixel_values`, what a classifier's own image processor returns. Blending towards a reference
commutes with the normalization, so a picture never has to be un-normalized on the way.
"""

from __future__ import annotations

import torch

from .pixel_space import floating
from .references import blur_with, read_reference, reference_image  # noqa: F401 (their place before 0.1)


def rank_pixels(attributions: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Position of each pixel in the order of falling importance, 0 = most important: (B, H, W) -> int64 (B, H, W).

    Ties keep reading order; with a generator they are broken at random. NaN, where a model never looked, comes last.

    >>> import torch
    >>> rank_pixels(torch.tensor([[[0.1, 0.9], [0.5, 0.5]]])).tolist()
    [[[3, 0], [1, 2]]]
    """
    flat = attributions.flatten(1).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)  # (B, P)
    start = torch.arange(flat.shape[1], device=flat.device).expand_as(flat)
    if generator is not None:
        start = torch.rand(flat.shape, generator=generator, device=generator.device).to(flat.device).argsort(1)
    order = flat.gather(1, start).argsort(dim=1, descending=True, stable=True)
    order = start.gather(1, order)
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(flat.shape[1], device=flat.device).expand_as(order))
    return rank.view_as(attributions)


def order_each(values: torch.Tensor, seed: int) -> torch.Tensor:
    """Indices of the values (B, N) from the largest to the smallest: (B, N).

    Equal ones are ordered by the seed, the same for a picture whatever the others are; NaN come last.
    """
    values = values.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    start = torch.rand(values.shape[1], generator=torch.Generator().manual_seed(seed)).argsort().to(values.device)
    return start[values[:, start].argsort(dim=1, descending=True, stable=True)]


def rank_each(attributions: torch.Tensor, seed: int) -> torch.Tensor:
    """`rank_pixels` with ties broken by the seed, the same for a picture whatever the others are.

    >>> import torch
    >>> one, other = rank_each(torch.zeros(2, 4, 4), seed=0)
    >>> bool((one == other).all())
    True
    """
    order = order_each(attributions.flatten(1), seed)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view_as(attributions)


def top_mask(rank: torch.Tensor, share: float) -> torch.Tensor:
    """Where the top `share` of the pixels is: exactly round(share * P) of them, (B, H, W) bool.

    >>> import torch
    >>> top_mask(torch.arange(16).view(1, 4, 4), 0.25).sum().item()
    4
    """
    return rank < round(share * rank[0].numel())


def blend(pixel_values: torch.Tensor, mask: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """`pixel_values` (B, 3, H, W) with `reference` where `mask` (B, H, W), bool or in [0, 1], is set.

    >>> mask = torch.tensor([[[True, False]]])
    >>> blend(torch.ones(1, 3, 1, 2), mask, torch.zeros(1, 3, 1, 2))[0, 0].tolist()
    [[0.0, 1.0]]
    """
    mask, pixel_values, reference = mask[:, None], floating(pixel_values), floating(reference)
    if mask.dtype == torch.bool:
        return torch.where(mask, reference, pixel_values)
    return torch.lerp(pixel_values, reference.to(pixel_values), mask.to(pixel_values))
