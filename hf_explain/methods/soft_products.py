"""The softened backward rules where branches of a network meet: gates, products and quotients."""

from __future__ import annotations

import torch
from torch import nn

from .soft_gradient import first, scaled

QUICK = 1.702  # of QuickGELU


def gate(mode, function, args, kwargs):
    """What is no coefficient times its input, but mostly multiplies one, as in squeeze-and-excitation."""
    value = function(*args, **kwargs)
    if mode.rules.gates == "gradient":
        return mode.kept(function.__name__, value)
    mode.counts["gate"] += 1
    return value.detach()


def sigmoid(mode, function, args, kwargs):
    """Of 1.702 z it is the gate of a QuickGELU, as CLIP computes it; otherwise any gate."""
    z = getattr(first(args, kwargs), "quick_gelu_of", None)
    if z is None:
        return gate(mode, function, args, kwargs)
    value = function(*args, **kwargs)
    value.quick_gelu_of = z
    return value


def multiply(mode, function, args, kwargs):
    """Where QuickGELU and gates become recognizable."""
    if len(args) != 2 or kwargs:
        return function(*args, **kwargs)
    for one, other in (args, args[::-1]):
        if isinstance(one, torch.Tensor) and isinstance(other, float) and other == QUICK:
            value = function(*args)
            value.quick_gelu_of = one
            return value
        if getattr(other, "quick_gelu_of", None) is one and isinstance(one, torch.Tensor):
            value, factor = other.detach(), (QUICK * one.detach() / mode.rules.gelu).sigmoid()
            return scaled(mode, "quick_gelu", one, value.mul, factor)
    if not (comes_from_pixels(args[0]) and comes_from_pixels(args[1])):
        return function(*args)
    if mode.rules.gates == "gradient":
        return mode.kept("product", function(*args))
    mode.counts["gate"] += 1
    for is_gate in (is_squeezed, is_activated):
        for one, other in (args, args[::-1]):
            if is_gate(one, other) and not is_gate(other, one):
                return function(*(x.detach() if x is one else x for x in args))
    value = function(*args)
    value.register_hook(lambda gradient: gradient / 2)  # each is the other's gate by half
    return value


def multiply_in_place(mode, function, args, kwargs):
    both = comes_from_pixels(args[0]) and comes_from_pixels(args[1])
    value = function(*args, **kwargs)
    return mode.kept("product", value) if both else value


def divide(mode, function, args, kwargs):
    """A divisor that depends on the picture is a statistic."""
    if len(args) != 2 or not comes_from_pixels(args[1]):
        return function(*args, **kwargs)
    if mode.rules.gates == "gradient":
        return mode.kept("quotient", function(*args, **kwargs))
    mode.counts["gate"] += 1
    return function(args[0], args[1].detach(), **kwargs)


def is_squeezed(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether `one` has a single value where `other` has many, as what was pooled over the picture."""
    sizes = [1 if stride == 0 else size for size, stride in zip(one.shape, one.stride(), strict=True)]
    return one.ndim == other.ndim and all(a in (1, b) for a, b in zip(sizes, other.shape)) and sizes != [*other.shape]


def is_activated(one: torch.Tensor, other: torch.Tensor) -> bool:
    return getattr(one, "is_gate", False)


def comes_from_pixels(x) -> bool:
    """Whether a gradient flows through `x`, and not only to a parameter of which it is a view or a function."""
    if not isinstance(x, torch.Tensor) or not x.requires_grad:
        return False
    leaf: torch.Tensor | None = x
    node = x.grad_fn
    while node is not None:
        before = [node for node, _ in node.next_functions if node is not None]
        if len(before) > 1:
            return True
        leaf = getattr(node, "variable", None)
        node = before[0] if before else None
    return not isinstance(leaf, nn.Parameter)
