"""LTX: the smallest mask through which a picture is still classified alike."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from ...modeling.errors import ExplainerError
from ...modeling.references import reference_image
from ...modeling.targets import of_target
from ..draws import CLASSES, Draws
from ..packing import score_in_packs
from .objective import Objective

PENALTIES = ("l1", "softplus_of_sigmoid")
CAP = 5.0  # of the cross-entropy of what the mask hides: beyond it nothing is gained


@dataclass(frozen=True)
class LtxObjective(Objective):
    """What a mask costs.

    Args:
        mask_weight: of the mean mask beside the cross-entropy of the masked picture.
        counterfactual: weight of the cross-entropy of what the mask hides, which is to rise, up to a cap; ours. 0
            leaves it out, as in the release; docs/results/methods.md compares the two.
        penalty: "l1", the mean of the mask; "softplus_of_sigmoid", what the released code computes: a binary
            cross-entropy that takes the mask, which is a probability, for a logit.
        runner_up: share of the pictures whose second most probable class is explained, where classes are told apart.
    """

    logged: ClassVar[tuple[str, ...]] = ("prediction", "hidden", "mask")
    means: ClassVar[tuple[str, ...]] = ("prediction", "hidden", "mask")
    shown: ClassVar[tuple[str, ...]] = ("prediction", "mask")
    score: ClassVar[str] = "loss"

    mask_weight: float = 3.0
    counterfactual: float = 0.0
    penalty: str = "l1"
    runner_up: float = 0.25

    def __post_init__(self):
        if self.penalty not in PENALTIES:
            raise ExplainerError(f"unknown penalty {self.penalty!r}; choose from {', '.join(PENALTIES)}.")
        if self.mask_weight < 0 or self.counterfactual < 0 or not 0 <= self.runner_up <= 1:
            raise ExplainerError(
                f"mask_weight={self.mask_weight}, counterfactual={self.counterfactual}, runner_up={self.runner_up}; "
                "give weights of 0 or more and a share."
            )

    def loss(self, explainer, pixel_values, draws: Draws, progress: float = 0.0, autocast=None):
        lower = torch.autocast(pixel_values.device.type, autocast) if autocast else nullcontext()
        with torch.no_grad(), lower:
            logits, _ = explainer.read(pixel_values)
        losses, parts = self.of(explainer, pixel_values, self.draw(explainer, logits, draws), lower)
        return losses.mean(), {name: float(values.detach().mean()) for name, values in parts.items()}

    def draw(self, explainer, logits: torch.Tensor, draws: Draws) -> torch.Tensor:
        """The class explained of each picture, (B,)."""
        first, *others = logits.topk(min(2, logits.shape[1])).indices.unbind(1)
        if not others or not explainer.config.class_conditional or not self.runner_up:
            return first
        uniform = draws.stack(logits, CLASSES, lambda g: torch.rand((), generator=g, device=g.device))
        return torch.where(uniform < self.runner_up, others[0], first)

    def of(self, explainer, pixel_values, targets: torch.Tensor, lower=None):
        """Losses (B,) of the present masks of `targets` (B,), and their parts."""
        classifier = explainer.require_classifier()
        coarse = explainer.mask_logits(pixel_values.to(explainer.head_dtype), targets[:, None])[:, 0].float().sigmoid()
        mask = explainer.enlarge(coarse[:, None], pixel_values)
        blank = reference_image(pixel_values, classifier.pixel_space, "black")

        def through(masks, at):
            with lower or nullcontext():
                seen = classifier(torch.lerp(blank.expand_as(pixel_values)[at], pixel_values[at], masks))
            return entropy(classifier, seen, targets[at])

        shown = score_in_packs(through, mask, classifier, pixel_values)
        hidden = torch.zeros_like(shown)
        if self.counterfactual:
            hidden = score_in_packs(through, 1 - mask, classifier, pixel_values).clamp(max=CAP)
        size = coarse.flatten(1)
        size = (F.softplus(size) if self.penalty == "softplus_of_sigmoid" else size).mean(1)
        losses = shown + self.mask_weight * size - self.counterfactual * hidden
        return losses, {"prediction": shown, "hidden": hidden, "mask": coarse.flatten(1).mean(1)}

    def judge(self, explainer, pixel_values, config, batch_size: int):
        found = []
        for part in pixel_values.split(batch_size):
            targets = explainer.read(part)[0].argmax(-1)
            losses, parts = self.of(explainer, part, targets)
            found += list(zip(losses.tolist(), *(parts[name].tolist() for name in self.means), strict=True))
        return found

    def summarize(self, means, config):
        return dict(zip(("score", *self.means), means, strict=True))


def entropy(classifier, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-log of the class's score, by the head's problem type, (B,)."""
    if classifier.independent:
        return -F.logsigmoid(of_target(logits.float(), targets))
    return F.cross_entropy(logits.float(), targets, reduction="none")


LTX_OBJECTIVES = {
    "default": LtxObjective(),
    "ltx-release": LtxObjective(mask_weight=50.0, penalty="softplus_of_sigmoid", runner_up=0.0),
}
