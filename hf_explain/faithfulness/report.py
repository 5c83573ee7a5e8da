"""What a measurement gives: `Report`, to be read or compared with another."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..modeling.errors import ExplainerError
from .intervals import interval, paired


@dataclass(frozen=True)
class Report:
    """What was measured, and how.

    Args:
        areas: name -> area under the curve of each picture, (B,).
        curves: name -> (B, points).
        targets: the classes, (B,).
        protocol: as plain values.
    """

    areas: dict[str, torch.Tensor]
    curves: dict[str, torch.Tensor]
    targets: torch.Tensor
    protocol: dict

    @property
    def deletion(self) -> torch.Tensor:
        return self.area("deletion")

    @property
    def insertion(self) -> torch.Tensor:
        return self.area("insertion")

    def area(self, name: str) -> torch.Tensor:
        if name not in self.areas:
            raise ExplainerError(
                f"preset {self.protocol['name']!r} measures no {name}; it has {', '.join(self.areas)}."
            )
        return self.areas[name]

    def mean(self) -> dict[str, float]:
        return {name: float(area.mean()) for name, area in self.areas.items()}

    def intervals(self, seed: int = 0) -> dict[str, dict[str, float]]:
        """name -> {"mean", "low", "high"}: 95 % by a bootstrap over the pictures."""
        return {name: interval(area.numpy(), seed) for name, area in self.areas.items()}


def better_by(ours: Report, theirs: Report, seed: int = 0) -> dict[str, dict[str, float]]:
    """name -> mean difference ours - theirs, picture by picture, with its 95 % interval.

    >>> import torch
    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> from hf_explain.faithfulness import measure
    >>> classifier, pictures, maps = random_classifier(), torch.rand(2, 3, 32, 32), torch.rand(2, 32, 32)
    >>> ours, theirs = (measure(classifier, pictures, one, budgets=5) for one in (maps, -maps))
    >>> better_by(ours, theirs)["deletion"].keys()
    dict_keys(['mean', 'low', 'high'])
    """
    same = ours.protocol == theirs.protocol and torch.equal(ours.targets, theirs.targets)
    if not same:
        raise ExplainerError(
            "the two reports are not of one protocol, of the same pictures and classes; measure both maps in the "
            "same way."
        )
    return {name: paired(ours.areas[name].numpy(), theirs.areas[name].numpy(), seed) for name in ours.areas}
