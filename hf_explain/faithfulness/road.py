"""ROAD (Rong et al., arXiv 2202.00449): how a class's score falls when pixels are imputed from their neighbors.

Imputed pixels give away less about where they were than a constant color does. Removing the most relevant first should
lower the score soon, removing the least relevant first should not; `combined` is half the difference of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from ..modeling.perturbation import rank_each
from .case import Case, color_gain, prepare
from .imputation import impute, impute_iteratively

SOLVERS = {"exact": impute, "iterative": impute_iteratively}
DIFFERENCE = "difference"  # of the probability to the clean picture's


@dataclass(frozen=True)
class Road:
    """Means over the percentiles, (B,) each, and the curves "most_first" and "least_first" they are means of, (B, K).

    most_first: lower is better; least_first: higher; combined = (least_first - most_first) / 2: higher.
    """

    most_first: torch.Tensor
    least_first: torch.Tensor
    combined: torch.Tensor
    curves: dict[str, torch.Tensor]
    targets: torch.Tensor
    protocol: dict

    def mean(self) -> dict[str, float]:
        return {key: float(getattr(self, key).mean()) for key in ("most_first", "least_first", "combined")}


@torch.no_grad()
def road(
    classifier: Classifier,
    pixel_values: torch.Tensor,
    attributions: torch.Tensor,
    targets=None,
    *,
    percentiles: Sequence[float] = (10, 20, 30, 40, 50, 60, 70, 80, 90),
    score: str = "probability",
    noise: float = 0.01,
    seed: int = 0,
    solver: str = "exact",
    rank: torch.Tensor | None = None,
    batch_size: int = 32,
) -> Road:
    """ROAD of maps (B, H, W) of pictures (B, 3, H, W).

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> classifier, pictures, maps = random_classifier(), torch.rand(2, 3, 32, 32), torch.rand(2, 32, 32)
    >>> road(classifier, pictures, maps, percentiles=(20, 50)).combined.shape
    torch.Size([2])

    Args:
        percentiles: shares of the pixels that are imputed, in percent; exactly that many whatever ties the map has.
        score: "probability", "logit", "indicator" (is the class the prediction?) or "difference", of the probability
            to the clean picture's.
        noise: standard deviation of what is added to imputed pixels, in colors from 0 to 1. The same noise for every
            picture, by the seed.
        seed: of the noise, and of the order among equal pixels.
        solver: "exact", picture by picture on the CPU, or "iterative", all of a batch on their device.
        rank: of the pixels (B, H, W), 0 = most important, where `rank_each` was called already.
        batch_size: pictures per forward.
    """
    case = prepare(classifier, pixel_values, attributions, targets, batch_size)
    counts = read_percentiles(percentiles, attributions[0].numel())
    if solver not in SOLVERS:
        raise ExplainerError(f"unknown solver {solver!r}; choose from {', '.join(SOLVERS)}.")
    rank = (rank_each(attributions, seed) if rank is None else rank).to(case.pixel_values.device)
    altered = Imputed(case, rank, counts, solver, noise, seed)
    base = "probability" if score == DIFFERENCE else score
    scores = case.altered(base, 2 * len(counts), altered)
    if score == DIFFERENCE:
        scores = scores - case.clean(base)[:, None]
    most, least = scores.cpu().view(len(case), 2, -1).unbind(1)
    protocol = {
        "name": "road", "percentiles": [float(p) for p in percentiles], "score": score, "noise": noise, "seed": seed,
        "solver": solver, "pictures": len(case), "size": list(pixel_values.shape[-2:]),
    }  # fmt: skip
    most_first, least_first = most.mean(1), least.mean(1)
    combined, curves = (least_first - most_first) / 2, {"most_first": most, "least_first": least}
    return Road(most_first, least_first, combined, curves, case.targets.cpu(), protocol)


class Imputed:
    """Alterations of a case's pictures: the first half removes the most relevant, the second the least relevant."""

    def __init__(self, case: Case, rank: torch.Tensor, counts: list[int], solver: str, noise: float, seed: int):
        self.case, self.rank, self.solve = case, rank, SOLVERS[solver]
        self.counts = torch.tensor(counts, device=rank.device)
        self.noise = torch.zeros(2 * len(counts), 1, 1, 1, device=rank.device)
        if noise:
            shape = 2 * len(counts), *case.pixel_values.shape[1:]
            drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(rank.device)
            self.noise = noise * color_gain(case.classifier, drawn) * drawn

    def __call__(self, at: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        rank, count = self.rank[at], self.counts[which % len(self.counts)][:, None, None]
        most = (which < len(self.counts))[:, None, None]
        missing = torch.where(most, rank < count, rank >= rank[0].numel() - count)
        filled = self.solve(self.case.pixel_values[at], missing)
        return filled + self.noise[which] * missing[:, None]


def read_percentiles(percentiles: Sequence[float], total: int) -> list[int]:
    """How many pixels go at each percentile."""
    counts = [round(percentile / 100 * total) for percentile in percentiles]
    wrong = [p for p, count in zip(percentiles, counts, strict=True) if not 0 <= count < total]
    if wrong or not counts:
        what = f"percentile {wrong[0]:g}" if wrong else "no percentile"
        raise ExplainerError(f"{what} of {total} pixels; give some from 0 to below 100, so that a pixel stays.")
    return counts
