"""The softened backward rules of activations: each is a coefficient times its input, and the coefficient is softened.

A rule is called as `rule(mode, function, args, kwargs)`, with the `SoftBackward` it belongs to.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from .soft_gradient import HALVES, first, named, scaled

HARD = 1e-6  # a temperature up to which a gate is open or shut


def normal_gate(z: torch.Tensor, temperature: float) -> torch.Tensor:
    """How likely z and normal noise are positive together."""
    if temperature <= HARD:
        return (z > 0).to(z.dtype)
    soft = z / temperature
    return torch.special.ndtr(soft.float()).to(z.dtype) if z.dtype in HALVES else torch.special.ndtr(soft)


def relu(mode, function, args, kwargs):
    z = first(args, kwargs)
    return scaled(mode, "relu", z, torch.relu, normal_gate(z.detach(), mode.rules.relu))


def relu6(mode, function, args, kwargs):
    """A ReLU's gate, times the share of z that is below the cap. Of a hardtanh from 0 as well; of others, no rule."""
    values = {"min_val": -1.0, "max_val": 1.0} | named(args, kwargs, "input", "min_val", "max_val", "inplace")
    z, low, cap = values["input"], values["min_val"], values["max_val"]
    if function is F.relu6:
        low, cap = 0.0, 6.0
    if low != 0 or cap <= 0:
        return mode.kept("hardtanh", function(*args, **kwargs))
    gate = normal_gate(z.detach(), mode.rules.relu) * (cap / z.detach().clamp(min=cap))
    return scaled(mode, "relu6", z, lambda x: F.hardtanh(x, 0.0, cap), gate)


def gelu(mode, function, args, kwargs):
    z = first(args, kwargs)
    if kwargs.get("approximate") == "tanh" and mode.rules.gelu > HARD:
        soft = z.detach() / mode.rules.gelu
        gate = 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (soft + 0.044715 * soft**3)))
    else:
        gate = normal_gate(z.detach(), mode.rules.gelu)
    return scaled(mode, "gelu", z, lambda x: F.gelu(x, **{k: v for k, v in kwargs.items() if k != "input"}), gate)


def silu(mode, function, args, kwargs):
    z = first(args, kwargs)
    soft = scaled(mode, "silu", z, F.silu, (z.detach() / mode.rules.silu).sigmoid())
    soft.is_gate = True  # if it multiplies another branch: SwiGLU
    return soft


def hardswish(mode, function, args, kwargs):
    z = first(args, kwargs)
    return scaled(mode, "hardswish", z, F.hardswish, F.hardsigmoid(z.detach() / mode.rules.silu))
