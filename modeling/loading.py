"""How an explainer is read back: its class, its head, the frozen models that its config names."""

from __future__ import annotations

import os

import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig

from .classifier import HUB_ARGUMENTS, Classifier, as_classifier, load_image_processor, pin
from .errors import ExplainerError
from .frozen_models import (
    check_fingerprint,
    first_sentence,
    load_backbone,
    load_classifier,
    name_of,
    require_safetensors,
    vision_tower,
)
from .schemes import scheme_of


def load_explainer(cls, load, name, args: tuple, kwargs: dict, *, classifier, backbone, with_classifier: bool):
    """(explainer of class `cls`, loading info); `load` is transformers' own `from_pretrained` of that class."""
    hub = of_hub(kwargs)
    if name is not None and kwargs.get("config") is None:
        require_own_config(cls, name, hub, kwargs)
    asked = take_attention(kwargs)
    explainer, info = load_head(load, name, args, hub, kwargs)
    if with_classifier or classifier is not None:
        dtype, subfolder = kwargs.get("dtype", kwargs.get("torch_dtype")), kwargs.get("subfolder") or ""
        attach_referenced(explainer, name, subfolder, hub, classifier, backbone, dtype, asked)
    return explainer, info


def of_hub(kwargs: dict) -> dict:
    """Those of the arguments that say where on the Hub, and with whose token."""
    return {k: kwargs[k] for k in HUB_ARGUMENTS if k in kwargs}


def pinned(name, kwargs: dict) -> dict:
    """The arguments with the commit that the Hub id `name` stands for now."""
    if scheme_of(name):
        raise ExplainerError(
            f"{name} is a classifier, not an explainer; make one for it with "
            "RankingExplainerForImageClassification.from_classifier(...)."
        )
    return kwargs if name is None else kwargs | pin(name, of_hub(kwargs))


def find_class(base, name, kwargs: dict):
    """The explainer class of the checkpoint `name`, from the Auto mapping."""
    hub = of_hub(kwargs)
    config = kwargs.get("config") or AutoConfig.from_pretrained(name, subfolder=kwargs.get("subfolder") or "", **hub)
    actual = AutoModel._model_mapping.get(type(config), None)
    if actual is None or not issubclass(actual, base):
        raise ExplainerError(
            f"{name} holds a {config.model_type!r} model, not an explainer; make one for it with "
            "RankingExplainerForImageClassification.from_classifier(...)."
        )
    return actual


def require_own_config(cls, name, hub: dict, kwargs: dict) -> None:
    """Refuses a checkpoint of another kind, whose config would be read as if it were ours."""
    values, _ = PreTrainedConfig.get_config_dict(name, subfolder=kwargs.get("subfolder") or "", **hub)
    found, own = values.get("model_type"), cls.config_class.model_type
    if found != own:
        raise ExplainerError(
            f"{name} holds a {found!r} model, not a {cls.__name__}; load an explainer with "
            "ExplainerForImageClassification.from_pretrained(...), or make one with from_classifier(...)."
        )


def take_attention(kwargs: dict) -> str | None:
    """The attention implementation asked for, which is meant for the classifier.

    An Auto class moves it into the config it passes on, where "sdpa" is also what every loaded config says by itself.
    """
    asked = getattr(kwargs.get("config"), "_attn_implementation", None)
    return kwargs.pop("attn_implementation", None) or (None if asked == "sdpa" else asked)


def load_head(load, name, args, hub: dict, kwargs: dict):
    """(explainer without classifier, loading info), complete and finite; `load` is transformers' own."""
    if kwargs.pop("use_safetensors", None) is False:
        raise ExplainerError(
            "use_safetensors=False was given, but explainers are only read from model.safetensors; leave it out."
        )
    if name is not None and not kwargs.get("state_dict") and not kwargs.get("variant"):
        require_safetensors(name, kwargs.get("subfolder") or "", hub)
    # Sizes that differ are refused below, in one sentence.
    strict = {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        explainer, info = load(name, *args, **{**kwargs, **strict})
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise ExplainerError(
            f"the weights of {name} are damaged ({first_sentence(error)}); download or save them again."
        ) from error
    if lost := [*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]:
        raise ExplainerError(
            f"{name} lacks {len(lost)} tensors of the head, {min(lost)} among them; its weights belong to another "
            "config, save it again with save_pretrained(...)."
        )
    for key, parameter in explainer.named_parameters():
        if not parameter.is_meta and not torch.isfinite(parameter).all():
            raise ExplainerError(
                f"the weights of {name} hold NaN or infinite values ({key}); the training that made them failed, load "
                "an earlier checkpoint."
            )
    return explainer, info


def attach_referenced(explainer, name, subfolder, hub, classifier, backbone, dtype, attention) -> None:
    """Loads the frozen models a checkpoint refers to, or verifies the given ones, and joins them to the head."""
    config, loading = explainer.config, {"attn_implementation": attention} if attention else {}
    dtypes = {role: getattr(torch, getattr(config, f"{role}_dtype")) for role in ("classifier", "backbone")}
    cast = {"dtype": getattr(torch, dtype) if isinstance(dtype, str) else dtype} if dtype not in (None, "auto") else {}
    device = explainer.device
    processor = None
    if name is not None and not isinstance(classifier, Classifier):
        processor = load_image_processor(name, subfolder=subfolder, trust_remote_code=False, **hub)
    if classifier is None:
        if not config.classifier_included and not config.classifier_name_or_path:
            raise ExplainerError(f"{name} names no classifier; give the one it was made for with classifier=.")
        classifier = load_classifier(config, name, subfolder, hub, processor, loading | {"dtype": dtypes["classifier"]})
        classifier.to(device=device, **cast)
    elif isinstance(classifier, (str, os.PathLike)):
        where = {k: v for k, v in hub.items() if k != "revision"} | {"trust_remote_code": False}
        classifier = as_classifier(classifier, processor, where | loading | {"dtype": dtypes["classifier"]})
        check_fingerprint(classifier.model, config.classifier_fingerprint, "classifier", classifier.name_or_path)
        classifier.to(device=device, **cast)
    else:  # a model of the user's stays where and as it is; the head goes there
        classifier = as_classifier(classifier, None if isinstance(classifier, Classifier) else processor)
        check_fingerprint(classifier.model, config.classifier_fingerprint, "classifier", name_of(classifier.model))
        device = classifier.device
        explainer.to(device)
    if not config.backbone_fingerprint and backbone is not None:
        raise ExplainerError(f"backbone= was given, but {name} reads its classifier only; leave backbone out.")
    if config.backbone_fingerprint and backbone is None:
        backbone = load_backbone(config, name, subfolder, hub, loading | {"dtype": dtypes["backbone"]})
        backbone = backbone.to(device=device, **cast)
    elif backbone is not None:
        backbone = vision_tower(backbone)
        check_fingerprint(backbone, config.backbone_fingerprint, "backbone", name_of(backbone))
    explainer.join(classifier, backbone)
