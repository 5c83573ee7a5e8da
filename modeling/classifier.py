"""`Classifier`: a frozen model together with its labels, in the space its pictures live in."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification, PreTrainedModel
from transformers.utils import logging
from transformers.utils.hub import resolve_revision

from .errors import ExplainerError
from .feature_maps import FeatureMap, probe
from .model_call import call, configured_size
from .packing import packs
from .pixel_space import PixelSpace
from .schemes import find_scheme, scheme_of
from .targets import target_index

logger = logging.get_logger(__name__)

HUB_ARGUMENTS = ("revision", "token", "cache_dir", "local_files_only", "force_download", "proxies")


class Classifier(nn.Module):
    """An image classifier with its `PixelSpace` and labels: what every attribution and every perturbation needs.

    It never changes the model by being made or called; `freeze()` and `from_pretrained` switch gradients of the
    weights and training mode off.

    >>> from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil
    >>> model = ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, num_hidden_layers=1, num_labels=3))
    >>> classifier = Classifier(model, ViTImageProcessorPil(size={"height": 32, "width": 32}))
    >>> classifier(torch.zeros(2, 3, 32, 32)).shape, classifier.num_labels, classifier.pixel_space.gain
    (torch.Size([2, 3]), 3, (2.0, 2.0, 2.0))

    Args:
        model: an image classifier of transformers.
        image_processor: its processor. Without one, pictures cannot be read and colors have no meaning.
    """

    def __init__(self, model: PreTrainedModel, image_processor=None):
        super().__init__()
        kind, config = type(model).__name__, getattr(model, "config", None)
        if config is None or getattr(model, "main_input_name", "pixel_values") != "pixel_values":
            takes = getattr(model, "main_input_name", "no config and unknown inputs")
            raise ExplainerError(
                f"{kind} takes {takes}, but a picture classifier takes pixel_values; give an image classification "
                "model of transformers."
            )
        if getattr(config, "problem_type", None) == "regression":
            raise ExplainerError(
                f"{kind} is a regression head (problem_type='regression'), which has no class to explain; "
                "give a classifier with single-label, multi-label or one-logit classes."
            )
        channels = getattr(getattr(config, "vision_config", config), "num_channels", 3)
        if channels != 3:
            raise ExplainerError(
                f"{kind} takes {channels}-channel input, but pictures are RGB; give a classifier of RGB pictures."
            )
        self.model = model
        self.image_processor = image_processor
        self.pixel_space = PixelSpace.from_image_processor(image_processor) if image_processor is not None else None
        name = getattr(model, "name_or_path", None) or None
        self.name_or_path: str | None = os.path.abspath(name) if name and os.path.isdir(name) else name
        self.revision: str | None = None
        self.loaded = False  # by name, so that it is what the name says

    @classmethod
    def from_pretrained(cls, name, image_processor=None, **kwargs) -> Classifier:
        """The frozen classifier `name` (Hub id, folder or photos:...) with its image processor; loading arguments."""
        if named := find_scheme(name):
            processor = named.image_processor(name) if image_processor is None else image_processor
            classifier = cls(named.model(name, **kwargs), processor).freeze()
            classifier.loaded = True
            return classifier
        local = os.path.isdir(name)
        hub = pin(name, {k: kwargs.pop(k) for k in HUB_ARGUMENTS if k in kwargs})
        subfolder = kwargs.pop("subfolder", "")
        require_classifier_config(name, subfolder, hub, kwargs)
        model, info = AutoModelForImageClassification.from_pretrained(
            name, output_loading_info=True, subfolder=subfolder, **hub, **kwargs
        )
        if info["missing_keys"]:
            raise ExplainerError(
                f"{name} has no trained weights for {', '.join(sorted(info['missing_keys'])[:3])}, so its classes "
                f"would be random; give a checkpoint that was trained as {type(model).__name__}."
            )
        if image_processor is None:
            trust = {k: kwargs[k] for k in ("trust_remote_code",) if k in kwargs}
            image_processor = load_image_processor(name, subfolder=subfolder, **hub, **trust)
        classifier = cls(model, image_processor).freeze()
        classifier.loaded, classifier.name_or_path = True, os.path.abspath(name) if local else str(name)
        revision = hub.get("revision")
        classifier.revision = None if local else (getattr(revision, "resolved", None) or revision)
        return classifier

    def freeze(self) -> Classifier:
        """Eval mode and no gradients for the weights."""
        self.requires_grad_(False).eval()
        return self

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Logits (B, num_labels)."""
        parts = packs(self.model, pixel_values.to(self.dtype))
        logits = [self.check_logits(getattr(call(self.model, part), "logits", None)) for part in parts]
        return torch.cat(logits) if len(logits) > 1 else logits[0]

    def check_logits(self, logits):
        if logits is None or logits.ndim != 2:
            raise ExplainerError(
                f"{type(self.model).__name__} returns no (batch, num_labels) logits; give an image classifier of "
                "transformers (AutoModelForImageClassification)."
            )
        return logits

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Probabilities, by the head's problem type: softmax, or sigmoid for multi-label and one-logit heads."""
        return logits.float().sigmoid() if self.independent else logits.float().softmax(-1)

    @property
    def independent(self) -> bool:
        """Whether labels are judged each by itself, not one against the others."""
        return self.num_labels == 1 or getattr(self.config, "problem_type", None) == "multi_label_classification"

    @property
    def config(self):
        return self.model.config

    @property
    def dtype(self) -> torch.dtype:
        return next(p.dtype for p in self.model.parameters() if p.is_floating_point())

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def num_labels(self) -> int:
        return self.config.num_labels

    @property
    def id2label(self) -> dict[int, str]:
        return {int(index): str(label) for index, label in (self.config.id2label or {}).items()}

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what the image processor returns for a square picture."""
        if self.image_processor is None:
            return configured_size(self.config) or (224, 224)
        blank = np.zeros((256, 256, 3), np.uint8)
        shape = torch.as_tensor(self.image_processor(images=blank, return_tensors="pt")["pixel_values"]).shape
        return shape[-2], shape[-1]

    def probe(self, size=None) -> list[FeatureMap]:
        """One `FeatureMap` per hidden state, after checking that the logits of a blank picture are sane."""
        logits, features = probe(self.model, size or self.size)
        self.check_blank(logits)
        return features

    def check_blank(self, logits: torch.Tensor | None = None) -> None:
        """Raises unless the logits of a blank picture are finite and as many as the labels."""
        if logits is None:
            with torch.no_grad():
                logits = self(torch.zeros(1, 3, *self.size, device=self.device))
        kind, count = type(self.model).__name__, self.check_logits(logits).shape[1]
        if not torch.isfinite(logits).all():
            raise ExplainerError(
                f"{kind} returns NaN or infinite logits for a blank picture, so its weights are damaged; load them "
                "again or retrain."
            )
        if count != self.num_labels:
            raise ExplainerError(
                f"{kind} returns {count} logits, but its config names {self.num_labels} labels; correct "
                "config.id2label."
            )

    def target_index(self, target) -> int:
        """The class index of a label, a unique synonym of one ("tabby" of "tabby, tabby cat"), or an index."""
        return target_index(target, self.id2label, self.num_labels)


# ---- finding one ----


def is_path(name) -> bool:
    """Whether a name can only be that of a folder or file of this machine, whether it is there or not.

    >>> is_path("mine/"), is_path("./mine"), is_path("a/b/c"), is_path("owner/name")
    (True, True, True, False)
    """
    name = str(name)
    return os.path.isabs(name) or name.startswith((".", "~")) or name.endswith("/") or name.count("/") > 1


def pin(name, hub: dict) -> dict:
    """`hub` with the revision resolved to one commit, so that everything is read from one state of the repository."""
    if os.path.isdir(name) or scheme_of(name):
        return hub
    if os.path.isfile(name):
        raise ExplainerError(f"{name} is a file; give the folder it is in, or a Hub id.")
    if is_path(name):
        raise ExplainerError(f"there is no folder {str(name)!r}; give one that exists, or a Hub id.")
    asked = {k: hub[k] for k in ("token", "local_files_only", "cache_dir") if k in hub}
    return hub | {"revision": resolve_revision(str(name), hub.get("revision"), **asked)}


def require_classifier_config(name, subfolder: str, hub: dict, loading: dict) -> None:
    """Refuses what `AutoModelForImageClassification` would refuse with the names of all its classes."""
    trust = {k: loading[k] for k in ("trust_remote_code",) if k in loading}
    config = loading.get("config") or AutoConfig.from_pretrained(name, subfolder=subfolder, **hub, **trust)
    known = type(config) in AutoModelForImageClassification._model_mapping
    if not known and "AutoModelForImageClassification" not in (getattr(config, "auto_map", None) or {}):
        explained = " (of an explainer, explainer.classifier)" if "explainer" in config.model_type else ""
        raise ExplainerError(
            f"{name} holds a {config.model_type!r} model, which classifies no pictures; give an image "
            f"classifier{explained}."
        )


def load_image_processor(name, **kwargs):
    """The image processor saved with a model; None where there is none."""
    if named := find_scheme(name):
        return named.image_processor(name)
    if not kwargs.get("subfolder"):
        kwargs.pop("subfolder", None)
    try:
        return AutoImageProcessor.from_pretrained(name, **kwargs)
    except (OSError, ValueError, KeyError, ImportError) as error:
        logger.info(f"no image processor beside {name}: {error}")
        return None


def as_classifier(classifier, image_processor=None, loading: dict | None = None) -> Classifier:
    """A `Classifier` of a Hub id, a folder, a model or a `Classifier`."""
    if isinstance(classifier, (str, os.PathLike)):
        return Classifier.from_pretrained(os.fspath(classifier), image_processor, **(loading or {}))
    if loading:
        raise ExplainerError(
            f"{', '.join(loading)} was given with a {type(classifier).__name__} that is loaded already; load it that "
            "way, or give its Hub id or folder."
        )
    if isinstance(getattr(classifier, "classifier", None), Classifier):
        raise ExplainerError(f"{type(classifier).__name__} is an explainer; give its classifier, explainer.classifier.")
    if isinstance(classifier, Classifier):
        if image_processor is None or image_processor is classifier.image_processor:
            return classifier
        again = Classifier(classifier.model, image_processor)
        again.name_or_path, again.revision, again.loaded = (
            classifier.name_or_path,
            classifier.revision,
            classifier.loaded,
        )
        return again
    name = getattr(classifier, "name_or_path", None)
    if image_processor is None and name:
        image_processor = load_image_processor(name)
    return Classifier(classifier, image_processor)
