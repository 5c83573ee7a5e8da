"""LTX, "Learning to Explain" (arXiv 2310.16584): a copy of the classifier learns which part of a picture is enough.

The copy's last map becomes a mask by a small head; the picture, multiplied by the mask, must still be classified alike.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification
from transformers import initialization as init

from .configuration_explainer import LTX_PRESETS, LtxExplainerConfig
from .errors import ExplainerError
from .feature_maps import read_features
from .model_call import call
from .modeling_explainer import ExplainerForImageClassification


class ClassWeights(nn.Embedding):
    """How much more each channel weighs for a class; 0 at first, so that all classes are alike until training."""


class LtxHead(nn.Module):
    """The copied classifier, its trunk, and what turns its last map (B, C, h, w) into scores of each class."""

    def __init__(self, config: LtxExplainerConfig):
        super().__init__()
        feature = config.read_maps()[0]
        channels, tokens = feature.channels, feature.layout == "tokens"
        if config.trunk_config is None:
            raise ExplainerError("the config has no trunk_config; make explainers with from_classifier(...).")
        self.trunk = AutoModelForImageClassification.from_config(AutoConfig.for_model(**config.trunk_config))
        self.mix = nn.Conv2d(channels, channels, 1) if tokens else None
        self.classes = ClassWeights(config.num_labels, channels) if config.class_conditional else None
        self.score = nn.Conv2d(channels, 1, 1)

    def forward(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Logits of the mask, (B, T, h, w)."""
        if self.mix is not None:
            features = torch.tanh(self.mix(features))
        if self.classes is None:
            return self.score(features).expand(-1, targets.shape[1], -1, -1)
        weight = self.score.weight[:, :, 0, 0] * (1 + self.classes(targets))  # (B, T, C)
        masks = torch.einsum("btc,bchw->bthw", weight, features)
        return masks if self.score.bias is None else masks + self.score.bias


class LtxExplainerForImageClassification(ExplainerForImageClassification):
    """Masks of what is enough for a class, from a trainable copy of the classifier.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> explainer = LtxExplainerForImageClassification.from_classifier(random_classifier())
    >>> explainer(torch.rand(1, 3, 32, 32), targets=torch.tensor([[0, 3]])).attributions.shape
    torch.Size([1, 2, 32, 32])
    """

    config_class = LtxExplainerConfig
    config: LtxExplainerConfig
    presets = LTX_PRESETS
    shared_options = ("class_conditional",)

    def __init__(self, config: LtxExplainerConfig):
        super().__init__(config)
        self.head = LtxHead(config)
        self.post_init()

    @classmethod
    def from_classifier(cls, classifier, image_processor=None, backbone=None, preset="small", seed=0, **options):
        """As of every explainer; the copy begins with the classifier's weights."""
        if backbone is not None:
            raise ExplainerError(f"{cls.__name__} reads a copy of the classifier itself; omit backbone=.")
        explainer = super().from_classifier(classifier, image_processor, None, preset, seed, **options)
        explainer.head.trunk.load_state_dict(explainer.classifier.model.state_dict())
        explainer.freeze_stem()
        return explainer

    @classmethod
    def choose(cls, features):
        """The last hidden state."""
        return features[-1:]

    @classmethod
    def describe(cls, classifier, size) -> dict:
        config = classifier.model.config
        values = {name: value for name, value in config.to_dict().items() if name not in ("dtype", "torch_dtype")}
        return {"trunk_config": values | {"model_type": config.model_type}}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        if isinstance(module, ClassWeights):
            init.zeros_(module.weight)
            return
        super()._init_weights(module)
        if module is self.head.score:  # one half everywhere: a mask that is 0 or 1 already would learn nothing
            init.zeros_(module.weight)
        elif module is self.head.mix:
            init.normal_(module.weight, std=module.in_channels**-0.5)

    def freeze_stem(self) -> None:
        """Embeddings and the unused classification layer of the copy do not learn."""
        for name, parameter in self.head.trunk.named_parameters():
            parts = name.split(".")
            parameter.requires_grad_(not (set(parts) & {"embeddings", "embeddings_norm"} or parts[0] in UNUSED))

    def join(self, classifier, backbone=None):
        super().join(classifier, backbone)
        self.freeze_stem()
        return self

    def train(self, mode: bool = True):
        """The copy stays in eval mode: no dropout, no statistics of batches, as published."""
        super().train(mode)
        self.head.trunk.eval()
        return self

    def read(self, pixel_values: torch.Tensor):
        """(logits, nothing): the copy looks for itself."""
        classifier = self.require_classifier()
        output = call(classifier.model, pixel_values.to(classifier.dtype))
        return classifier.check_logits(getattr(output, "logits", None)), []

    def attribute(self, pixel_values: torch.Tensor, maps: list[torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
        return self.enlarge(self.mask_logits(pixel_values, targets).sigmoid(), pixel_values)

    def mask_logits(self, pixel_values: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """(B, T, h, w), as coarse as the copy's last map."""
        features = read_features(self.head.trunk, pixel_values, self._maps)[1][0]
        return self.head(features, targets)

    @staticmethod
    def enlarge(masks: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        return F.interpolate(masks, size=tuple(pixel_values.shape[-2:]), mode="bilinear", align_corners=False)


UNUSED = ("classifier", "head", "distillation_classifier", "cls_classifier")
LtxExplainerForImageClassification.register_for_auto_class("AutoModel")
