"""Vision DiffMask: as few cells as possible, while the classifier's output stays close to what it was.

The constraint has a multiplier per layer, which rises while it is violated: explicit dual ascent. (In the reference the
sign of its update is lost, so that its multipliers fall when they should rise.)
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from ...modeling.errors import ExplainerError
from ...modeling.gates import log_open, sample_gates
from ..draws import GATES, Draws
from .objective import Objective

SAMPLES = 8  # of the gates, when held-out pictures are judged


@dataclass(frozen=True)
class DiffMaskObjective(Objective):
    """How gates are trained.

    Args:
        divergence: how far the output may move on average, as a Kullback-Leibler divergence.
        ascent: learning rate of the multipliers.
        highest: where they end.
        placeholder: how much faster than the gates what stands for closed cells learns.
    """

    logged: ClassVar[tuple[str, ...]] = ("divergence", "kept", "agreement", "layer", "multiplier")
    means: ClassVar[tuple[str, ...]] = ("divergence", "kept", "agreement")
    shown: ClassVar[tuple[str, ...]] = ("divergence", "kept")
    score: ClassVar[str] = "share of the cells kept + 10 x divergence above the bound"

    divergence: float = 0.1
    ascent: float = 0.3
    highest: float = 200.0
    placeholder: float = 50.0

    def __post_init__(self):
        for name in ("divergence", "ascent", "highest", "placeholder"):
            if not getattr(self, name) > 0:
                raise ExplainerError(f"{name}={getattr(self, name)}; give a positive number.")

    def groups(self, explainer):
        fast = [explainer.head.placeholder]
        slow = [p for p in explainer.head.parameters() if p.requires_grad and p is not fast[0]]
        return [{"params": slow}, {"params": fast, "scale": self.placeholder}]

    def loss(self, explainer, pixel_values, draws: Draws, progress: float = 0.0, autocast=None):
        """The Lagrangian of a layer drawn for the whole batch: its gates and all before it decide together."""
        head, classifier = explainer.head, explainer.require_classifier()
        lower = torch.autocast(pixel_values.device.type, autocast) if autocast else nullcontext()
        with torch.no_grad(), lower:
            logits, maps = explainer.read(pixel_values)
        maps = [one.to(explainer.head_dtype) for one in maps]
        layer = int(torch.randint(len(head.gates), (), generator=draws.shared()))
        locations = [head.locate(i, maps[0], maps[i]) for i in range(layer + 1)]
        gates = torch.ones_like(locations[0])
        for i, location in enumerate(locations):
            uniform = draws.stack(location, GATES + i, partial(draw_uniform, location.shape[1:]))
            gates = gates * sample_gates(location, uniform)
        with lower:
            masked = explainer.classify_gated(pixel_values, gates)
        distance = divergence(classifier, logits, masked)  # (B,)
        opened = torch.stack([log_open(location) for location in locations]).sum(0)
        multiplier = head.multipliers[layer]
        loss = (multiplier * (distance - self.divergence) + opened.mean((1, 2))).mean()
        return loss, {
            "divergence": float(distance.detach().mean()),
            "kept": float(opened.detach().exp().mean()),
            "agreement": float((masked.argmax(-1) == logits.argmax(-1)).float().mean()),
            "layer": layer,
            "multiplier": float(multiplier),
        }

    @torch.no_grad()
    def after_step(self, explainer, row) -> None:
        multipliers, layer = explainer.head.multipliers, int(row["layer"])
        risen = multipliers[layer] + self.ascent * (row["divergence"] - self.divergence)
        multipliers[layer] = risen.clamp(0, self.highest)

    def judge(self, explainer, pixel_values, config, batch_size: int):
        """The share kept, and the mean divergence and agreement of `SAMPLES` samples of all gates together."""
        found = []
        for part in pixel_values.split(batch_size):
            logits, maps = explainer.read(part)
            maps = [one.to(explainer.head_dtype) for one in maps]
            locations = explainer.head(maps[0], maps[1:])
            random = torch.Generator().manual_seed(0)
            distance, agreement = torch.zeros(2, len(part), device=logits.device)
            for _ in range(SAMPLES):
                uniform = torch.rand(locations.shape[1:], generator=random).to(locations).expand_as(locations)
                masked = explainer.classify_gated(part, sample_gates(locations, uniform).prod(1))
                distance = distance + divergence(explainer.classifier, logits, masked) / SAMPLES
                agreement = agreement + (masked.argmax(-1) == logits.argmax(-1)).float() / SAMPLES
            kept = log_open(locations).sum(1).exp().mean((1, 2))
            found += list(zip(kept.tolist(), distance.tolist(), agreement.tolist(), strict=True))
        return found

    def summarize(self, means, config):
        kept, distance, agreement = means
        score = kept + 10 * max(0.0, distance - self.divergence)
        return {"kept": kept, "divergence": distance, "agreement": agreement, "score": score}


def draw_uniform(shape, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def divergence(classifier, logits: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """KL(original || masked) of each picture, (B,): of the classes, or of each label where several may be true."""
    before, after = (classifier.scores(values).clamp(1e-7, 1) for values in (logits, masked))
    distance = before * (before.log() - after.log())
    if classifier.independent:
        others = ((1 - before).clamp(min=1e-7), (1 - after).clamp(min=1e-7))
        distance = distance + others[0] * (others[0].log() - others[1].log())
    return distance.sum(-1)
