"""What an untrained explainer begins with: a config that says all of its classifier that a checkpoint has to."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import logging

from .classifier import Classifier
from .configuration_explainer import ExplainerConfig
from .errors import ExplainerError
from .feature_maps import probe
from .frozen_models import describe_classifier, load_backbone_source

logger = logging.get_logger(__name__)


def make_config(cls, classifier: Classifier, backbone, head: dict, hub: dict, token: dict):
    """(config of an explainer of class `cls`, second model or None); `head` holds the options of its head."""
    size, space, labels = classifier.size, classifier.pixel_space, dict(classifier.id2label)
    if space is None:
        kind = type(classifier.model).__name__
        logger.warning(f"no image processor was found for {kind}; the pipeline will need one: give image_processor=.")
    if head.get("hybrid") and space is None:
        raise ExplainerError(
            "hybrid=True shows the classifier black and white pictures, but how its image processor writes colors "
            "is unknown; give image_processor=."
        )
    if backbone is None:
        features, reference = classifier.probe(size), describe_classifier(classifier, token)
    else:
        classifier.check_blank()
        backbone, description = load_backbone_source(backbone, hub, space)
        features, reference = probe(backbone, size)[1], describe_classifier(classifier, token) | description
    config = cls.config_class(
        **reference,
        **(cls.describe(classifier, size) | head),
        id2label=labels,
        label2id={label: index for index, label in labels.items()},
        problem_type=getattr(classifier.config, "problem_type", None),
        pixel_space=space.to_dict() if space else None,
        image_size=list(size),
        feature_maps=[f.to_dict() for f in cls.choose(features)],
    )
    return config, backbone


def head_options(cls, preset: str, options: dict) -> dict:
    """The preset's values of the head, with `options` in their place."""
    if preset not in cls.presets:
        known = ", ".join(cls.presets) or "none: call it on RankingExplainerForImageClassification"
        raise ExplainerError(f"{cls.__name__} has no preset {preset!r}; choose from {known}.")
    shared = {field.name for field in dataclasses.fields(ExplainerConfig)}
    own = {field.name for field in dataclasses.fields(cls.config_class)} - (shared - set(cls.shared_options))
    if unknown := set(options) - own:
        raise ExplainerError(
            f"unknown option {', '.join(sorted(unknown))} of {cls.__name__}; its head has {', '.join(sorted(own))}."
        )
    return cls.presets[preset] | options


@torch.no_grad()
def initialize(module: nn.Module) -> None:
    """A layer's weights as a head begins with them."""
    if isinstance(module, nn.Conv2d):
        init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        init.normal_(module.weight, std=module.in_features**-0.5)
    elif isinstance(module, nn.Embedding):
        init.normal_(module.weight)
    elif isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
        init.ones_(module.weight)
    if getattr(module, "bias", None) is not None:
        init.zeros_(module.bias)
