"""How faithful are the maps of held-out pictures, while an explainer is trained?"""

from __future__ import annotations

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from .batches import load, share
from .faithfulness import measure
from .modeling.perturbation import ExplainerError, read_reference
from .processes import Processes
from .training_config import TrainingConfig


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)


def check_held_out(dataset) -> None:
    if dataset is not None and not (hasattr(dataset, "__len__") and len(dataset)):
        what = "is empty" if hasattr(dataset, "__len__") else "has no length"
        raise ExplainerError(f"eval_dataset {what}; give rows to judge by, or None for no evaluation.")


@torch.no_grad()
def evaluate(explainer, dataset, config: TrainingConfig, processes: Processes) -> dict[str, float]:
    """Mean deletion and insertion of the predictions' maps, over all references and per one.

    "score" is deletion + 1 - insertion, so less is better.
    """
    explainer.eval()
    size = batch_size = config.per_device_eval_batch_size
    mine = [*share(len(dataset), processes.rank, processes.world)]
    batches = [mine[at : at + size] for at in range(0, len(mine), size)]
    areas: list[tuple] = []  # per picture, per reference: deletion, insertion
    for pixel_values in load(dataset, batches, config.num_workers):
        while True:
            try:
                areas += measure_batch(explainer, pixel_values.to(processes.device), config, batch_size)
                break
            except Exception as error:
                if batch_size == 1 or not is_out_of_memory(error):
                    raise
            batch_size //= 2
            clear_device_cache(garbage_collection=True)
    means = torch.tensor(processes.gather_lists(areas), dtype=torch.float64).mean(0)  # (references, 2)
    scores = {"deletion": float(means[:, 0].mean()), "insertion": float(means[:, 1].mean())}
    scores["score"] = scores["deletion"] + 1 - scores["insertion"]
    for reference, (deletion, insertion) in zip(config.eval_references, means.tolist(), strict=True):
        scores |= {f"{reference}/deletion": deletion, f"{reference}/insertion": insertion}
    return scores


def measure_batch(explainer, pixel_values: torch.Tensor, config: TrainingConfig, batch_size: int) -> list[tuple]:
    outputs = [explainer(part) for part in pixel_values.split(batch_size)]
    attributions, targets = (torch.cat([output[key] for output in outputs]) for key in ("attributions", "targets"))
    reports = [
        measure(
            explainer.classifier, pixel_values, attributions, targets, batch_size=batch_size,
            reference=read_reference(reference), budgets=config.eval_budgets,
        )
        for reference in config.eval_references
    ]  # fmt: skip
    pairs = [list(zip(report.deletion.tolist(), report.insertion.tolist(), strict=True)) for report in reports]
    return list(zip(*pairs, strict=True))
