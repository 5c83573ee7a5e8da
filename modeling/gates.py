"""Gates that are open or closed, mostly, and can be learned: the stretched binary concrete of Vision DiffMask.

Tensors in, tensors out. A gate with location `a` is z = clip(s (r - l) + l, 0, 1) with s = sigmoid((logit(u) + a) / T)
and u uniform: exactly 0 with a probability that is known, never exactly 1 in between.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

TEMPERATURE, LEFT, RIGHT = 0.2, -0.2, 1.0  # the right end is not stretched
SHIFT = TEMPERATURE * math.log(-LEFT / RIGHT)  # of the location at which half of the gates are open


def log_open(location: torch.Tensor) -> torch.Tensor:
    """log P(z > 0) of gates.

    >>> log_open(torch.tensor([0.0, 8.0])).exp().round(decimals=3)
    tensor([0.5800, 1.0000])
    """
    return -F.softplus(SHIFT - location)


def sample_gates(location: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Values z from 0 to 1, differentiable in `location`; `uniform` is from (0, 1), in its shape."""
    uniform = uniform.clamp(1e-6, 1 - 1e-6)
    soft = torch.sigmoid((torch.log(uniform) - torch.log1p(-uniform) + location) / TEMPERATURE)
    return (soft * (RIGHT - LEFT) + LEFT).clamp(0, 1)


class WeightNormLinear(nn.Module):
    """A linear layer whose rows have a direction and a length of their own."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.length = nn.Parameter(torch.empty(outputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, F.normalize(self.weight, dim=1) * self.length[:, None], self.bias)


class Gate(nn.Module):
    """Locations of the gates that one hidden state votes for: (B, N, inputs) -> (B, N).

    Args:
        scale, start: the locations are in start +- scale at first; gates have to begin open.
    """

    def __init__(self, inputs: int, hidden: int, scale: float, start: float):
        super().__init__()
        self.first, self.last = WeightNormLinear(inputs, hidden), WeightNormLinear(hidden, 1)
        self.scale = scale
        self.start = nn.Parameter(torch.full((), float(start)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * torch.tanh(self.last(torch.tanh(self.first(x)))[..., 0]) + self.start
