"""Metrics that are no curves, as a preset of `measure`: what "Semantic Pullbacks" reports of a map."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from .case import all_logits
from .correlations import SP as CORRELATIONS
from .correlations import faithfulness_correlation, faithfulness_estimate, monotonicity_correlation
from .protocols import Protocol
from .report import Report
from .robustness import SP as ROBUSTNESS
from .robustness import infidelity

METRICS: dict[str, tuple[Callable[..., torch.Tensor], dict]] = {
    "infidelity": (infidelity, ROBUSTNESS["infidelity"]),
    "faithfulness_correlation": (faithfulness_correlation, CORRELATIONS["faithfulness_correlation"]),
    "faithfulness_estimate": (faithfulness_estimate, CORRELATIONS["faithfulness_estimate"]),
    "monotonicity_correlation": (monotonicity_correlation, CORRELATIONS["monotonicity_correlation"]),
}


def measure_metrics(
    classifier, pixel_values, maps: Mapping[str, torch.Tensor], targets, protocol: Protocol, batch_size: int
) -> dict[str, Report]:
    """A report of every method's maps; there are no curves in it."""
    if targets is None:
        targets = all_logits(classifier, pixel_values, batch_size).argmax(-1)
    settings = {curve.name: METRICS[curve.name][1] for curve in protocol.curves}
    description = {
        "name": protocol.name, "metrics": settings, "label": protocol.label, "seed": protocol.seed,
        "size": list(pixel_values.shape[-2:]), "pictures": len(pixel_values),
    }  # fmt: skip
    reports = {}
    for name, one in maps.items():
        areas = {
            metric: METRICS[metric][0](
                classifier, pixel_values, one, targets, seed=protocol.seed, batch_size=batch_size, **options
            )
            for metric, options in settings.items()
        }
        reports[name] = Report(areas, {}, targets.cpu(), description)
    return reports
