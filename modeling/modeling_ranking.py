"""The learned ranking explainer: every pixel's place in the order of importance, for any class, in one forward pass.

With `hybrid=True` the maps also see the classifier's slopes, weighed by the learned features: one more forward of three
altered pictures, and a backward of them per class.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_explainer import FINEST, RANKING_PRESETS, RankingExplainerConfig
from .decoder import ClassMaps, PixelDecoder, SlopeMix, resize
from .modeling_explainer import ExplainerForImageClassification
from .slopes import slopes


class RankingHead(nn.Module):
    """Class-free features of the decoder, dotted with one vector per class; in a hybrid, plus the weighed slopes."""

    def __init__(self, config: RankingExplainerConfig):
        super().__init__()
        maps = config.read_maps()
        strides = [max(m.stride) for m in maps]
        shape = (config.hidden_size, config.pixel_size, config.num_blocks, config.finest)
        self.decoder = PixelDecoder([m.channels for m in maps], strides, *shape)
        self.class_maps = ClassMaps(config.num_labels, config.hidden_size, self.decoder.widths)
        self.mix = SlopeMix(config.pixel_size, len(config.slope_references)) if config.hybrid else None

    def forward(self, pixel_values: torch.Tensor, maps: list[torch.Tensor], targets: torch.Tensor, slopes=None):
        features = self.decoder(pixel_values, maps)
        scores = self.class_maps(features, targets)
        scores = scores if self.mix is None else self.mix(scores, features[-1], slopes)
        return resize(scores, pixel_values.shape[-2:])


class RankingExplainerForImageClassification(ExplainerForImageClassification):
    """Learned by optimizing deletion and insertion directly: "Learn to Rank" (arXiv 2604.05819) on own features.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> explainer = RankingExplainerForImageClassification.from_classifier(random_classifier(), preset="tiny")
    >>> explainer(torch.rand(1, 3, 32, 32), targets=torch.tensor([[0, 3]])).attributions.shape
    torch.Size([1, 2, 32, 32])
    """

    config_class = RankingExplainerConfig
    config: RankingExplainerConfig
    presets = RANKING_PRESETS

    def __init__(self, config: RankingExplainerConfig):
        super().__init__(config)
        self.head = RankingHead(config)
        self.post_init()

    @classmethod
    def describe(cls, classifier, size) -> dict:
        """Dense features are needed where they tell pixels apart that matter: about 64 cells a side."""
        return {"finest": max(s for s in FINEST if s == 1 or min(size) >= 48 * s)}

    def attribute(
        self, pixel_values: torch.Tensor, maps: list[torch.Tensor], targets: torch.Tensor, slopes=None
    ) -> torch.Tensor:
        slopes = self.slopes(pixel_values, targets) if slopes is None else slopes
        return self.head(pixel_values, maps, targets, slopes if slopes is None else slopes.to(pixel_values.dtype))

    def finish(self, attributions: torch.Tensor) -> torch.Tensor:
        return add_neighborhood(attributions, self.config.neighborhood)

    def slopes(self, pixel_values: torch.Tensor, targets: torch.Tensor) -> torch.Tensor | None:
        """What only a hybrid reads, (B, T, R, H, W)."""
        if not self.config.hybrid:
            return None
        return slopes(self.require_classifier(), pixel_values, targets, self.config.slope_references)


def add_neighborhood(maps: torch.Tensor, size: int) -> torch.Tensor:
    """The sum of maps (B, T, H, W) and of their means over size x size pixels, each of mean 0 and deviation 1.

    So an object counts for more than a stray pixel. Means at the border are of the pixels that are there; with size 1
    the maps stay as they are.
    """
    if size == 1:
        return maps
    means = F.avg_pool2d(maps, (size, 1), 1, (size // 2, 0), count_include_pad=False)
    means = F.avg_pool2d(means, (1, size), 1, (0, size // 2), count_include_pad=False)
    return standardize(maps) + standardize(means)


def standardize(maps: torch.Tensor) -> torch.Tensor:
    maps = maps - maps.mean((2, 3), keepdim=True)
    return maps / maps.square().mean((2, 3), keepdim=True).sqrt().clamp(min=torch.finfo(maps.dtype).tiny)


RankingExplainerForImageClassification.register_for_auto_class("AutoModel")
