"""The smallest part of a picture that keeps the prediction, by a map's order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from .faithfulness import measure
from .modeling.classifier import as_classifier
from .modeling.perturbation import ExplainerError, rank_each
from .protocols import PRESETS, Curve, read_protocol


@dataclass(frozen=True)
class Regions:
    """What was found, and how sure it is.

    Args:
        shares: the smallest top share of each map at which, and from which on, the prediction is kept, (B,).
        masks: those pixels, (B, H, W) bool.
        agreement: share of the pixels -> share of the pictures whose prediction it keeps.
        targets: the predictions, (B,).
        protocol: as plain values.
    """

    shares: torch.Tensor
    masks: torch.Tensor
    agreement: dict[float, float]
    targets: torch.Tensor
    protocol: dict


def smallest_region(
    classifier, pixel_values: torch.Tensor, attributions: torch.Tensor, targets=None, *,
    reference: str | float = "mean", budgets: int = 41, image_processor=None, batch_size: int = 32, seed: int = 0,
) -> Regions:  # fmt: skip
    """How little of each picture (B, 3, H, W) is enough, everything else removed, taking pixels as its map ranks them.

    Measured at `budgets` evenly spaced shares: a share counts only if every larger one keeps the prediction too, since
    a picture may be recognized by chance with less.

    Args:
        targets: the predictions, if they are known already; another class is refused.
        reference: what the removed pixels become.
    """
    classifier = as_classifier(classifier, image_processor)
    curves = (Curve("kept", "insertion", "indicator"),)
    aha = replace(PRESETS["aha"], name="smallest_region", curves=curves)
    protocol = read_protocol(aha, {"reference": reference, "budgets": budgets, "seed": seed})
    report = measure(classifier, pixel_values, attributions, targets, protocol, batch_size=batch_size)
    kept = report.curves["kept"].bool()  # (B, budgets)
    wrong = (~kept[:, -1]).nonzero().flatten().tolist()
    if wrong:
        raise ExplainerError(
            f"picture {wrong[0]} is not predicted as class {int(report.targets[wrong[0]])}, so no region can keep that "
            "prediction; leave targets out."
        )
    from_here_on = kept.flip(1).cumprod(1).flip(1)
    first = from_here_on.argmax(1)
    shares = first / (budgets - 1)
    counts = torch.tensor(protocol.cuts(*attributions.shape[1:]))[first]
    masks = rank_each(attributions.cpu(), seed) < counts[:, None, None]
    levels = [i / (budgets - 1) for i in range(budgets)]
    agreement = dict(zip(levels, kept.float().mean(0).tolist(), strict=True))
    return Regions(shares, masks, agreement, report.targets, report.protocol)
