"""The softened backward rules of single functions, in tables of which function has one.

A rule is called as `rule(mode, function, args, kwargs)`, with the `SoftBackward` it belongs to, and returns what the
function returns: the same value, another gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F

from ..modeling.errors import ExplainerError


def straight(value: torch.Tensor, path: torch.Tensor) -> torch.Tensor:
    """`value` to the last bit, with the gradient of `path`."""
    return path - path.detach() + value.detach()


def gated(mode, name: str, value, z: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    mode.counts[name] += 1
    return straight(value, z * gate.detach())


def normal_cdf(z: torch.Tensor) -> torch.Tensor:
    return (
        torch.special.ndtr(z.float()).to(z.dtype)
        if z.dtype in (torch.float16, torch.bfloat16)
        else (torch.special.ndtr(z))
    )


def relu(mode, function, args, kwargs):
    z = args[0] if args else kwargs["input"]
    return gated(mode, "relu", z.detach().relu(), z, normal_cdf(z.detach() / mode.rules.relu))


def gelu(mode, function, args, kwargs):
    z = args[0] if args else kwargs["input"]
    return gated(mode, "gelu", function(*args, **kwargs), z, normal_cdf(z.detach() / mode.rules.gelu))


def silu(mode, function, args, kwargs):
    z = args[0] if args else kwargs["input"]
    soft = gated(mode, "silu", F.silu(z.detach()), z, (z.detach() / mode.rules.silu).sigmoid())
    soft.is_gate = True  # if it multiplies another branch: SwiGLU
    return soft


def sigmoid(mode, function, args, kwargs):
    """Of 1.702 z it is the gate of a QuickGELU, as CLIP computes it; otherwise there is no rule."""
    value = function(*args, **kwargs)
    scaled = getattr(args[0] if args else kwargs["input"], "quick_gelu_of", None)
    if scaled is not None:
        value.quick_gelu_of = scaled
    elif mode.rules.gates == "constant":
        mode.counts["gate"] += 1
        value = value.detach()
    else:
        mode.uncovered["sigmoid"] += 1
    return value


def multiply(mode, function, args, kwargs):
    """Where QuickGELU and SwiGLU become recognizable."""
    if len(args) != 2 or kwargs:
        return function(*args, **kwargs)
    for one, other in (args, args[::-1]):
        if isinstance(one, torch.Tensor) and isinstance(other, float) and other == QUICK:
            value = function(*args)
            value.quick_gelu_of = one
            return value
        if getattr(other, "quick_gelu_of", None) is one and isinstance(one, torch.Tensor):
            gate = (QUICK * one.detach() / mode.rules.gelu).sigmoid()
            return gated(mode, "quick_gelu", function(*args), one, gate)
        if mode.rules.gates == "constant" and getattr(other, "is_gate", False) and isinstance(one, torch.Tensor):
            mode.counts["gate"] += 1
            return one * other.detach()
    return function(*args)


def layer_norm(mode, function, args, kwargs):
    x, shape = given(args, kwargs, "input", "normalized_shape")
    weight, eps = kwargs.get("weight", args[2] if len(args) > 2 else None), kwargs.get("eps", read(args, 4, 1e-5))
    mode.counts["layer_norm"] += 1
    over = tuple(range(-len(tuple(shape)), 0))
    with torch.no_grad():
        full = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        scale = (full.var(over, correction=0, keepdim=True) + eps).rsqrt().to(x.dtype)
    path = (x - x.mean(over, keepdim=True) if mode.rules.norm == "adjoint" else x) * scale
    return straight(function(*args, **kwargs), path if weight is None else path * weight.detach())


def max_pool(mode, function, args, kwargs):
    """Backwards by the softmax of each window; padded cells get nothing."""
    values = dict(zip(("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode"), args, strict=False))
    values |= kwargs
    x, kernel = values["input"], pair(values["kernel_size"])
    stride, padding = pair(values.get("stride") or kernel), pair(values.get("padding", 0))
    dilation = pair(values.get("dilation", 1))
    mode.counts["max_pool"] += 1
    hard = function(*args, **kwargs)
    value = hard[0] if isinstance(hard, tuple) else hard
    batched = x if x.ndim == 4 else x[None]
    needed = [
        (size - 1) * s + (k - 1) * d + 1
        for size, s, k, d in zip(value.shape[-2:], stride, kernel, dilation, strict=True)
    ]
    after = [max(0, n - length - p) for n, length, p in zip(needed, x.shape[-2:], padding, strict=True)]
    edges = (padding[1], after[1], padding[0], after[0])

    def windows(filling: float, picture):
        return unfolded(F.pad(picture, edges, value=filling), kernel, dilation, stride, value.shape[-2:])

    with torch.no_grad():
        weights = (windows(-math.inf, batched.detach()).float() / mode.rules.max_pool).softmax(2).to(x.dtype)
    path = (windows(0.0, batched) * weights).sum(2)
    soft = straight(value, path if x.ndim == 4 else path[0])
    return (soft, *hard[1:]) if isinstance(hard, tuple) else soft


def unfolded(x, kernel, dilation, stride, size) -> torch.Tensor:
    """All cells of each window, (B, C, kh kw, h, w), by slicing: every dtype can."""
    (height, width), cells = size, []
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilation[0], j * dilation[1]
            rows = slice(top, top + (height - 1) * stride[0] + 1, stride[0])
            cells.append(x[..., rows, left : left + (width - 1) * stride[1] + 1 : stride[1]])
    return torch.stack(cells, 2)


def attention(mode, function, args, kwargs):
    """The value path only; the weights are constants, softened backwards if asked."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
    values = dict(zip(names, args, strict=False)) | kwargs
    mode.counts["attention"] += 1
    q, k, v, mask = (values.pop(name, None) for name in names[:4])
    q, k, mask = (None if one is None else one.detach() for one in (q, k, mask))
    temperature = mode.rules.attention
    if temperature == 1:
        return function(q, k, v, attn_mask=mask, **values)
    softer = values | {"scale": (values.get("scale") or q.shape[-1] ** -0.5) / temperature}
    cooled = mask / temperature if mask is not None and mask.is_floating_point() else mask
    return straight(function(q, k, v.detach(), attn_mask=mask, **values), function(q, k, v, attn_mask=cooled, **softer))


def whole_attention(mode, function, args, kwargs):
    """torch's own module: attention as above, with its projections."""
    if mode.rules.attention != 1:
        raise ExplainerError("attention temperatures other than 1 do not reach torch's MultiheadAttention; give 1.")
    mode.counts["attention"] += 1
    query, key, *rest = args
    return function(query.detach(), key.detach(), *rest, **kwargs)


def softmax(mode, function, args, kwargs):
    """Written out attention: the weights are constants. What multiplies them next may be softened."""
    mode.counts["attention"] += 1
    x = args[0] if args else kwargs["input"]
    weights = function(*args, **kwargs).detach()
    if mode.rules.attention != 1:
        rest = {name: value for name, value in kwargs.items() if name != "input"}
        weights.softened = function(x.detach() / mode.rules.attention, *args[1:], **rest)
    return weights


def dropout(mode, function, args, kwargs):
    """In eval mode it is nothing, so what is known of its input stays known."""
    values = dict(zip(("input", "p", "training"), args, strict=False)) | kwargs
    return function(*args, **kwargs) if values.get("training", True) else values["input"]


def apply_weights(mode, function, args, kwargs):
    softened = getattr(args[0], "softened", None) if len(args) == 2 else None
    if softened is None:
        return function(*args, **kwargs)
    weights, values = args
    mode.counts["softened attention"] += 1
    return straight(function(weights, values.detach()), function(softened, values))


# ---- reading arguments ----

QUICK = 1.702  # of QuickGELU


def given(args, kwargs, *names):
    return [args[i] if i < len(args) else kwargs[name] for i, name in enumerate(names)]


def read(args, index: int, default):
    return args[index] if len(args) > index else default


def pair(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value) * (2 // len(value))


def keyed(rules: Mapping[Any, list]) -> dict[Callable, Any]:
    return {function: rule for rule, functions in rules.items() for function in functions}


RULES = keyed({
    relu: [F.relu, F.relu_, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_],
    gelu: [F.gelu],
    silu: [F.silu],
    sigmoid: [F.sigmoid, torch.sigmoid, torch.Tensor.sigmoid, torch.special.expit],
    multiply: [torch.mul, torch.multiply, torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.__rmul__],
    layer_norm: [F.layer_norm, torch.layer_norm],
    max_pool: [torch.max_pool2d, F.max_pool2d, F.max_pool2d_with_indices],
    attention: [F.scaled_dot_product_attention],
    whole_attention: [F.multi_head_attention_forward],
    softmax: [F.softmax, torch.softmax, torch.Tensor.softmax, torch.special.softmax],
    dropout: [F.dropout],
    apply_weights: [torch.matmul, torch.bmm, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.Tensor.bmm],
})  # fmt: skip

UNCOVERED = keyed({
    "tanh": [F.tanh, torch.tanh, torch.Tensor.tanh],
    "relu6": [F.relu6, F.hardtanh, F.hardtanh_],  # torch's ReLU6 calls hardtanh
    "hardswish": [F.hardswish],
    "hardsigmoid": [F.hardsigmoid],
    "leaky_relu": [F.leaky_relu, F.leaky_relu_],
    "elu": [F.elu, F.elu_],
    "selu": [F.selu],
    "celu": [F.celu],
    "softplus": [F.softplus],
    "mish": [F.mish],
    "prelu": [F.prelu, torch.prelu],
    "glu": [F.glu],
    "erf": [torch.erf, torch.Tensor.erf],
    "exp": [torch.exp, torch.Tensor.exp],
    "group_norm": [F.group_norm, torch.group_norm],
    "instance_norm": [F.instance_norm],
    "rms_norm": [F.rms_norm],
    "rsqrt": [torch.rsqrt, torch.Tensor.rsqrt],
    "normalize": [F.normalize],
    "vector_norm": [torch.linalg.vector_norm, torch.norm, torch.Tensor.norm],
    "amax": [torch.amax, torch.Tensor.amax, torch.max, torch.Tensor.max],
    "log_softmax": [F.log_softmax, torch.log_softmax, torch.Tensor.log_softmax],
})  # fmt: skip
