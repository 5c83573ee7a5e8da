"""EfficientNet-Lite as a native model of transformers: its config, and its published weights under native names."""

from __future__ import annotations

import re
from math import ceil

import torch
from transformers import EfficientNetConfig

# What Lite scales of EfficientNet-B0, its stages; stem (32), head (1280) and the repeats of first and last stage stay.
OUT_CHANNELS = (16, 24, 40, 80, 112, 192, 320)
REPEATS = (1, 2, 2, 3, 3, 4, 1)
KERNELS = (3, 3, 5, 3, 5, 5, 3)
STRIDES = (1, 2, 2, 2, 1, 2, 1)
OPEN = 40.0  # a gate's logit: its sigmoid is exactly 1 in float32 and float64

NAMES = {  # part of a published name -> native
    "_conv_stem": "efficientnet.embeddings.convolution",
    "_bn0": "efficientnet.embeddings.batchnorm",
    "_conv_head": "efficientnet.encoder.top_conv",
    "_bn1": "efficientnet.encoder.top_bn",
    "_fc": "classifier",
}
BLOCK_NAMES = {
    "_expand_conv": "expansion.expand_conv",
    "_bn0": "expansion.expand_bn",
    "_depthwise_conv": "depthwise_conv.depthwise_conv",
    "_bn1": "depthwise_conv.depthwise_norm",
    "_project_conv": "projection.project_conv",
    "_bn2": "projection.project_bn",
}


def lite_config(size: int, width: float, depth: float, dropout: float, labels: list[str]) -> EfficientNetConfig:
    """The config of a Lite that was published for pictures of `size` pixels.

    A config of transformers would scale stem and head too, so it says the scaled stages themselves, and scales by 1.

    >>> config = lite_config(260, 1.1, 1.2, 0.3, ["cat", "dog"])
    >>> config.out_channels, config.num_block_repeats
    ([16, 24, 48, 88, 120, 208, 352], [1, 3, 3, 4, 4, 5, 1])
    """
    out = [round_channels(width * channels) for channels in OUT_CHANNELS]
    inner = [ceil(depth * repeats) for repeats in REPEATS[1:-1]]
    repeats = [REPEATS[0], *inner, REPEATS[-1]]
    return EfficientNetConfig(
        image_size=size,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        in_channels=[32, *out[:-1]],
        out_channels=out,
        num_block_repeats=repeats,
        kernel_sizes=list(KERNELS),
        strides=list(STRIDES),
        depthwise_padding=square_padding(size, repeats),
        hidden_dim=1280,
        hidden_act="relu6",
        squeeze_expansion_ratio=0.25,
        dropout_rate=dropout,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        architectures=["EfficientNetForImageClassification"],
    )


def round_channels(channels: float, unit: int = 8) -> int:
    """To a multiple of `unit`, and not to less than nine tenths."""
    rounded = max(unit, int(channels + unit / 2) // unit * unit)
    return rounded if rounded >= 0.9 * channels else rounded + unit


def square_padding(size: int, repeats: list[int]) -> list[int]:
    """The blocks of stride 2 that see an odd number of pixels a side, which TensorFlow pads alike on all sides."""
    found: list[int] = []
    side, block = ceil(size / 2), 0  # the stem halves
    for count, stride in zip(repeats, STRIDES, strict=True):
        if stride == 2:
            found += [block] if side % 2 else []
            side = ceil(side / 2)
        block += count
    return found


def native_weights(published: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The published tensors under the names of `EfficientNetForImageClassification`, with gates that are always open.

    Lite has no squeeze-and-excitation. The native model has, so its gates are given weights that make each exactly 1.
    """
    found: dict[str, torch.Tensor] = {}
    for name, tensor in published.items():
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
        if block:
            index, part, kind = block.groups()
            native = f"efficientnet.encoder.blocks.{index}.{BLOCK_NAMES[part]}.{kind}"
            if part == "_depthwise_conv":
                found |= open_gate(f"efficientnet.encoder.blocks.{index}.squeeze_excite", published, int(index))
        else:
            part, _, kind = name.partition(".")
            native = f"{NAMES[part]}.{kind}"
        found[native] = tensor
    return found


def open_gate(prefix: str, published: dict[str, torch.Tensor], index: int) -> dict[str, torch.Tensor]:
    """The tensors of one block's squeeze-and-excitation."""
    channels = len(published[f"_blocks.{index}._depthwise_conv.weight"])
    before = published.get(f"_blocks.{index}._expand_conv.weight")
    squeezed = max(1, (channels if before is None else before.shape[1]) // 4)
    return {
        f"{prefix}.reduce.weight": torch.zeros(squeezed, channels, 1, 1),
        f"{prefix}.reduce.bias": torch.zeros(squeezed),
        f"{prefix}.expand.weight": torch.zeros(channels, squeezed, 1, 1),
        f"{prefix}.expand.bias": torch.full((channels,), OPEN),
    }
