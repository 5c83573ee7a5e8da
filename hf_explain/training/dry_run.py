"""What a training will cost, from two steps that are really done and then forgotten."""

from __future__ import annotations

import copy
import resource
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from ..jobs.processes import Processes
from .config import TrainingConfig
from .held_out import check_held_out, evaluate
from .loop import train


@dataclass(frozen=True)
class Estimate:
    """Costs of a run; passes are pictures through the classifier, on all processes together.

    Args:
        peak_memory: bytes, of the accelerator, or of the process where there is none.
    """

    head_parameters: int
    pictures: int | None
    pictures_per_step: int
    passes_per_step: float
    passes: float
    seconds_per_step: float
    seconds_per_evaluation: float
    hours: float
    peak_memory: int
    grids: tuple[int, ...]

    def __str__(self) -> str:
        epoch = f"{self.pictures:,} pictures per epoch" if self.pictures is not None else "a stream"
        return "\n".join(
            [
                f"head: {self.head_parameters:,} parameters",
                f"data: {epoch}, {self.pictures_per_step} per step",
                f"classifier passes: {self.passes_per_step:,.0f} pictures per step, {self.passes:,.0f} in total",
                f"time: {self.seconds_per_step:.2f} s per step, {self.seconds_per_evaluation:.1f} s per evaluation, "
                f"about {self.hours:.2g} hours in total",
                f"peak memory: {self.peak_memory / 2**30:.2f} GiB"
                + (
                    f", with grids of {' and '.join(map(str, self.grids))} cells a side; other grids may take more"
                    if self.grids
                    else ""
                ),
            ]
        )


def dry_run(explainer, dataset, config: TrainingConfig, eval_dataset=None) -> Estimate:
    """Two real steps and one real evaluation batch; writes nothing, and leaves the head as it was."""
    check_held_out(eval_dataset)
    head, trained = copy.deepcopy(explainer.head.state_dict()), explainer.config.trained_steps
    steps, processes = min(2, config.max_steps), Processes()
    quiet = replace(config, logging_steps=1, report_to=("none",), resume_from_checkpoint=None, push_to_hub=False)
    if getattr(config.objective_for(explainer), "coarse", 1.0) < 1:
        quiet = replace(quiet, coarse=0.0)  # single pixels, the larger and dearer part of the run
    cuda = processes.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(processes.device)
    seconds = evaluation = 0.0
    with counted_passes(explainer.classifier.model) as count:
        result = train(explainer, dataset, quiet, progress_bar=False, stop_after=2)
        per_step = count[0] * processes.world / max(1, steps)
        lines = [line for line in result.log if "train/loss" in line]
        if lines:  # the first step warms up
            seconds = lines[-1]["train/seconds_per_step"]
        count[0], evaluations, batches = 0, 0, 0.0
        if eval_dataset is not None:
            one = [eval_dataset[i] for i in range(min(len(eval_dataset), config.per_device_eval_batch_size))]
            began = time.perf_counter()
            evaluate(explainer, one, replace(quiet, num_workers=0), processes)
            batches = len(eval_dataset) / len(one)
            evaluation = (time.perf_counter() - began) * batches
            evaluations = -(-config.max_steps // config.eval_steps)
    per_evaluation = count[0] * batches * processes.world
    explainer.head.load_state_dict(head)
    explainer.config.trained_steps = trained
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return Estimate(
        head_parameters=sum(p.numel() for p in explainer.head.parameters()),
        pictures=len(dataset) if hasattr(dataset, "__len__") else None,
        pictures_per_step=config.per_device_train_batch_size * config.gradient_accumulation_steps * processes.world,
        passes_per_step=per_step,
        passes=per_step * config.max_steps + per_evaluation * evaluations,
        seconds_per_step=seconds,
        seconds_per_evaluation=evaluation,
        hours=(seconds * config.max_steps + evaluation * evaluations) / 3600,
        peak_memory=(
            torch.cuda.max_memory_allocated(processes.device)
            if cuda
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        ),
        grids=tuple(int(line["train/grid"]) for line in lines if "train/grid" in line),
    )


@contextmanager
def counted_passes(model):
    """[pictures the model has seen] inside the block."""
    count = [0]

    def seen(module, arguments, keywords):
        count[0] += len(keywords["pixel_values"] if "pixel_values" in keywords else arguments[0])

    hook = model.register_forward_pre_hook(seen, with_kwargs=True)
    try:
        yield count
    finally:
        hook.remove()
