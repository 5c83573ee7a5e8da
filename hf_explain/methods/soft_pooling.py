"""The softened backward rule of max-pooling: each window's gradient goes to its cells by their softmax."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from .soft_gradient import HALVES, named


class Pooled(torch.autograd.Function):
    """`value` of x; backwards the cells at `places` of x with its `edges` get each window's gradient by `shares`."""

    @staticmethod
    def forward(ctx, x, value, shares, places, edges):
        ctx.save_for_backward(shares)
        ctx.places, ctx.edges, ctx.size = places, edges, x.shape[-2:]
        return value()

    @staticmethod
    def backward(ctx, gradient):
        (left, right, top, bottom), (height, width) = ctx.edges, ctx.size
        found = gradient.new_zeros(*gradient.shape[:-2], top + height + bottom, left + width + right)
        for (rows, columns), share in zip(ctx.places, ctx.saved_tensors[0], strict=True):
            found[..., rows, columns] += gradient * share
        return found[..., top : top + height, left : left + width], *[None] * 4


def max_pool(mode, function, args, kwargs):
    """Padded cells get nothing."""
    values = named(args, kwargs, "input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
    x, kernel = values["input"], pair(values["kernel_size"])
    stride, padding = pair(values.get("stride") or kernel), pair(values.get("padding", 0))
    dilation = pair(values.get("dilation", 1))
    mode.counts["max_pool"] += 1
    with torch.no_grad():
        hard = function(*args, **kwargs)
        value = hard[0] if isinstance(hard, tuple) else hard
        needed = [
            (size - 1) * s + (k - 1) * d + 1
            for size, s, k, d in zip(value.shape[-2:], stride, kernel, dilation, strict=True)
        ]
        after = [max(0, n - length - p) for n, length, p in zip(needed, x.shape[-2:], padding, strict=True)]
        edges = (padding[1], after[1], padding[0], after[0])
        cells = places(kernel, dilation, stride, value.shape[-2:])
        padded = F.pad(x, edges, value=-math.inf)
        windows = torch.stack([padded[..., rows, columns] for rows, columns in cells])
        windows = windows.float() if x.dtype in HALVES else windows
        shares = (windows / mode.rules.max_pool).softmax(0).to(x.dtype)
    soft = Pooled.apply(x, lambda: value, shares, cells, edges)
    return (soft, *hard[1:]) if isinstance(hard, tuple) else soft


def places(kernel, dilation, stride, size) -> list[tuple[slice, slice]]:
    """Where the cells of all windows lie, cell by cell: slices every dtype can take."""
    (height, width), found = size, []
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilation[0], j * dilation[1]
            rows = slice(top, top + (height - 1) * stride[0] + 1, stride[0])
            found.append((rows, slice(left, left + (width - 1) * stride[1] + 1, stride[1])))
    return found


def pair(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value) * (2 // len(value))
