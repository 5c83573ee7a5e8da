"""The settings of a training run; `hf-explain train` has a flag for each."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch

from ..jobs.flags import setting
from ..modeling.errors import ExplainerError
from ..modeling.references import read_reference
from .kinds import KINDS, kind_of
from .objectives import Objective


@dataclass(frozen=True)
class TrainingConfig:
    """How a head is trained. The weights depend on nothing else, apart from the pictures and the head they begin with.

    >>> TrainingConfig(max_steps=500, references=("black", "blur")).learning_rate
    0.001
    """

    # the run
    seed: int = setting(0, "of the order of the pictures and of all random numbers of the objective")
    max_steps: int = setting(1000, "optimizer steps")
    per_device_train_batch_size: int = setting(16, "pictures per forward; halved by itself when memory runs out")
    gradient_accumulation_steps: int = setting(
        1, "of these batches per optimizer step; the global batch is the product of both and the number of processes"
    )
    # the optimizer
    learning_rate: float = setting(1e-3, "its peak, after the warmup; from there a half cosine to 0")
    weight_decay: float = setting(1e-3, "of AdamW")
    warmup_ratio: float = setting(0.06, "share of the steps in which the learning rate rises")
    max_grad_norm: float = setting(1.0, "gradients are clipped to this norm")
    # speed and memory
    mixed_precision: str = setting(
        "auto", '"no", "bf16", or "auto", bf16 on GPUs that compute in it; the classifier\'s, the head stays in float32'
    )
    gradient_checkpointing: bool = setting(False, "of the classifier: less memory, about a third more time")
    torch_compile: bool = setting(False, "compiles the classifier")
    torch_compile_backend: str = setting("inductor", "of torch.compile")
    # the objective
    objective: str = setting(
        "default",
        "preset of the objective: default, aha-release (of ranking) or ltx-release (of ltx); what follows changes "
        "single values of it, operator to noise those of ranking",
    )
    operator: str | None = setting(None, "sinkhorn, topk or coarse_to_fine")
    grids: tuple[int | str, ...] | None = setting(None, 'fewest and most cells per side; the second may be "pixels"')
    coarse: float | None = setting(
        None, "share of the run with these grids, all of it if they are given; the rest of it ranks single pixels"
    )
    budgets: int | None = setting(None, "points of the curves")
    sampled: int | None = setting(None, "budgets each picture draws for itself instead, 0 for none")
    references: tuple[str, ...] | None = setting(None, "what removed pixels become; one is drawn per step")
    tau: tuple[float, ...] | None = setting(None, "first and last temperature")
    noise: float | None = setting(None, "scale of the Gumbel noise")
    mask_weight: float | None = setting(None, "of ltx, what the mean of the mask costs beside the cross-entropy")
    counterfactual: float | None = setting(None, "of ltx, weight of what the mask hides no longer being classified so")
    divergence: float | None = setting(None, "of diffmask, how far the classifier's output may move on average")
    # evaluation and logging
    eval_steps: int = setting(
        100, "held-out deletion and insertion are measured every so many steps, and after the last one"
    )
    eval_references: tuple[str, ...] = setting(("mean", "blur"), "under each of these")
    eval_budgets: int = setting(11, "points of these curves")
    per_device_eval_batch_size: int = setting(32, "pictures per forward in evaluation")
    logging_steps: int = setting(10, "a line of training_log.jsonl, and of the trackers, every so many steps")
    report_to: tuple[str, ...] = setting(
        ("none",), "none, all that are installed, or names of trackers, such as tensorboard, trackio or wandb"
    )
    # checkpoints
    save_steps: int = setting(200, "a checkpoint every so many steps; the last step and an interruption write one too")
    save_total_limit: int = setting(2, "how many checkpoints are kept")
    resume_from_checkpoint: str | None = setting(
        None, 'folder of a checkpoint, or "last": the newest of the output folder if there is one'
    )
    # pictures
    num_workers: int = setting(2, "processes that read pictures; streams are read in the main one")
    # the Hub
    include_classifier: bool = setting(False, "saves the classifier too, not only its name")
    push_to_hub: bool = setting(False, "pushes the best explainer at the end")
    hub_model_id: str | None = setting(None, "where to; default the name of the output folder")
    hub_private: bool = setting(False, "makes a new repository a private one")

    def __post_init__(self):
        for name in ("report_to", "references", "eval_references"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, (getattr(self, name),))
        if self.mixed_precision == "fp16":
            raise ExplainerError(
                "mixed_precision='fp16' is not offered: probabilities near 0 lose their gradients in float16; take "
                "'bf16', which has the range of float32."
            )
        if self.mixed_precision not in ("auto", "no", "bf16"):
            raise ExplainerError(f"unknown mixed_precision {self.mixed_precision!r}; choose auto, no or bf16.")
        least = dict.fromkeys(("max_steps", "seed", "num_workers"), 0) | dict.fromkeys(AT_LEAST_ONE, 1)
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ExplainerError(f"{name}={getattr(self, name)}; give {low} or more.")
        if not 0 <= self.weight_decay < math.inf:
            raise ExplainerError(f"weight_decay={self.weight_decay}; give 0 or more.")
        for name in ("learning_rate", "max_grad_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ExplainerError(f"{name}={getattr(self, name)}; give a positive number.")
        if not 0 <= self.warmup_ratio <= 1:
            raise ExplainerError(f"warmup_ratio={self.warmup_ratio}; give a share of the steps, from 0 to 1.")
        if self.eval_budgets < 3:
            raise ExplainerError(f"eval_budgets={self.eval_budgets}; a curve needs at least 3 points.")
        if not self.eval_references:
            raise ExplainerError("eval_references is empty; name at least one, such as mean.")
        for one in self.eval_references:
            read_reference(one)
        fitting = [name for name, kind in KINDS.items() if self.objective in kind.objectives]
        if not fitting:
            known = ", ".join(dict.fromkeys(name for kind in KINDS.values() for name in kind.objectives))
            raise ExplainerError(f"unknown objective {self.objective!r}; choose from {known}.")
        for name in fitting:  # refuses wrong values before it is known which kind is trained
            self.objective_of(name)

    def on(self, device: torch.device) -> TrainingConfig:
        """The same, with what depends on the device decided."""
        if self.mixed_precision != "auto":
            return self
        able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return replace(self, mixed_precision="bf16" if able else "no")

    def objective_for(self, explainer) -> Objective:
        """What this kind of explainer is trained for, with the single values changed."""
        name = kind_of(explainer)
        others = {one for kind in KINDS.values() for one in kind.settings - KINDS[name].settings}
        for key, value in vars(self).items():
            if key in others and value is not None:
                raise ExplainerError(f"{key}={value} is no setting of {name}; leave it out.")
        return self.objective_of(name)

    def objective_of(self, name: str) -> Objective:
        """The objective of the kind of explainer `name`, whatever is set of other kinds."""
        kind = KINDS[name]
        if self.objective not in kind.objectives:
            known = ", ".join(kind.objectives)
            raise ExplainerError(f"unknown objective {self.objective!r} of {name}; choose from {known}.")
        given = {key: value for key, value in vars(self).items() if key in kind.settings and value is not None}
        return replace(kind.objectives[self.objective], **kind.read(given))  # type: ignore[type-var]

    def learning_rate_at(self, step: int) -> float:
        """Linear warmup, then half a cosine, as a function of the step alone."""
        warmup = round(self.warmup_ratio * self.max_steps)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, self.max_steps - warmup)))


AT_LEAST_ONE = (
    "per_device_train_batch_size", "gradient_accumulation_steps", "eval_steps", "per_device_eval_batch_size",
    "logging_steps", "save_steps", "save_total_limit",
)  # fmt: skip
# What decides about the weights: a run that is resumed must have the same. The batch sizes do so as their product.
DECISIVE = (
    "seed", "max_steps", "learning_rate", "weight_decay", "warmup_ratio", "max_grad_norm", "mixed_precision",
)  # fmt: skip
assert set(DECISIVE + AT_LEAST_ONE) <= {field.name for field in fields(TrainingConfig)}
