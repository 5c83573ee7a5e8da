"""Does a map find the evidence? First by scores that depend on the order of its pixels only, which is all that the map
of an explainer means; equal pixels are ranked by seeded noise. Then, for methods whose zero and sign have a meaning, by
the share of the positive mass that lies in a cell of a grid of pictures (`hf_explain.localization.grids`).
"""

from __future__ import annotations

import torch

from ..modeling.errors import ExplainerError
from ..modeling.perturbation import rank_each


def pointing_game(maps: torch.Tensor, masks: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """1 where the most important pixel of a map (B, H, W) is in its mask (B, H, W), else 0: (B,).

    >>> import torch
    >>> pointing_game(torch.eye(4)[None].cumsum(1), torch.ones(1, 4, 4, dtype=torch.bool))
    tensor([1.])
    """
    return ordered(maps, masks, seed)[:, 0]


def average_precision(maps: torch.Tensor, masks: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Mean over the mask's pixels of the share of mask pixels among those ranked as high or higher: (B,).

    1 for a map that ranks the whole mask first; about the mask's share of the picture for a random one.

    >>> import torch
    >>> maps = torch.tensor([[[4.0, 3.0], [2.0, 1.0]]])
    >>> average_precision(maps, torch.tensor([[[True, False], [True, False]]])).round(decimals=3)
    tensor([0.8330])
    """
    hits = ordered(maps, masks, seed)
    precision = hits.cumsum(1) / torch.arange(1, hits.shape[1] + 1)
    return (precision * hits).sum(1) / hits.sum(1)


def class_discrimination(
    one: torch.Tensor, other: torch.Tensor, one_mask: torch.Tensor, other_mask: torch.Tensor, seed: int = 0
) -> torch.Tensor:
    """How well the maps of two classes (B, H, W) tell their evidence apart: (B,), 0.5 by chance, 1 at best.

    The probability that a pixel of the one's evidence is ranked above one of the other's in the one's map, and the
    other way round in the other's map, averaged. A map that shows every object whatever the class scores about 0.5.

    >>> left, right = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    >>> left[..., :2], right[..., 2:] = True, True
    >>> class_discrimination(left.float(), right.float(), left, right).tolist()
    [1.0]
    """
    scores = [above(one, one_mask, other_mask, seed), above(other, other_mask, one_mask, seed)]
    return torch.stack(scores).mean(0)


def above(maps: torch.Tensor, masks: torch.Tensor, others: torch.Tensor, seed: int) -> torch.Tensor:
    """P(a pixel of the mask is ranked above one of the other mask): (B,), as the Mann-Whitney statistic."""
    inside, outside = ordered(maps, masks, seed), ordered(maps, others, seed)
    below = outside.sum(1, keepdim=True) - outside.cumsum(1)  # of the other mask, ranked lower than this position
    return (inside * below).sum(1) / (inside.sum(1) * outside.sum(1))


def ordered(maps: torch.Tensor, masks: torch.Tensor, seed: int) -> torch.Tensor:
    """(B, P) floats: is the pixel at this place of the order in the mask?"""
    if maps.ndim != 3 or maps.shape != masks.shape:
        raise ExplainerError(
            f"maps {tuple(maps.shape)} and masks {tuple(masks.shape)}; give (B, H, W) of one shape each."
        )
    empty = (masks.flatten(1).sum(1) == 0).nonzero().flatten().tolist()
    if empty:
        raise ExplainerError(f"the mask of image {empty[0]} is empty, so nothing in it can be found; leave it out.")
    rank = rank_each(maps.cpu(), seed).flatten(1)
    return torch.zeros(rank.shape).scatter_(1, rank, masks.flatten(1).float().cpu())
