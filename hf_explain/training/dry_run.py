"""What a training will cost, from two steps that are really done and then forgotten."""

from __future__ import annotations

import copy
import resource
import sys
import time
from dataclasses import dataclass, replace

import torch

from ..jobs.processes import Processes
from ..modeling.model_call import counted
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
        sides = " and ".join(map(str, self.grids))
        grids = f", with grids of {sides} cells a side; other grids may take more" if sides else ""
        return (
            f"head: {self.head_parameters:,} parameters\n"
            f"data: {epoch}, {self.pictures_per_step} per step\n"
            f"classifier passes: {self.passes_per_step:,.0f} pictures per step, {self.passes:,.0f} in total\n"
            f"time: {self.seconds_per_step:.2f} s per step, {self.seconds_per_evaluation:.1f} s per evaluation, "
            f"about {self.hours:.2g} hours in total\n"
            f"peak memory: {self.peak_memory / 2**30:.2f} GiB{grids}"
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
    with counted(explainer.classifier.model) as seen:
        result = train(explainer, dataset, quiet, progress_bar=False, stop_after=2)
    lines = [line for line in result.log if "train/loss" in line]
    seconds = lines[-1]["train/seconds_per_step"] if lines else 0.0  # the first step warms up
    per_step = sum(seen) * processes.world / max(1, steps)
    passes, evaluation, evaluations = 0.0, 0.0, 0
    if eval_dataset is not None:
        one = [eval_dataset[i] for i in range(min(len(eval_dataset), config.per_device_eval_batch_size))]
        began = time.perf_counter()
        with counted(explainer.classifier.model) as seen:
            evaluate(explainer, one, replace(quiet, num_workers=0), processes)
        batches = len(eval_dataset) / len(one)
        evaluation = (time.perf_counter() - began) * batches
        evaluations = -(-config.max_steps // config.eval_steps)
        passes = sum(seen) * batches * processes.world * evaluations
    explainer.head.load_state_dict(head)
    explainer.config.trained_steps = trained
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return Estimate(
        head_parameters=sum(p.numel() for p in explainer.head.parameters()),
        pictures=len(dataset) if hasattr(dataset, "__len__") else None,
        pictures_per_step=config.per_device_train_batch_size * config.gradient_accumulation_steps * processes.world,
        passes_per_step=per_step,
        passes=per_step * config.max_steps + passes,
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
