"""Average drop and increase in confidence of a picture under its soft mask, as LTX reports them (ADP and PIC).

A picture times a mask in [0, 1], in pixel space, so that 0 is black; both are in percent, per picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from ..modeling.perturbation import blend
from ..modeling.references import reference_image
from .case import prepare

LTX: dict = {"reference": "black", "normalize": False}  # of the true class, which is to be given as targets


@dataclass(frozen=True)
class MaskedConfidence:
    """All (B,): the class's probability of the full and of the masked picture, and what follows from them, in percent.

    drop: 100 * max(0, full - masked) / full, lower is better; increase: 100 where the masked picture is more
    probable, else 0, higher is better. Their means are the published numbers.
    """

    full: torch.Tensor
    masked: torch.Tensor
    drop: torch.Tensor
    increase: torch.Tensor
    targets: torch.Tensor

    def mean(self) -> dict[str, float]:
        return {"average_drop": float(self.drop.mean()), "increase_in_confidence": float(self.increase.mean())}


@torch.no_grad()
def masked_confidence(
    classifier: Classifier,
    pixel_values: torch.Tensor,
    attributions: torch.Tensor,
    targets=None,
    *,
    reference: str | float | torch.Tensor = "black",
    normalize: bool = False,
    batch_size: int = 32,
) -> MaskedConfidence:
    """What the classifier says of pictures (B, 3, H, W) under their maps (B, H, W), taken as masks.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> classifier, pictures, maps = random_classifier(), torch.rand(2, 3, 32, 32), torch.rand(2, 32, 32)
    >>> sorted(masked_confidence(classifier, pictures, maps).mean())
    ['average_drop', 'increase_in_confidence']

    Args:
        reference: where the mask is 0.
        normalize: stretch each map to [0, 1] first. Without it maps must be in [0, 1] already, as LTX's are.
        batch_size: pictures per forward.
    """
    case = prepare(classifier, pixel_values, attributions, targets, batch_size)
    masks = stretch(attributions) if normalize else attributions
    outside = ((masks < 0) | (masks > 1)).flatten(1).any(1).nonzero().flatten().tolist()
    if outside:
        one = masks[outside[0]]
        raise ExplainerError(
            f"the attribution of image {outside[0]} goes from {float(one.min()):.3g} to {float(one.max()):.3g}, but a "
            "mask is in [0, 1]; give normalize=True to stretch it."
        )
    masks = masks.to(case.pixel_values)
    blank = reference_image(case.pixel_values, classifier.pixel_space, reference)
    masked = case.altered(
        "probability", 1, lambda at, _: blend(case.pixel_values[at], 1 - masks[at], blank[at])
    )  # fmt: skip
    full, masked = case.clean("probability").cpu(), masked[:, 0].cpu()
    tiny = torch.finfo(full.dtype).tiny
    drop = 100 * (full - masked).clamp(min=0) / full.clamp(min=tiny)
    return MaskedConfidence(full, masked, drop, 100 * (full < masked).float(), case.targets.cpu())


def stretch(maps: torch.Tensor) -> torch.Tensor:
    """Each map (B, H, W) from its least value, 0, to its largest, 1."""
    maps = maps.float()
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low)
