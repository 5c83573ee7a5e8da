"""The smallest part of a picture that keeps the prediction, by a map's order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from ..faithfulness.case import all_logits
from ..faithfulness.measurement import measure
from ..faithfulness.protocols import PRESETS, Curve, read_protocol
from ..methods.calling import attribute_with
from ..modeling.classifier import as_classifier
from ..modeling.errors import ExplainerError
from ..modeling.modeling_diffmask import DiffMaskExplainerForImageClassification
from ..modeling.modeling_explainer import ExplainerForImageClassification
from ..modeling.perturbation import rank_each


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
    classifier, pixel_values: torch.Tensor, attributions: torch.Tensor | None = None, targets=None, *,
    reference: str | float | None = None, budgets: int = 41, image_processor=None, batch_size: int = 32, seed: int = 0,
) -> Regions:  # fmt: skip
    """How little of each picture (B, 3, H, W) is enough, everything else removed, taking pixels as its map ranks them.

    Measured at `budgets` evenly spaced shares: a share counts only if every larger one keeps the prediction too, since
    a picture may be recognized by chance with less.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> classifier, pictures, maps = random_classifier(), torch.rand(2, 3, 32, 32), torch.rand(2, 32, 32)
    >>> region = smallest_region(classifier, pictures, maps, budgets=5)
    >>> region.masks.shape, region.agreement[1.0]
    (torch.Size([2, 32, 32]), 1.0)

    Args:
        classifier: or an explainer, whose maps are taken if there are no attributions.
        targets: the predictions, if they are known already; another class is refused.
        reference: what the removed pixels become, by default "mean". Of the maps of a Vision DiffMask explainer it is
            "placeholder": the cells of the classifier's stem that it says are not needed get what it has learned to
            put there, so that the masks are its minimal subset.
    """
    explainer = classifier if isinstance(classifier, ExplainerForImageClassification) else None
    if attributions is None and explainer is None:
        raise ExplainerError("attributions is missing; give maps (B, H, W), or an explainer in the classifier's place.")
    placeholder = reference == "placeholder" or (attributions is None and reference is None)
    if placeholder and isinstance(explainer, DiffMaskExplainerForImageClassification):
        return minimal_subset(explainer, pixel_values, attributions, targets, budgets, batch_size, seed)
    if explainer is not None:
        classifier = explainer.require_classifier()
        if attributions is None:
            targets = all_logits(classifier, pixel_values, batch_size).argmax(-1).cpu()
            attributions = attribute_with(explainer, batch_size)(classifier, pixel_values, targets)
    assert attributions is not None
    reference = "mean" if reference is None else reference
    classifier = as_classifier(classifier, image_processor)
    curves = (Curve("kept", "insertion", "indicator"),)
    aha = replace(PRESETS["aha"], name="smallest_region", curves=curves)
    protocol = read_protocol(aha, {"reference": reference, "budgets": budgets, "seed": seed})
    report = measure(classifier, pixel_values, attributions, targets, protocol, batch_size=batch_size)
    counts = torch.tensor(protocol.cuts(*attributions.shape[1:]))
    return found(report.curves["kept"].bool(), counts, rank_each(attributions.cpu(), seed), report.targets,
                 report.protocol)  # fmt: skip


def found(kept: torch.Tensor, counts: torch.Tensor, ranks: torch.Tensor, targets, protocol: dict) -> Regions:
    """What follows from whether `counts` of the first pixels (B, H, W) keep the prediction, (B, budgets)."""
    wrong = (~kept[:, -1]).nonzero().flatten().tolist()
    if wrong:
        raise ExplainerError(
            f"picture {wrong[0]} is not predicted as class {int(targets[wrong[0]])}, so no region can keep that "
            "prediction; leave targets out."
        )
    from_here_on = kept.flip(1).cumprod(1).flip(1)
    first, last = from_here_on.argmax(1), len(counts) - 1
    masks = ranks < counts[first][:, None, None]
    agreement = dict(zip([i / last for i in range(last + 1)], kept.float().mean(0).tolist(), strict=True))
    return Regions(first / last, masks, agreement, targets, protocol)


@torch.no_grad()
def minimal_subset(explainer, pixel_values, attributions, targets, budgets: int, batch_size: int, seed: int):
    """The same on the cells of the stem, whose removed ones become the explainer's placeholder."""
    if attributions is not None:
        raise ExplainerError("reference='placeholder' goes with the explainer's own maps; leave attributions out.")
    parts, own = pixel_values.to(explainer.device).split(batch_size), []
    votes = [explainer.votes(part) for part in parts]
    predicted = torch.cat([one.logits.argmax(-1) for one in votes])
    targets = predicted if targets is None else torch.as_tensor(targets, device=predicted.device).expand_as(predicted)
    ranks = torch.cat([rank_each(one.kept.cpu(), seed) for one in votes])  # (B, h, w)
    cells = ranks[0].numel()
    budgets = min(budgets, cells + 1)
    counts = torch.tensor([round(cells * i / (budgets - 1)) for i in range(budgets)])
    for count in counts:
        gates = (ranks < count).float().to(explainer.device).split(batch_size)
        logits = [explainer.classify_gated(*pair) for pair in zip(parts, gates, strict=True)]
        own.append(torch.cat(logits).argmax(-1) == targets)
    protocol = {
        "name": "smallest_region", "reference": "placeholder", "budgets": budgets, "pixels": "cells of the stem",
        "score": "indicator", "pictures": len(pixel_values),
    }  # fmt: skip
    regions = found(torch.stack(own, 1).cpu(), counts, ranks, targets.cpu(), protocol)
    masks = F.interpolate(regions.masks[:, None].float(), size=tuple(pixel_values.shape[-2:]), mode="nearest")
    return replace(regions, masks=masks[:, 0].bool())
