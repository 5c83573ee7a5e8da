"""The learned ranking explainer: every pixel's place in the order of importance, for any class, in one forward pass."""

from __future__ import annotations

import torch
from torch import nn

from .configuration_explainer import RANKING_PRESETS, RankingExplainerConfig
from .decoder import ClassMaps, PixelDecoder
from .modeling_explainer import ExplainerForImageClassification


class RankingHead(nn.Module):
    """Class-free features of the decoder, dotted with one vector per class."""

    def __init__(self, config: RankingExplainerConfig):
        super().__init__()
        maps = config.read_maps()
        strides = [max(m.stride) for m in maps]
        shape = (config.hidden_size, config.pixel_size, config.num_blocks)
        self.decoder = PixelDecoder([m.channels for m in maps], strides, *shape)
        self.class_maps = ClassMaps(config.num_labels, config.hidden_size, self.decoder.widths)

    def forward(self, pixel_values: torch.Tensor, maps: list[torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
        return self.class_maps(self.decoder(pixel_values, maps), targets)


class RankingExplainerForImageClassification(ExplainerForImageClassification):
    """Learned by optimizing deletion and insertion directly: "Learn to Rank" (arXiv 2604.05819) on own features."""

    config_class = RankingExplainerConfig
    config: RankingExplainerConfig
    presets = RANKING_PRESETS

    def __init__(self, config: RankingExplainerConfig):
        super().__init__(config)
        self.head = RankingHead(config)
        self.post_init()

    def attribute(self, pixel_values: torch.Tensor, maps: list[torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
        return self.head(pixel_values, maps, targets)


RankingExplainerForImageClassification.register_for_auto_class("AutoModel")
