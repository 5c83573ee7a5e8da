"""Metrics that are no curves, as a preset of `measure`: what "Semantic Pullbacks" reports of a map."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch

from .case import all_logits
from .correlations import SP as CORRELATIONS
from .correlations import faithfulness_correlation, faithfulness_estimate, monotonicity_correlation
from .protocols import Protocol
from .report import Report
from .robustness import SP as ROBUSTNESS
from .robustness import infidelity

METRICS = {
    metric.__name__: partial(metric, **(ROBUSTNESS | CORRELATIONS)[metric.__name__])
    for metric in (infidelity, faithfulness_correlation, faithfulness_estimate, monotonicity_correlation)
}


def measure_metrics(
    classifier, pixel_values, maps: Mapping[str, torch.Tensor], targets, protocol: Protocol, batch_size: int
) -> dict[str, Report]:
    """A report of every method's maps; there are no curves in it."""
    if targets is None:
        targets = all_logits(classifier, pixel_values, batch_size).argmax(-1)
    metrics = {curve.name: METRICS[curve.name] for curve in protocol.curves}
    settings = {name: metric.keywords for name, metric in metrics.items()}
    description = {
        "name": protocol.name, "metrics": settings, "label": protocol.label, "seed": protocol.seed,
        "size": list(pixel_values.shape[-2:]), "pictures": len(pixel_values),
    }  # fmt: skip
    reports = {}
    for name, one in maps.items():
        call = classifier, pixel_values, one, targets
        areas = {key: metric(*call, seed=protocol.seed, batch_size=batch_size) for key, metric in metrics.items()}
        reports[name] = Report(areas, {}, targets.cpu(), description)
    return reports
