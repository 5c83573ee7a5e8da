"""Performance information curves AIC and SIC (Kapishnikov et al., arXiv 1906.02825), as released with that paper.

A picture is interpolated from the pixels a map ranks first. How much it shows is the size of its lossless WebP file,
and how well it is recognized the class's probability (SIC) or whether it is the prediction (AIC); both are scaled to
go from 0, the picture interpolated from a few random pixels, to 1, the picture itself.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch

from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from ..modeling.perturbation import rank_each
from .case import Case, need_space, prepare

THRESHOLDS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.10, 0.13, 0.21, 0.34, 0.5, 0.75)
METRICS = {"sic": "probability", "aic": "indicator"}


@dataclass(frozen=True)
class InformationCurve:
    """Areas (B,) and curves (B, points + 1) at evenly spaced shares of the information from 0 to 1; higher is better.

    NaN where a picture was skipped; `skipped` counts them by reason.
    """

    area: torch.Tensor
    curve: torch.Tensor
    skipped: dict[str, int]

    def mean(self) -> float:
        """Of the pictures that were not skipped; NaN if all were."""
        return float(self.area.nanmean())

    def of_median_curve(self) -> float:
        """Area under the median of the curves: how the authors sum up a data set."""
        kept = self.curve[~self.area.isnan()].double()
        if not len(kept):
            return math.nan
        return float(torch.trapezoid(kept.quantile(0.5, dim=0), dx=1 / (kept.shape[1] - 1)))


@torch.no_grad()
def information_curves(
    classifier: Classifier,
    pixel_values: torch.Tensor,
    attributions: torch.Tensor,
    targets=None,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    start_share: float = 0.01,
    least_score: float = 0.8,
    monotone: bool = True,
    points: int = 1000,
    seed: int = 0,
    batch_size: int = 32,
) -> dict[str, InformationCurve]:
    """{"sic": ..., "aic": ...} of maps (B, H, W) of pictures (B, 3, H, W), of the same forwards.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> classifier, pictures, maps = random_classifier(), torch.rand(2, 3, 32, 32), torch.rand(2, 32, 32)
    >>> sorted(information_curves(classifier, pictures, maps))
    ['aic', 'sic']

    Args:
        thresholds: shares of the pixels that are shown, rising.
        start_share: share of the random pixels that are always shown; the same for every picture, by the seed.
        least_score: pictures whose full score is lower are skipped.
        monotone: a picture that shows more counts as recognized at least as well.
        points: of the curve, beside its last.
        seed: of the random pixels, and of the order among equal pixels.
    """
    case = prepare(classifier, pixel_values, attributions, targets, batch_size)
    wrong = list(thresholds) != sorted(thresholds) or not thresholds or not 0 < thresholds[0] <= thresholds[-1] < 1
    if wrong or points < 1:
        raise ExplainerError(f"thresholds={tuple(thresholds)} and points={points}; give rising shares between 0 and 1.")
    shown = Interpolated(case, attributions, thresholds, start_share, seed)
    found = case.altered_by([*METRICS.values()], len(thresholds) + 2, shown)
    results = {}
    for name, scores in zip(METRICS, found, strict=True):
        curves, skipped = [], dict.fromkeys(("score too low", "no smaller file", "no lower score"), 0)
        for sizes, each in zip(shown.sizes.double().numpy(), scores.double().cpu().numpy(), strict=True):
            reason = why_skipped(sizes, each, least_score)
            if reason:
                skipped[reason] += 1
                curves.append(np.full(points + 1, np.nan))
            else:
                curves.append(information_curve(sizes, each, monotone, points))
        curve = torch.from_numpy(np.stack(curves))
        area = torch.trapezoid(curve, dx=1 / points)
        results[name] = InformationCurve(area.float(), curve.float(), skipped)
    return results


def why_skipped(sizes: np.ndarray, scores: np.ndarray, least_score: float) -> str | None:
    """The reason why a picture's scale from its blurred (first) to its full (last) version makes no sense, if any."""
    if scores[-1] < least_score:
        return "score too low"
    if sizes[0] >= sizes[-1]:
        return "no smaller file"
    return "no lower score" if scores[0] >= scores[-1] else None


def information_curve(sizes: np.ndarray, scores: np.ndarray, monotone: bool, points: int) -> np.ndarray:
    """Scaled scores at `points` + 1 shares of the information, of the blurred picture first and the full one last."""
    x = np.clip((sizes[1:-1] - sizes[0]) / (sizes[-1] - sizes[0]), 0, 1)
    y = np.clip((scores[1:-1] - scores[0]) / (scores[-1] - scores[0]), 0, 1)
    if monotone:
        y = np.maximum.accumulate(y)
    x, y = np.append(x, [0, 1]), np.append(y, [0, 1])
    order = np.argsort(x, kind="stable")
    curve = np.interp(np.linspace(0, 1, points, endpoint=False), x[order], y[order])
    return np.append(curve, 1.0)


class Interpolated:
    """Alterations of a case's pictures: from random pixels only, from more and more of the map's, then all.

    `sizes` (B, thresholds + 2) fills with those of their files.
    """

    def __init__(self, case: Case, attributions: torch.Tensor, thresholds: Sequence[float], start: float, seed: int):
        self.space = need_space(case.classifier)
        rgb = self.space.to_rgb(case.pixel_values.float()).clamp(0, 1).mul(255).round().byte()
        self.pictures = rgb.permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, 3) uint8
        height, width = self.pictures.shape[1:3]
        total = height * width
        self.rank = rank_each(attributions, seed).cpu().numpy()
        # As many as are not below the quantile 1 - threshold of a map without ties.
        self.counts = [0, *(total - math.ceil((total - 1) * (1 - t) - 1e-9) for t in thresholds)]
        chosen = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[: int(start * total)]
        self.always = np.zeros(total, bool)
        self.always[chosen.numpy()] = True
        self.always = self.always.reshape(height, width)
        self.always[[0, 0, -1, -1], [0, -1, 0, -1]] = True  # corners, so that every pixel is between known ones
        self.sizes = torch.zeros(len(case), len(self.counts) + 1)
        self.like = case.pixel_values

    def __call__(self, at: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        pictures = []
        for i, k in zip(at.tolist(), which.tolist(), strict=True):
            picture = self.pictures[i]
            if k < len(self.counts):
                picture = interpolate(picture, self.always | (self.rank[i] < self.counts[k]))
            self.sizes[i, k] = file_size(picture)
            pictures.append(torch.from_numpy(picture))
        rgb = torch.stack(pictures).permute(0, 3, 1, 2).to(self.like.device).float() / 255
        return self.space.from_rgb(rgb).to(self.like)


def interpolate(picture: np.ndarray, known: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) uint8 of its known pixels (H, W), linear in the triangles between them."""
    from scipy.interpolate import LinearNDInterpolator

    if known.all():
        return picture
    result = picture.copy()
    between = LinearNDInterpolator(np.argwhere(known), picture[known].astype(np.float64))
    result[~known] = np.round(between(np.argwhere(~known))).astype(np.uint8)
    return result


def file_size(picture: np.ndarray) -> int:
    """Bytes of a picture (H, W, 3) uint8 as lossless WebP."""
    file = io.BytesIO()
    PIL.Image.fromarray(picture).save(file, format="webp", lossless=True, quality=100)
    return file.tell()
