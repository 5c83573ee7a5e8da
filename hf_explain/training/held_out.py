"""How faithful are the maps of held-out pictures, while an explainer is trained?"""

from __future__ import annotations

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from ..jobs.processes import Processes
from ..modeling.errors import ExplainerError
from .batches import load, share
from .config import TrainingConfig


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)


def check_held_out(dataset) -> None:
    if dataset is not None and not (hasattr(dataset, "__len__") and len(dataset)):
        what = "is empty" if hasattr(dataset, "__len__") else "has no length"
        raise ExplainerError(f"eval_dataset {what}; give rows to judge by, or None for no evaluation.")


@torch.no_grad()
def evaluate(explainer, dataset, config: TrainingConfig, processes: Processes) -> dict[str, float]:
    """What the explainer's objective says of held-out pictures; less "score" is better."""
    explainer.eval()
    objective = config.objective_for(explainer)
    size = batch_size = config.per_device_eval_batch_size
    mine = [*share(len(dataset), processes.rank, processes.world)]
    batches = [mine[at : at + size] for at in range(0, len(mine), size)]
    found: list[tuple[float, ...]] = []  # of each picture
    for pixel_values in load(dataset, batches, config.num_workers):
        while True:
            try:
                found += objective.judge(explainer, pixel_values.to(processes.device), config, batch_size)
                break
            except Exception as error:
                if batch_size == 1 or not is_out_of_memory(error):
                    raise
            batch_size //= 2
            clear_device_cache(garbage_collection=True)
    means = torch.tensor(processes.gather_lists(found), dtype=torch.float64).mean(0)
    return objective.summarize(means.tolist(), config)
