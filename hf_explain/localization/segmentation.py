"""How well maps segment an object, as LTX measures it: a map is stretched to [0, 1], then cut at its mean.

Everything is counted per picture, and summed up over the data set only at the end, so batches do not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from ..faithfulness.case import check_values
from ..faithfulness.masked_confidence import stretch
from ..modeling.errors import ExplainerError

IGNORED = -1  # the label of pixels that do not count


@dataclass(frozen=True)
class Segmentation:
    """Counts and scores of each picture; the properties sum them up over all of them.

    Args:
        correct, labeled: pixels, (B,).
        intersection, union: pixels of background and object, (B, 2).
        average_precision: of all pixels' scores for both classes, (B,).
        f1: of the object's pixels, (B,).
        row_f1: the mean of the f1 of each row of pixels, (B,). A row without object counts 0. It is what LTX reports
            as F1, and no measure of a segmentation.
    """

    correct: torch.Tensor
    labeled: torch.Tensor
    intersection: torch.Tensor
    union: torch.Tensor
    average_precision: torch.Tensor
    f1: torch.Tensor
    row_f1: torch.Tensor

    @property
    def pixel_accuracy(self) -> float:
        """Over all pixels of all pictures."""
        return float(self.correct.sum() / self.labeled.sum())

    @property
    def mean_iou(self) -> float:
        """Mean over background and object of the intersection over the union, each summed over all pictures."""
        return float((self.intersection.sum(0) / self.union.sum(0).clamp(min=1)).mean())

    def mean(self) -> dict[str, float]:
        return {
            "pixel_accuracy": self.pixel_accuracy,
            "mean_iou": self.mean_iou,
            "mean_average_precision": float(self.average_precision.mean()),
            "f1": float(self.f1.mean()),
            "row_f1": float(self.row_f1.mean()),
        }


def join(parts: Sequence[Segmentation]) -> Segmentation:
    """One of the pictures of several."""
    return Segmentation(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Segmentation)))


def segment(attributions: torch.Tensor, labels: torch.Tensor) -> Segmentation:
    """Of maps (B, H, W) and labels (B, H, W): 1 on the object, 0 on the background, -1 where nothing counts.

    >>> maps, labels = torch.rand(2, 8, 8), torch.zeros(2, 8, 8, dtype=torch.int64)
    >>> labels[:, 2:5, 2:5] = 1
    >>> segment(maps + 10 * labels, labels).mean_iou
    1.0
    """
    check(attributions, labels)
    scores, labels = stretch(attributions.cpu()).double(), labels.cpu().long()
    found = scores > scores.mean((1, 2), keepdim=True)
    valid, wanted = labels != IGNORED, labels == 1
    hits = (found == wanted) & valid
    sides = [(~found, labels == 0), (found, wanted)]
    both = torch.stack([(one & other & valid).sum((1, 2)) for one, other in sides], 1)
    either = torch.stack([((one & valid) | other).sum((1, 2)) for one, other in sides], 1)
    precision = [
        average_precision(torch.cat([1 - s[v], s[v]]), torch.cat([~w[v], w[v]]))
        for s, w, v in zip(scores, wanted, valid, strict=True)
    ]
    objects = found & valid
    return Segmentation(
        hits.sum((1, 2)),
        valid.sum((1, 2)),
        both,
        either,
        torch.stack(precision),
        f1(objects.flatten(1), wanted.flatten(1)),
        f1(objects, wanted).mean(1),
    )


def f1(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """2 |found and wanted| / (|found| + |wanted|) along the last dimension; 0 where both are empty."""
    total = (found.sum(-1) + wanted.sum(-1)).clamp(min=1)
    return (2 * (found & wanted).sum(-1) / total).float()


def average_precision(scores: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Precision at each threshold, weighted by the recall it adds; equal scores share a threshold.

    >>> average_precision(torch.tensor([0.9, 0.8, 0.8]), torch.tensor([True, True, False])).round(decimals=4)
    tensor(0.8333)
    """
    scores, order = scores.sort(descending=True)
    hits = wanted[order].double().cumsum(0)
    last = torch.cat([scores[1:] != scores[:-1], torch.ones(1, dtype=torch.bool)])  # of those of one score
    hits, above = hits[last], last.nonzero().flatten().double() + 1
    gained = torch.diff(hits, prepend=torch.zeros(1, dtype=torch.float64))
    return ((hits / above * gained).sum() / hits[-1]).float()


def check(attributions: torch.Tensor, labels: torch.Tensor) -> None:
    if attributions.ndim != 3 or attributions.shape != labels.shape:
        raise ExplainerError(
            f"maps {tuple(attributions.shape)} and labels {tuple(labels.shape)}; give (B, H, W) of one shape each."
        )
    check_values(attributions)
    for index, label in enumerate(labels):
        values = label.unique().tolist()
        if not set(values) <= {IGNORED, 0, 1} or set(values) == {IGNORED}:
            raise ExplainerError(
                f"the labels of image {index} are {values}; give 1 on the object, 0 elsewhere, {IGNORED} where "
                "nothing counts, and not only that."
            )
