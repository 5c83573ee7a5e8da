"""What softened rules are made of: a value as it is, with another gradient, and how a call's arguments are read."""

from __future__ import annotations

from collections.abc import Callable

import torch

HALVES = (torch.float16, torch.bfloat16)


class Coefficient(torch.autograd.Function):
    """`value(z)`, a new tensor, which backwards is a constant coefficient times z."""

    @staticmethod
    def forward(ctx, z: torch.Tensor, value: Callable, coefficient: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(coefficient)
        return value(z)

    @staticmethod
    def backward(ctx, gradient):
        (coefficient,) = ctx.saved_tensors
        return gradient * coefficient, None, None


def scaled(mode, name: str, z: torch.Tensor, value: Callable, coefficient: torch.Tensor) -> torch.Tensor:
    mode.counts[name] += 1
    return Coefficient.apply(z, value, coefficient)


def straight(value: torch.Tensor, path: torch.Tensor) -> torch.Tensor:
    """`value` to the last bit, with the gradient of `path`."""
    return path - path.detach() + value.detach()


def named(args, kwargs, *names) -> dict:
    """The arguments of a call by name, those that were given."""
    return dict(zip(names, args, strict=False)) | kwargs


def first(args, kwargs) -> torch.Tensor:
    return args[0] if args else kwargs["input"]
