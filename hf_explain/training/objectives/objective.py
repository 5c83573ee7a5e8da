"""What the training loop asks of an objective."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from ...faithfulness.measurement import measure
from ...modeling.references import read_reference


class Objective:
    """A loss of an explainer's head, and how held-out pictures judge it.

    Attributes:
        logged: keys of what `loss` returns beside the loss.
        means: those of them that are means over the pictures; of the others the largest is logged.
        shown: those of them on the progress bar.
        score: what `summarize` calls "score", in words; less is better.
    """

    logged: ClassVar[tuple[str, ...]] = ()
    means: ClassVar[tuple[str, ...]] = ()
    shown: ClassVar[tuple[str, ...]] = ()
    score: ClassVar[str] = "deletion + 1 - insertion"

    def loss(self, explainer, pixel_values, draws, progress: float = 0.0, autocast=None):
        """(loss, log) of some pictures; the same draws give the same, whatever batch they come in."""
        raise NotImplementedError

    def groups(self, explainer) -> list[dict[str, Any]]:
        """The optimizer's groups of parameters; "scale" multiplies the learning rate of a group."""
        return [{"params": [p for p in explainer.head.parameters() if p.requires_grad]}]

    def after_step(self, explainer, row: dict[str, float]) -> None:
        """What is updated otherwise than by the optimizer, from the log of the global batch."""

    def judge(self, explainer, pixel_values: torch.Tensor, config, batch_size: int) -> list[tuple[float, ...]]:
        """Numbers of each held-out picture: deletion and insertion under every reference."""
        outputs = [explainer(part) for part in pixel_values.split(batch_size)]
        attributions, targets = (torch.cat([output[key] for output in outputs]) for key in ("attributions", "targets"))
        reports = [
            measure(
                explainer.classifier, pixel_values, attributions, targets, batch_size=batch_size,
                reference=read_reference(reference), budgets=config.eval_budgets,
            )
            for reference in config.eval_references
        ]  # fmt: skip
        columns = [area.tolist() for report in reports for area in (report.deletion, report.insertion)]
        return list(zip(*columns, strict=True))

    def summarize(self, means: list[float], config) -> dict[str, float]:
        """The means of these numbers by name, with "score"."""
        deletions, insertions = means[::2], means[1::2]
        count = len(config.eval_references)
        scores = {"deletion": sum(deletions) / count, "insertion": sum(insertions) / count}
        scores["score"] = scores["deletion"] + 1 - scores["insertion"]
        for reference, deletion, insertion in zip(config.eval_references, deletions, insertions, strict=True):
            scores |= {f"{reference}/deletion": deletion, f"{reference}/insertion": insertion}
        return scores
