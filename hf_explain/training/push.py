"""Pushing a trained explainer: what can be known to fail is found out before the training."""

from __future__ import annotations

import os

from transformers.utils.hub import hf_api

from ..modeling.errors import ExplainerError
from ..modeling.saving import decide_inclusion, refuse_local_reference
from .config import TrainingConfig


def repository(config: TrainingConfig, output_dir: str | None) -> str:
    if config.hub_model_id is None and output_dir is None:
        raise ExplainerError("push_to_hub needs a name for the repository; give hub_model_id.")
    return config.hub_model_id or os.path.basename(os.path.abspath(output_dir or ""))


def check_push(explainer, config: TrainingConfig, output_dir: str | None, is_main: bool) -> None:
    """Refuses what could not be loaded by others, and makes the repository, which needs a token that may."""
    name = repository(config, output_dir)
    refuse_local_reference(explainer, decide_inclusion(explainer, config.include_classifier or None))
    if is_main:
        hf_api().create_repo(name, private=config.hub_private or None, exist_ok=True)


def push(explainer, config: TrainingConfig, output_dir: str | None) -> str:
    """Pushes explainer, image processor and card; returns the commit's address."""
    return explainer.push_to_hub(
        repository(config, output_dir),
        include_classifier=config.include_classifier or None,
        private=config.hub_private or None,
    )
