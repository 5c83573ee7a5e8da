"""A convolution and the ReLU or ReLU6 after it, in one pass over memory: a layer of prepared models on processors.

The same numbers as one after the other. What the gradient needs of the activation can be seen in its result, so the map
between the two is never made.
"""

from __future__ import annotations

import torch
from torch import nn

POINTWISE = {"relu": ("relu", []), "relu6": ("hardtanh", [0.0, 6.0])}  # names of oneDNN, and their values


class FusedConvolution(nn.Module):
    """`activation(convolution(x))`; as two layers where they cannot be one, and where somebody looks at functions.

    >>> layer = FusedConvolution(nn.Conv2d(3, 4, 3), nn.ReLU())
    >>> x = torch.rand(1, 3, 8, 8)
    >>> torch.allclose(layer(x), layer.convolution(x).relu(), atol=1e-6)
    True
    """

    def __init__(self, convolution: nn.Conv2d, activation: nn.Module):
        super().__init__()
        self.convolution, self.activation = convolution, activation
        self.pointwise = POINTWISE["relu" if isinstance(activation, nn.ReLU) else "relu6"]
        kernel, padding = convolution.kernel_size, convolution.padding
        # "same" of an even kernel is uneven, which one call does not pad
        self.pad = [k // 2 for k in kernel] if padding == "same" else [0, 0] if padding == "valid" else [*padding]
        self.fits = padding != "same" or all(
            k % 2 and d == 1 for k, d in zip(kernel, convolution.dilation, strict=True)
        )
        self.fits &= convolution.padding_mode == "zeros"

    def __getattr__(self, name: str):
        """Its stride, weight, ..., of which some models compute the padding or the precision."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("convolution"), name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        watched = torch._C._len_torch_function_stack() or torch._C._len_torch_dispatch_stack()
        if self.fits and plain and not watched and not torch.compiler.is_compiling():
            one = self.convolution
            return Fused.apply(
                x, one.weight, one.bias, [*one.stride], self.pad, [*one.dilation], one.groups, self.pointwise
            )
        return self.activation(self.convolution(x))


class Fused(torch.autograd.Function):
    """By the operation that torch's own compiler takes; the weights are frozen and get no gradient."""

    @staticmethod
    def forward(ctx, x, weight, bias, stride, pad, dilation, groups, pointwise):
        name, values = pointwise
        result = torch.ops.mkldnn._convolution_pointwise(
            x, weight, bias, pad, stride, dilation, groups, name, values, ""
        )
        ctx.save_for_backward(x, weight, result)
        ctx.settings, ctx.limits = (stride, pad, dilation, False, [0, 0], groups), values
        return result

    @staticmethod
    def backward(ctx, grad):
        x, weight, result = ctx.saved_tensors
        if ctx.limits:
            grad = torch.ops.aten.hardtanh_backward(grad, result, *ctx.limits)
        else:
            grad = torch.ops.aten.threshold_backward(grad, result, 0)
        found = torch.ops.aten.convolution_backward(grad, x, weight, None, *ctx.settings, [True, False, False])[0]
        return found, *[None] * 7
