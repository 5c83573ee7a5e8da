"""The state of a run: its step, the weights and the optimizer there, its checkpoints, its best head."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from transformers.utils import logging

from ..jobs.folders import clean, remove
from ..jobs.processes import Processes
from ..modeling.errors import ExplainerError
from .checkpoints import (
    RunState,
    checkpoints,
    find_checkpoint,
    folder_of,
    load_checkpoint,
    save_checkpoint,
    save_explainer,
    step_of,
)
from .config import DECISIVE, TrainingConfig

logger = logging.get_logger(__name__)


class Run:
    """What a training loop goes on from: the head's weights, the optimizer, the step, and the best head so far."""

    def __init__(
        self, explainer, dataset, config: TrainingConfig, output_dir: Path | None, processes: Processes, eval_dataset
    ):
        self.explainer, self.config, self.output_dir, self.processes = explainer, config, output_dir, processes
        self.objective = config.objective_for(explainer)
        self.settings = decisive_settings(explainer, dataset, config, processes)
        groups = self.objective.groups(explainer)
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self.optimizer = torch.optim.AdamW(groups, config.learning_rate, weight_decay=config.weight_decay)
        self.best_head: dict[str, torch.Tensor] | None = None
        batch = config.per_device_train_batch_size
        self.state = RunState(0, batch, batch, trained_before=explainer.config.trained_steps)
        self.checkpoint = find_checkpoint(output_dir, config.resume_from_checkpoint)
        processes.wait()  # nobody may look for a checkpoint when somebody begins to write
        if output_dir and processes.is_main:
            output_dir.mkdir(parents=True, exist_ok=True)
            clean(output_dir)
        if self.checkpoint:
            self.state, self.best_head = load_checkpoint(self.checkpoint, explainer, self.optimizer, self.settings)
            if self.state.asked_batch != batch:  # another machine
                self.state.asked_batch = self.state.micro_batch = batch
            logger.info(f"going on from step {self.state.step}, {self.checkpoint}.")
        elif config.resume_from_checkpoint:
            logger.warning(f"{output_dir} holds no checkpoint yet, so the training begins at step 0.")
        self.compare_with(eval_dataset)
        processes.wait()  # nobody may still read a checkpoint when it is removed
        if self.checkpoint and output_dir and processes.is_main:
            later = [folder for folder in checkpoints(output_dir) if step_of(folder) > self.state.step]
            for folder in later:  # from there the run goes another way
                remove(folder)
            if later:
                names = ", ".join(folder.name for folder in later)
                logger.warning(f"{names} removed, as the run goes on from step {self.state.step} anew.")
        processes.share_weights(self.parameters)

    def compare_with(self, eval_dataset) -> None:
        """Forgets the best head where the scores to come are of another kind than its own."""
        now = {
            "eval_references": [*map(str, self.config.eval_references)],
            "eval_budgets": self.config.eval_budgets,
            "eval pictures": 0 if eval_dataset is None else len(eval_dataset),
        }
        state, before = self.state, self.state.judged_by
        if state.step >= self.config.max_steps and state.best_score is not None:  # there are none to come
            return
        if state.best_score is not None and before != now:
            if self.processes.is_main:
                changes = ", ".join(
                    f"{key}={before.get(key)} is now {now[key]}" for key in now if before.get(key) != now[key]
                )
                logger.warning(
                    f"the best score so far, {state.best_score:.3f} at step {state.best_step}, is forgotten, as those "
                    f"to come cannot be compared with it: {changes}."
                )
            state.best_score = state.best_step = self.best_head = None
        state.judged_by = now

    def keep_if_best(self, score: float) -> None:
        """Makes the present head the best one, at the top of the output folder, if `score` is the lowest so far."""
        if not math.isfinite(score):
            if self.processes.is_main:
                logger.warning(f"step {self.state.step}: the held-out score is {score}, so this head is not kept.")
            return
        if self.state.best_score is not None and score >= self.state.best_score:
            return
        self.state.best_score, self.state.best_step = score, self.state.step
        self.best_head = {k: v.detach().cpu().clone() for k, v in self.explainer.head.state_dict().items()}
        self.save_explainer(self.state.step)

    def save_explainer(self, step: int) -> None:
        self.explainer.config.trained_steps = self.state.trained_before + step
        if self.output_dir and self.processes.is_main:
            save_explainer(self.output_dir, self.explainer, self.config.include_classifier or None)

    def save(self, stream) -> None:
        """Writes a checkpoint; `stream` is this process' place in its stream."""
        self.state.streams = self.processes.gather_lists([stream])
        if not self.output_dir:
            return
        folder = folder_of(self.output_dir, self.state.step)
        self.explainer.config.trained_steps = self.state.trained_before + self.state.step
        if self.processes.is_main:
            save_checkpoint(folder, self.explainer, self.optimizer, self.best_head, self.state, self.settings)
            for old in checkpoints(self.output_dir)[: -self.config.save_total_limit]:
                remove(old)
        self.checkpoint = folder
        self.processes.wait()

    def finish(self) -> None:
        """Leaves the best head in the explainer and at the top of the output folder."""
        if self.best_head is not None:
            self.explainer.head.load_state_dict(self.best_head)
        else:
            self.state.best_step = self.state.step
        self.save_explainer(self.state.best_step or 0)
        self.processes.wait()


def decisive_settings(explainer, dataset, config: TrainingConfig, processes: Processes) -> dict:
    """What decides about the weights, which a run that goes on must have in common with its checkpoint."""
    per_process = config.per_device_train_batch_size * config.gradient_accumulation_steps
    found = {name: getattr(config, name) for name in DECISIVE}
    found |= {"global batch": per_process * processes.world, "objective": vars(config.objective_for(explainer))}
    for role in ("classifier", "backbone"):
        found[role] = getattr(explainer.config, f"{role}_fingerprint")
    if hasattr(dataset, "__len__"):
        found["pictures"] = len(dataset)
    else:
        found["processes that read the stream"] = processes.world
    return found


def require_float32(explainer) -> None:
    dtype = next(explainer.head.parameters()).dtype
    if dtype != torch.float32:
        raise ExplainerError(
            f"the head is in {dtype}, in which small steps are lost; load it in float32, and lower the classifier's "
            "precision with mixed_precision='bf16'."
        )
