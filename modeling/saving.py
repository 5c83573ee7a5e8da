"""What of an explainer is written besides its head, to a folder or to the Hub."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager

from transformers.utils import logging
from transformers.utils.hub import hf_api

from .errors import ExplainerError
from .frozen_models import is_local
from .model_card import card_to_push

logger = logging.get_logger(__name__)

PUSH_ARGUMENTS = (
    "repo_id", "private", "token", "revision", "commit_message", "commit_description", "create_pr", "tags"
)  # fmt: skip


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


def push(explainer, repo_id: str, include: bool, save, *, private, token, revision, tags, commit: dict) -> str:
    """Uploads what `save(folder)` writes, and a card if there is none yet; returns the commit's address."""
    refuse_local_reference(explainer, include)
    repo_id = hf_api().create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
    card = card_to_push(explainer, repo_id, include, tags, revision, token)
    with tempfile.TemporaryDirectory() as folder:
        save(folder)
        card.save(os.path.join(folder, "README.md"))
        return explainer._upload_modified_files(folder, repo_id, {}, token=token, revision=revision, **commit)
