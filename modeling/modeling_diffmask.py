"""Vision DiffMask (arXiv 2304.06391): the fewest patches that leave the classifier's output as it is.

Gates read every hidden state and vote on every cell of the stem's map, the first thing a classifier makes of a picture;
a cell stays if all layers vote for it. On constant-length encoders the stem is the patch projection, as published;
where stages change the resolution their states are resized to the stem's grid, which is an extension of our own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

from .classifier import Classifier
from .configuration_explainer import DIFFMASK_PRESETS, DiffMaskExplainerConfig
from .errors import ExplainerError
from .feature_maps import read_features
from .gates import Gate, WeightNormLinear, log_open
from .hooks import hooked, watched
from .modeling_explainer import ExplainerForImageClassification


@dataclass(frozen=True)
class Votes:
    """What each layer says of each cell.

    Args:
        layers: probability that a layer's gate is open, (B, layers, h, w).
        kept: that all are, (B, h, w).
        logits: of the classifier, (B, num_labels).
    """

    layers: torch.Tensor
    kept: torch.Tensor
    logits: torch.Tensor


class DiffMaskHead(nn.Module):
    """A gate per hidden state, what stands for a closed cell, and the multipliers of the training's constraint."""

    def __init__(self, config: DiffMaskExplainerConfig):
        super().__init__()
        channels = [config.stem_channels, *(m.channels for m in config.read_maps())]
        first, options = channels[0], (config.gate_scale, config.gate_start)
        self.gates = nn.ModuleList(Gate(first + one, max(4, (first + one) // 8), *options) for one in channels)
        self.placeholder = nn.Parameter(torch.empty(first))
        self.multipliers: torch.Tensor
        self.register_buffer("multipliers", torch.full((len(channels),), float(config.multiplier)))

    def forward(self, stem: torch.Tensor, states: list[torch.Tensor]) -> torch.Tensor:
        """Locations of the gates (B, layers, h, w), from maps (B, C, h, w)."""
        found = [self.locate(layer, stem, state) for layer, state in enumerate([stem, *states])]
        return torch.stack(found, 1)

    def locate(self, layer: int, stem: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        size = tuple(stem.shape[-2:])
        if tuple(state.shape[-2:]) != size:
            state = F.interpolate(state, size=size, mode="bilinear", align_corners=False)
        both = torch.cat([stem, state], 1).flatten(2).transpose(1, 2)
        return self.gates[layer](both).unflatten(1, size)


class DiffMaskExplainerForImageClassification(ExplainerForImageClassification):
    """Gates learned to close wherever the classifier's output allows it. It explains the prediction only.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> explainer = DiffMaskExplainerForImageClassification.from_classifier(random_classifier())
    >>> explainer(torch.rand(1, 3, 32, 32)).attributions.shape
    torch.Size([1, 32, 32])
    """

    config_class = DiffMaskExplainerConfig
    config: DiffMaskExplainerConfig
    presets = DIFFMASK_PRESETS

    def __init__(self, config: DiffMaskExplainerConfig):
        super().__init__(config)
        self.head = DiffMaskHead(config)
        self.post_init()

    @classmethod
    def choose(cls, features):
        """All hidden states, not one per resolution."""
        return features

    @classmethod
    def describe(cls, classifier: Classifier, size) -> dict:
        path, channels = find_stem(classifier, size)
        return {"stem": path, "stem_channels": channels}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, Gate):
            init.constant_(module.start, float(self.config.gate_start))
        elif isinstance(module, WeightNormLinear):
            init.normal_(module.weight)
            init.constant_(module.length, 0.5)
            init.zeros_(module.bias)
        elif isinstance(module, DiffMaskHead):
            init.normal_(module.placeholder, std=(2 / (1 + len(module.placeholder))) ** 0.5)
            init.constant_(module.multipliers, float(self.config.multiplier))

    def read(self, pixel_values: torch.Tensor):
        """(logits, the stem's map and all hidden states)."""
        classifier, kept = self.require_classifier(), []
        pixel_values = pixel_values.to(classifier.dtype)

        def keep(module, inputs, output) -> None:
            kept.append(output)

        with hooked((classifier.model.get_submodule(self.config.stem), keep)):
            output, maps = read_features(classifier.model, pixel_values, self._maps)
        return classifier.check_logits(getattr(output, "logits", None)), [kept[0], *maps]

    def attribute(self, pixel_values: torch.Tensor, maps: list[torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
        kept = log_open(self.head(maps[0], maps[1:])).sum(1, keepdim=True).exp()
        return F.interpolate(kept, size=tuple(pixel_values.shape[-2:]), mode="nearest")

    @torch.no_grad()
    def votes(self, pixel_values: torch.Tensor) -> Votes:
        """What each layer says alone, and what all say together."""
        logits, maps = self.read(pixel_values)
        maps = [one.to(self.head_dtype) for one in maps]
        opened = log_open(self.head(maps[0], maps[1:])).float()
        return Votes(opened.exp(), opened.sum(1).exp(), logits)

    def classify_gated(self, pixel_values: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """The classifier's logits with each cell of the stem as open as `gates` (B, h, w); the rest is placeholder."""
        classifier = self.require_classifier()

        def splice(module, inputs, output):
            open_, instead = gates[:, None].to(output), self.head.placeholder.to(output).view(1, -1, 1, 1)
            return torch.where(open_ == 1, output, open_ * output + (1 - open_) * instead)

        with hooked((classifier.model.get_submodule(self.config.stem), splice)):
            return classifier(pixel_values)


@torch.no_grad()
def find_stem(classifier: Classifier, size) -> tuple[str, int]:
    """The convolution that first sees the picture, and its channels."""
    seen: list[tuple[str, int]] = []

    def look(path: str, inputs, output) -> None:
        if inputs and isinstance(output, torch.Tensor) and inputs[0].ndim == 4 and inputs[0].shape[1] == 3:
            seen.append((path, output.shape[1]))

    paths = [(path, m) for path, m in classifier.model.named_modules() if isinstance(m, nn.Conv2d)]
    with hooked(*watched(paths, look)):
        classifier(torch.zeros(1, 3, *size, device=classifier.device))
    if not seen:
        raise ExplainerError(
            f"no convolution of {type(classifier.model).__name__} sees the picture, so there are no cells to gate; use "
            "RankingExplainerForImageClassification."
        )
    return seen[0]


DiffMaskExplainerForImageClassification.register_for_auto_class("AutoModel")
