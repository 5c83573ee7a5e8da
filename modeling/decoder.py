"""The dense decoder: hidden states of several layers and the picture itself -> class-free features at every resolution.

A class is one vector; its map is the dot product with the features, summed over resolutions. So one pass of the decoder
serves any number of classes, and the finest features, which see the raw pixels, let maps follow object boundaries.
GroupNorm throughout: a picture's map never depends on what else is in the batch.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


def group_norm(channels: int) -> nn.GroupNorm:
    """At most 8 groups of at least 4 channels, so that a group has a spread even on a 1 x 1 grid."""
    return nn.GroupNorm(max(g for g in range(1, 9) if channels % g == 0 and channels >= 4 * g), channels)


class ReadMap(nn.Module):
    """One hidden state -> the decoder's width. Norm first: most hidden states come before the model's final norm."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.project = nn.Linear(channels, width)

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        state = state.permute(0, 2, 3, 1)  # (B, h, w, C): contiguous for transformers, one copy for conv nets
        return self.project(self.norm(state)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Residual, pre-activation, of `depth` convolutions."""

    def __init__(self, width: int, depth: int):
        super().__init__()
        self.norms = nn.ModuleList(group_norm(width) for _ in range(depth))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = conv(F.relu(norm(y)))
        return x + y


class PixelDecoder(nn.Module):
    """(pixel_values, maps) -> features, coarse to fine, the last with `finest` pixels of the picture a cell.

    Args:
        channels: of each map.
        strides: of each map, in pixels.
        hidden_size, pixel_size: width at stride 16 and coarser, and at stride 1.
        num_blocks: residual blocks at the coarsest resolution; every other one has one.
        finest: stride of the last features, a power of 2.
    """

    def __init__(
        self, channels: list[int], strides: list[float], hidden_size: int, pixel_size: int, num_blocks: int,
        finest: int = 1,
    ):  # fmt: skip
        super().__init__()
        last = int(math.log2(finest))
        exponents = [max(last, round(math.log2(s))) for s in strides]  # stride 14 counts as 16
        self.levels = list(range(max(exponents), last - 1, -1))  # stride 2 ** level, coarse to fine
        self.map_levels = exponents
        width = {e: hidden_size if e >= 4 else max(pixel_size, hidden_size >> (4 - e)) // 4 * 4 for e in self.levels}
        if last == 0:
            width[0] = pixel_size
        self.widths = [width[e] for e in self.levels]
        self.read = nn.ModuleList(ReadMap(c, width[e]) for c, e in zip(channels, exponents, strict=True))
        # the picture itself, at the strides 1, 2 and 4 that there are
        self.pixel_levels: list[int] = [e for e in (0, 1, 2) if e in self.levels]
        self.pixels = nn.ModuleList(look(e, width.get(e - 1), width[e]) for e in self.pixel_levels)
        self.down = nn.ModuleList(nn.Conv2d(width[e + 1], width[e], 1) for e in self.levels[1:])
        self.blocks = nn.ModuleList(
            # Depth where it is cheap: one convolution at the pixels costs as much as two at stride 8.
            nn.Sequential(*[Block(width[e], 2 if e >= 3 else 1) for _ in range(1 if i else num_blocks)])
            for i, e in enumerate(self.levels)
        )
        self.norms = nn.ModuleList(group_norm(width[e]) for e in self.levels)

    def forward(self, pixel_values: torch.Tensor, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        height, width = pixel_values.shape[-2:]
        sides: dict[int, list[torch.Tensor]] = {}  # level -> what enters there besides the coarser features
        # Tokens become maps in this memory format anyway; with the picture in it too no layer has to change it.
        seen = pixel_values.contiguous(memory_format=torch.channels_last)
        for level, conv in zip(self.pixel_levels, self.pixels, strict=True):
            seen = F.relu(conv(seen))
            sides[level] = [seen]
        for level, read, state in zip(self.map_levels, self.read, maps, strict=True):
            sides.setdefault(level, []).append(read(state))
        features: list[torch.Tensor] = []
        x: torch.Tensor | None = None
        for i, level in enumerate(self.levels):
            entering = sides.get(level, [])
            # The grid of this level is that of the first map or pixel feature that enters, else picture / stride.
            size = entering[0].shape[-2:] if entering else (math.ceil(height / 2**level), math.ceil(width / 2**level))
            if x is not None:
                x = resize(self.down[i - 1](x), size)
            for side in entering:
                side = resize(side, size)
                x = side if x is None else x + side
            x = self.blocks[i](x)
            features.append(F.relu(self.norms[i](x)))
        return features


def look(level: int, channels: int | None, width: int) -> nn.Conv2d:
    """What brings the picture to a level: from the finer one, else from its pixels, all of which are seen."""
    if channels is not None:
        return nn.Conv2d(channels, width, 3, stride=2, padding=1)
    stride = 2**level
    return nn.Conv2d(3, width, max(3, 2 * stride - 1), stride=stride, padding=max(1, stride - 1))


def resize(x: torch.Tensor, size) -> torch.Tensor:
    if x.shape[-2:] == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


class ClassMaps(nn.Module):
    """(features, targets (B, T)) -> maps (B, T, H, W): per resolution, the dot product with the class's vector."""

    def __init__(self, num_labels: int, hidden_size: int, widths: list[int]):
        super().__init__()
        self.classes = nn.Embedding(num_labels, hidden_size)
        self.match = nn.ModuleList(nn.Linear(hidden_size, w) for w in widths)

    def forward(self, features: list[torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
        classes = self.classes(targets)  # (B, T, D)
        scores = classes.new_zeros(*targets.shape, *features[0].shape[-2:])
        for feature, match in zip(features, self.match, strict=True):
            query = match(classes) / feature.shape[1] ** 0.5  # (B, T, w)
            here = torch.bmm(query, feature.flatten(2)).unflatten(2, feature.shape[-2:])  # (B, T, h, w)
            scores = resize(scores, here.shape[-2:]) + here
        return scores


class SlopeMix(nn.Module):
    """Adds slopes (B, T, R, H, W), as they are and averaged over two neighborhoods, to the scores (B, T, H, W).

    Weighed by the features (B, C, H, W), and read together with the scores by three small convolutions, class by class:
    a slope alone knows edges, not objects. They see 15 x 15 pixels around each.
    """

    SIZES = (1, 3, 7)

    def __init__(self, width: int, count: int, hidden: int = 16):
        super().__init__()
        self.weigh = nn.Conv2d(width, len(self.SIZES) * count, 1)
        self.enter = nn.Conv2d(1 + len(self.SIZES) * count, hidden, 3, padding=1)
        self.around = nn.ModuleList(nn.Conv2d(hidden, hidden, 3, padding=d, dilation=d) for d in (2, 4))
        self.leave = nn.Conv2d(hidden, 1, 1)

    def forward(self, scores: torch.Tensor, features: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
        weights = resize(F.softplus(self.weigh(features)), slopes.shape[-2:])  # never against
        weights, scores = weights.unflatten(1, (len(self.SIZES), -1)), resize(scores, slopes.shape[-2:])
        flat = slopes.flatten(0, 1)  # (B T, R, H, W)
        means = [F.avg_pool2d(flat, s, stride=1, padding=s // 2, count_include_pad=False) for s in self.SIZES]
        x = F.relu(self.enter(torch.cat([scores.flatten(0, 1)[:, None], *means], 1)))
        for conv in self.around:
            x = x + F.relu(conv(x))
        scores = scores + self.leave(x).view_as(scores)
        for weight, mean in zip(weights.unbind(1), means, strict=True):
            scores = scores + (weight[:, None] * mean.view_as(slopes)).sum(2)
        return scores
