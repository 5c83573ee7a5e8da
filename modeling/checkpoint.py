"""What a checkpoint of an explainer holds besides the head, and how it is read back: class, head, frozen models."""

from __future__ import annotations

import os
from contextlib import contextmanager

import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers.utils import logging

from .classifier import Classifier, as_classifier, load_image_processor
from .errors import ExplainerError
from .frozen_models import (
    check_fingerprint,
    first_sentence,
    is_local,
    load_backbone,
    load_classifier,
    name_of,
    require_safetensors,
    vision_tower,
)

logger = logging.get_logger(__name__)

PUSH_ARGUMENTS = (
    "repo_id", "private", "token", "revision", "commit_message", "commit_description", "create_pr", "tags"
)  # fmt: skip


def find_class(base, name, hub: dict, kwargs: dict):
    """The explainer class of the checkpoint `name`, from the Auto mapping."""
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


def decide_inclusion(explainer, asked: bool | None) -> bool:
    """Whether the classifier is saved inside: as asked, else if it was before or could not be found again."""
    config = explainer.config
    if explainer.classifier is None:
        if asked:
            raise ExplainerError(
                "include_classifier=True, but this explainer was loaded without its classifier; load it with "
                "load_classifier=True."
            )
        return False
    named = config.classifier_name_or_path and (explainer.backbone is None or config.backbone_name_or_path)
    if asked is False and not named:
        raise ExplainerError(
            f"{type(explainer.classifier.model).__name__} has no Hub id or folder by which it could be found again; "
            "save with include_classifier=True."
        )
    if asked is None and not named and not config.classifier_included:
        logger.info("the classifier has no name by which it could be found again, so it is saved in classifier/.")
    return bool(asked if asked is not None else config.classifier_included or not named)


@contextmanager
def config_to_save(explainer, save_directory, include: bool):
    """The config as the file must have it: models saved inside have no folder of this machine, and their dtype now."""
    config = explainer.config
    changes: dict[str, str | bool | None] = {}
    if include:
        names = [f"{role}_name_or_path" for role in ("classifier", "backbone")]
        changes.update({name: None for name in names if is_local(getattr(config, name))})
        changes["classifier_dtype"] = str(explainer.classifier.dtype).removeprefix("torch.")
        if explainer.backbone is not None:
            changes["backbone_dtype"] = str(explainer.backbone.dtype).removeprefix("torch.")
    if explainer.classifier is not None:
        changes["classifier_included"] = include
    elif config.classifier_included and not os.path.isdir(os.path.join(save_directory, "classifier")):
        raise ExplainerError(
            f"this {type(explainer).__name__} was loaded without the classifier that belongs inside its checkpoint, so "
            "it can only be saved where that is; load it with load_classifier=True."
        )
    before = {key: getattr(config, key) for key in changes}
    try:
        config.update(changes)
        yield
    finally:
        config.update(before)


def save_frozen(explainer, save_directory, include: bool) -> None:
    """The image processor, and the frozen models if they are to be inside."""
    if include:
        explainer.classifier.model.save_pretrained(os.path.join(save_directory, "classifier"))
        if explainer.backbone is not None:
            explainer.backbone.save_pretrained(os.path.join(save_directory, "backbone"))
    if explainer.image_processor is not None:
        explainer.image_processor.save_pretrained(save_directory)


def refuse_local_reference(explainer, include: bool) -> None:
    for role in ("classifier", "backbone"):
        name = getattr(explainer.config, f"{role}_name_or_path")
        if not include and is_local(name):
            raise ExplainerError(
                f"the {role} of this explainer is the local folder {name!r}, which nobody else has; push with "
                "include_classifier=True, or make the explainer from a Hub id."
            )
