"""Which function has which softened backward rule, and which have none.

A rule is called as `rule(mode, function, args, kwargs)`, with the `SoftBackward` it belongs to, and returns what the
function returns: the same value, another gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F

from .soft_activations import gelu, hardswish, relu, relu6, silu
from .soft_attention import apply_weights, attention, dropout, softmax, whole_attention
from .soft_norms import group_norm, instance_norm, layer_norm, normalize, rms_norm, written_out_rms_norm
from .soft_pooling import max_pool
from .soft_products import divide, gate, multiply, multiply_in_place, sigmoid


def keyed(rules: Mapping[Any, list]) -> dict[Callable, Any]:
    return {function: rule for rule, functions in rules.items() for function in functions}


RULES = keyed({
    relu: [F.relu, F.relu_, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_],
    relu6: [F.relu6, F.hardtanh, F.hardtanh_],  # torch's ReLU6 calls hardtanh
    gelu: [F.gelu],
    silu: [F.silu],
    hardswish: [F.hardswish],
    sigmoid: [F.sigmoid, torch.sigmoid, torch.Tensor.sigmoid, torch.special.expit],
    gate: [F.hardsigmoid, F.tanh, torch.tanh, torch.Tensor.tanh, torch.erf, torch.Tensor.erf],
    multiply: [torch.mul, torch.multiply, torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.__rmul__],
    multiply_in_place: [torch.Tensor.mul_, torch.Tensor.__imul__],
    divide: [torch.div, torch.divide, torch.true_divide, torch.Tensor.div, torch.Tensor.__truediv__],
    layer_norm: [F.layer_norm, torch.layer_norm],
    group_norm: [F.group_norm, torch.group_norm],
    instance_norm: [F.instance_norm],
    rms_norm: [F.rms_norm, torch.rms_norm],
    written_out_rms_norm: [torch.rsqrt, torch.Tensor.rsqrt],
    normalize: [F.normalize],
    max_pool: [torch.max_pool2d, F.max_pool2d, F.max_pool2d_with_indices],
    attention: [F.scaled_dot_product_attention],
    whole_attention: [F.multi_head_attention_forward],
    softmax: [F.softmax, torch.softmax, torch.Tensor.softmax, torch.special.softmax],
    dropout: [F.dropout],
    apply_weights: [torch.matmul, torch.bmm, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.Tensor.bmm],
})  # fmt: skip

UNCOVERED = keyed({
    "leaky_relu": [F.leaky_relu, F.leaky_relu_],
    "elu": [F.elu, F.elu_],
    "selu": [F.selu],
    "celu": [F.celu],
    "softplus": [F.softplus],
    "mish": [F.mish],
    "prelu": [F.prelu, torch.prelu],
    "glu": [F.glu],
    "exp": [torch.exp, torch.Tensor.exp],
    "sqrt": [torch.sqrt, torch.Tensor.sqrt],
    "power": [torch.pow, torch.Tensor.pow, torch.Tensor.__pow__, torch.square, torch.Tensor.square],
    "clamp": [torch.clamp, torch.clip, torch.Tensor.clamp, torch.Tensor.clip],
    "vector_norm": [torch.linalg.vector_norm, torch.norm, torch.Tensor.norm],
    "amax": [torch.amax, torch.Tensor.amax, torch.max, torch.Tensor.max],
    "log_softmax": [F.log_softmax, torch.log_softmax, torch.Tensor.log_softmax],
})  # fmt: skip
