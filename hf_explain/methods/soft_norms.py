"""The softened backward rules of normalizations: their statistics are constants.

Of what has a mean, `norm="reference"` takes it for a constant too, and "adjoint" subtracts it backwards as well.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .soft_gradient import HALVES, named, scaled


class Normalized(torch.autograd.Function):
    """`value(x)`; backwards rows of x are multiplied by their `scale` and by the weight, and a bias is added as always.

    Args:
        rows: the shape in which the last axis is what was normalized together.
        affine: the shape in which weight and bias meet x.
        centered: whether the mean of a row is subtracted backwards.
    """

    @staticmethod
    def forward(ctx, x, bias, weight, value, scale, rows, affine, centered):
        ctx.save_for_backward(weight, scale)
        ctx.of_bias = None if bias is None else bias.shape
        ctx.rows, ctx.affine, ctx.centered = rows, affine, centered
        return value(x)

    @staticmethod
    def backward(ctx, gradient):
        weight, scale = ctx.saved_tensors
        of_bias = gradient.sum_to_size(ctx.affine).reshape(ctx.of_bias) if ctx.needs_input_grad[1] else None
        found = (gradient if weight is None else gradient * weight.view(ctx.affine)).reshape(ctx.rows)
        if ctx.centered:
            found = found - found.mean(-1, keepdim=True)
        return (found * scale).reshape(gradient.shape), of_bias, *[None] * 6


def normalized(mode, function, args, kwargs, values, scale, rows, affine, centered):
    """As `function` computes it, with the gradient of the rule."""
    weight = values.get("weight")
    rest = {name: value for name, value in kwargs.items() if name != "input"}

    def value(x):
        return function(x, *args[1:], **rest)

    weight = None if weight is None else weight.detach()
    return Normalized.apply(values["input"], values.get("bias"), weight, value, scale, rows, affine, centered)


def of_variance(x: torch.Tensor, rows, eps: float) -> torch.Tensor:
    full = x.detach().float() if x.dtype in HALVES else x.detach()
    return (full.reshape(rows).var(-1, correction=0, keepdim=True) + eps).rsqrt().to(x.dtype)


def of_square(x: torch.Tensor, rows, eps: float) -> torch.Tensor:
    full = x.detach().float() if x.dtype in HALVES else x.detach()
    return (full.reshape(rows).square().mean(-1, keepdim=True) + eps).rsqrt().to(x.dtype)


def layer_norm(mode, function, args, kwargs):
    values = {"eps": 1e-5} | named(args, kwargs, "input", "normalized_shape", "weight", "bias", "eps")
    x, shape = values["input"], tuple(values["normalized_shape"])
    mode.counts["layer_norm"] += 1
    rows = (*x.shape[: -len(shape)], -1)
    scale = of_variance(x, rows, values["eps"])
    return normalized(mode, function, args, kwargs, values, scale, rows, shape, mode.rules.norm == "adjoint")


def group_norm(mode, function, args, kwargs):
    values = {"eps": 1e-5} | named(args, kwargs, "input", "num_groups", "weight", "bias", "eps")
    x = values["input"]
    mode.counts["group_norm"] += 1
    rows = (len(x), values["num_groups"], -1)
    scale, affine = of_variance(x, rows, values["eps"]), (x.shape[1], *[1] * (x.ndim - 2))
    return normalized(mode, function, args, kwargs, values, scale, rows, affine, mode.rules.norm == "adjoint")


def instance_norm(mode, function, args, kwargs):
    """With statistics of its own; with running ones it is affine already."""
    names = ("input", "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps")
    values = {"use_input_stats": True, "eps": 1e-5} | named(args, kwargs, *names)
    if not values["use_input_stats"]:
        return function(*args, **kwargs)
    x = values["input"]
    mode.counts["instance_norm"] += 1
    rows = (*x.shape[:2], -1)
    scale, affine = of_variance(x, rows, values["eps"]), (x.shape[1], *[1] * (x.ndim - 2))
    return normalized(mode, function, args, kwargs, values, scale, rows, affine, mode.rules.norm == "adjoint")


def rms_norm(mode, function, args, kwargs):
    values = named(args, kwargs, "input", "normalized_shape", "weight", "eps")
    x, shape = values["input"], tuple(values["normalized_shape"])
    eps = torch.finfo(x.dtype).eps if values.get("eps") is None else values["eps"]
    mode.counts["rms_norm"] += 1
    rows = (*x.shape[: -len(shape)], -1)
    return normalized(mode, function, args, kwargs, values, of_square(x, rows, eps), rows, shape, False)


def written_out_rms_norm(mode, function, args, kwargs):
    """x * rsqrt(mean(x^2) + eps), as modules write it: what rsqrt gives is the statistic."""
    mode.counts["rms_norm"] += 1
    return function(*args, **kwargs).detach()


def normalize(mode, function, args, kwargs):
    values = {"p": 2.0, "dim": 1, "eps": 1e-12} | named(args, kwargs, "input", "p", "dim", "eps")
    x, rest = values.pop("input"), {name: values[name] for name in ("p", "dim", "eps")}
    length = x.detach().norm(rest["p"], rest["dim"], keepdim=True).clamp(min=rest["eps"])
    return scaled(mode, "normalize", x, lambda x: F.normalize(x, **rest), 1 / length)
