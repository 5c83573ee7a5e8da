"""Training an explainer's head on pictures without labels, on one device or many.

    from hf_explain.training import TrainingConfig, train
    train(explainer, dataset, TrainingConfig(max_steps=500), eval_dataset, output_dir="my-explainer")

Every step is a function of the seed, its number and the weights before it. So a run that was killed goes on exactly
where its last checkpoint was, and how a global batch is spread over processes and forwards changes rounding only.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils.memory import clear_device_cache
from transformers.utils import logging

from ..jobs.processes import Processes, StopSignal
from ..modeling.errors import ExplainerError
from ..modeling.preparing import prepared
from .batches import Rows, Stream
from .config import TrainingConfig
from .draws import Draws
from .held_out import check_held_out, evaluate, is_out_of_memory
from .log import Reporter
from .push import check_push, push
from .state import Run, require_float32

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Args:
        step: optimizer steps done.
        best_step: the step whose weights the explainer now has; the last one without held-out pictures.
        best_score: their held-out deletion + 1 - insertion.
        log: the lines of training_log.jsonl this call wrote.
        checkpoint: folder of the last checkpoint.
        stopped_by: number of the signal that ended the run early, or 0.
    """

    step: int
    best_step: int
    best_score: float | None
    log: list[dict]
    checkpoint: str | None
    stopped_by: int


def train(
    explainer, dataset, config: TrainingConfig | None = None, eval_dataset=None, output_dir: str | None = None,
    progress_bar: bool = True, stop_after: int | None = None,
) -> TrainingResult:  # fmt: skip
    """Trains the head of `explainer` in place; then it has its best weights, judged by `eval_dataset`.

    >>> from hf_explain import RankingExplainerForImageClassification
    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> explainer = RankingExplainerForImageClassification.from_classifier(random_classifier(), preset="tiny")
    >>> rows = [{"pixel_values": torch.rand(3, 32, 32)} for _ in range(4)]
    >>> config = TrainingConfig(max_steps=1, per_device_train_batch_size=2, num_workers=0)
    >>> train(explainer, rows, config, progress_bar=False).step
    1

    Args:
        dataset: of rows {"pixel_values": (3, H, W)}, as the classifier's image processor returns them; with a length,
            or a stream.
        eval_dataset: held-out rows, with a length; without them the last weights are the best.
        output_dir: for checkpoints, log and the best explainer; without it nothing is written.
        stop_after: ends after this step as a signal would, with a checkpoint from which the run can go on.
    """
    config = config or TrainingConfig()
    check_held_out(eval_dataset)
    processes = Processes(config.report_to, output_dir)
    config = config.on(processes.device)
    require_float32(explainer)
    if config.push_to_hub:
        check_push(explainer, config, output_dir, processes.is_main)
    explainer.to(processes.device)
    folder = Path(output_dir) if output_dir else None
    run = Run(explainer, dataset, config, folder, processes, eval_dataset)
    state, batches, signal = run.state, open_batches(dataset, run), 0
    report = Reporter(config, processes, folder, state.step, progress_bar, run.objective.shown)
    with classifier_for_training(explainer, config), StopSignal() as stop, report:
        while state.step < config.max_steps and state.step != stop_after and not signal:
            pixel_values = next(batches)  # (B, 3, H, W): this process' share of the global batch
            row, signal = gradients(run, pixel_values, batches, stop)
            for group in run.optimizer.param_groups:
                row["learning_rate"] = config.learning_rate_at(state.step)
                group["lr"] = row["learning_rate"] * group.get("scale", 1.0)
            row["gradient_norm"] = float(torch.nn.utils.clip_grad_norm_(run.parameters, config.max_grad_norm))
            run.optimizer.step()
            run.objective.after_step(explainer, row)
            state.step += 1
            report.step(state.step, row)
            last = state.step == config.max_steps
            if eval_dataset is not None and (last or state.step % config.eval_steps == 0):
                scores = evaluate(explainer, eval_dataset, config, processes)
                report.evaluation(state.step, scores)
                run.keep_if_best(scores["score"])
            if last or signal or state.step == stop_after or state.step % config.save_steps == 0:
                run.save(batches.state())
        finished = state.step == config.max_steps
        if finished:
            run.finish()
    if finished and config.push_to_hub and processes.is_main:
        push(explainer, config, output_dir)
    checkpoint = str(run.checkpoint) if run.checkpoint else None
    at = state.best_step if finished and state.best_step is not None else state.step
    return TrainingResult(state.step, at, state.best_score, report.lines, checkpoint, 0 if finished else signal)


def gradients(run: Run, pixel_values: torch.Tensor, batches, stop: StopSignal) -> tuple[dict[str, float], int]:
    """Leaves the gradient of the mean loss over the global batch in the head; returns what to log, and a stop signal.

    Both are the same on every process. Where memory runs out on any, all begin the step again with half the pictures
    per forward.
    """
    state, processes = run.state, run.processes
    while True:
        mine = (*accumulate(run, pixel_values), stop.signal)
        rows, troubles, signals = zip(*processes.gather_lists([mine]))  # where the processes meet, but for the sums
        if OUT_OF_MEMORY not in troubles:
            break
        if state.micro_batch == 1:
            raise ExplainerError(
                "memory ran out with one picture per forward; take gradient_checkpointing, mixed_precision='bf16', "
                "fewer budgets or coarser grids."
            )
        state.micro_batch = max(1, state.micro_batch // 2)
        if processes.is_main:
            logger.warning(
                f"step {state.step}: memory ran out, going on with {state.micro_batch} pictures per forward."
            )
    places = {cause: (first, last) for cause, first, last in filter(None, troubles)}
    for cause in ("pixel_values", "loss", "gradient"):
        if cause in places:
            raise not_finite(run, batches, cause, *places[cause])
    processes.sum_gradients(run.parameters)
    means = ("loss", *run.objective.means)  # each process' part of them
    return {key: (sum if key in means else max)(row[key] for row in rows) for key in rows[0]}, max(signals)


OUT_OF_MEMORY = ("memory", 0, 0)


def accumulate(run: Run, pixel_values: torch.Tensor) -> tuple[dict[str, float], tuple[str, int, int] | None]:
    """Adds up this process' part of the gradient, `micro_batch` pictures at a time.

    Returns its part of the log, and what is wrong, with the first and the last picture of the global batch it may be.
    """
    config, step, objective = run.config, run.state.step, run.objective
    row = dict.fromkeys(("loss", *objective.logged), 0.0)
    device, count = run.processes.device, len(pixel_values)
    first, everywhere = run.processes.rank * count, run.processes.world * count
    autocast = torch.bfloat16 if config.mixed_precision == "bf16" else None
    trouble = None
    run.explainer.train()
    run.optimizer.zero_grad()
    try:
        for at in range(0, count, run.state.micro_batch):
            pictures = pixel_values[at : at + run.state.micro_batch].to(device, non_blocking=True)
            draws, weight = Draws(config.seed, step, first + at), len(pictures) / everywhere
            loss, log = objective.loss(run.explainer, pictures, draws, step / config.max_steps, autocast)
            if not torch.isfinite(loss):
                good = torch.isfinite(pictures).flatten(1).all(1)
                if good.all():
                    return row, ("loss", first + at, first + at + len(pictures) - 1)
                bad = first + at + int(good.int().argmin())
                return row, ("pixel_values", bad, bad)
            (weight * loss).backward()
            for key, value in (log | {"loss": float(loss.detach())}).items():
                mean = key in ("loss", *objective.means)
                row[key] = row[key] + weight * value if mean else max(row[key], float(value))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        trouble = OUT_OF_MEMORY
    if trouble:  # out of the except block, whose traceback keeps tensors alive
        run.optimizer.zero_grad()
        clear_device_cache(garbage_collection=True)
    elif not all(torch.isfinite(p.grad).all() for p in run.parameters if p.grad is not None):
        trouble = ("gradient", first, first + count - 1)
    return row, trouble


def not_finite(run: Run, batches, cause: str, first: int, last: int) -> ExplainerError:
    step, config = run.state.step, run.config
    names = ", ".join(batches.name(step, place) for place in range(first, min(last, first + 3) + 1))
    which = f"picture {first}" if first == last else f"pictures {first} to {last}"
    kept = f"the last good checkpoint is {run.checkpoint}" if run.checkpoint else "there is no checkpoint yet"
    remedy = (
        "mend or remove it in the data set"
        if cause == "pixel_values"
        else f"lower learning_rate={config.learning_rate:g}, or look at these pictures"
    )
    return ExplainerError(
        f"step {step}: the {cause} of {which} of the batch ({names}{', ...' if last > first + 3 else ''}) is NaN or "
        f"infinite, so the training ended; {kept}; {remedy}."
    )


# ---- what the loop is given ----


def open_batches(dataset, run: Run):
    """An iterator over what this process reads, from the run's step on."""
    config, state, processes = run.config, run.state, run.processes
    here = config.per_device_train_batch_size * config.gradient_accumulation_steps
    if not hasattr(dataset, "__len__"):
        place = state.streams[processes.rank] if state.streams else None
        return Stream(dataset, here, processes.rank, processes.world, place, skip=state.step * here)
    steps = range(state.step, config.max_steps)
    where = (processes.rank, processes.world, config.num_workers)
    return Rows(dataset, config.seed, here * processes.world, steps, *where)


@contextmanager
def classifier_for_training(explainer, config: TrainingConfig):
    """The frozen classifier with gradient checkpointing and compilation as wished; without them after."""
    model = explainer.classifier.model
    checkpointed = config.gradient_checkpointing and not model.is_activation_checkpointing
    if config.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise ExplainerError(
            f"{type(model).__name__} has no gradient checkpointing; leave gradient_checkpointing out and take a "
            "smaller per_device_train_batch_size with more gradient_accumulation_steps."
        )
    if checkpointed:
        model.activation_checkpointing_enable({"use_reentrant": False})
    compiled = config.torch_compile and model._compiled_call_impl is None
    if compiled:  # the explainer was made by an eager call, which has installed transformers' hooks for hidden states
        with torch.no_grad():
            blank = torch.zeros(1, 3, *explainer.config.image_size, device=explainer.device)
            explainer.read(blank)
            fast, _ = prepared(model, blank)
        fast.compile(backend=config.torch_compile_backend)
    try:
        yield
    finally:
        if checkpointed:
            model.activation_checkpointing_disable()
        if compiled:
            fast._compiled_call_impl = None
        explainer.eval()
