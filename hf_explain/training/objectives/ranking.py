"""Deletion and insertion as a loss: the objective of ranking explainers (Learn to Rank).

`ranking_loss` is deletion and insertion themselves, made differentiable: the map is pooled to a grid, softly ranked,
and the classifier sees the picture at several budgets with the most important cells removed, or only them kept.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F

from ...modeling.errors import ExplainerError
from ...modeling.perturbation import blend
from ...modeling.ranking import draw_gumbel, gumbel_sinkhorn, soft_topk
from ...modeling.references import blur_with, read_reference
from ..draws import BOTTOM, TOP, Draws, draw_blank, draw_budgets, draw_classes, draw_grid, draw_reference
from ..packing import score_in_packs
from .objective import Objective


@dataclass(frozen=True)
class RankingObjective(Objective):
    """How `ranking_loss` perturbs and scores.

    Args:
        operator: "sinkhorn", "topk", or "coarse_to_fine": Sinkhorn on grids up to `sinkhorn_limit` cells a side, soft
            top-k on finer ones and on single pixels.
        grids: cells per side, drawn uniformly from this range, both included; None ends at single pixels.
        coarse: share of the run in which grids are drawn; from there on every cell is a single pixel.
        sampled: budgets each picture draws for itself, one in each of as many equal parts of [0, 1]: few forwards per
            picture, and areas that are right on average. 0 for even budgets.
        budgets: points of the curves if even, with both ends, which are constants and cost no forward.
        references: one is drawn per batch.
        runner_up: share of the pictures whose second most probable class is conditioned on and scored.
        tau: first and last temperature, linear over the run.
        standardize: scores to mean 0 and deviation 1 per picture, so that tau alone says how sharp the ranking is.
        noise: scale of the Gumbel noise: on the logits for Sinkhorn, on the scores for soft top-k.
        score_both: condition on the prediction and score the runner-up too, as AHA's release, instead of drawing.
        rank_twice: rank the negative scores again, with noise of its own, for insertion; else one ranking serves both.
        smooth: sigma in pixels of the Gaussian over the masks.
        insertion: weight of 1 - insertion AUC beside the deletion AUC.
        peak: weight of the penalty on values above their neighborhood's mean.
    """

    logged: ClassVar[tuple[str, ...]] = ("deletion", "insertion", "kappa", "column_error", "grid", "tau")
    means: ClassVar[tuple[str, ...]] = ("deletion", "insertion")
    shown: ClassVar[tuple[str, ...]] = ("deletion", "insertion", "kappa")

    operator: str = "coarse_to_fine"
    grids: tuple[int, int | None] = (7, 28)
    coarse: float = 0.15
    sinkhorn_limit: int = 14
    budgets: int = 8
    sampled: int = 2
    references: tuple[str | float, ...] = ("black", "mean", "blur", "noise", 1.0)
    runner_up: float = 0.5
    tau: tuple[float, float] = (0.5, 0.05)
    standardize: bool = True
    noise: float = 0.1
    score_both: bool = False
    rank_twice: bool = False
    smooth: float = 0.0
    insertion: float = 1.0
    peak: float = 0.0

    def __post_init__(self):
        if self.operator not in OPERATORS:
            raise ExplainerError(f"unknown operator {self.operator!r}; choose from {', '.join(OPERATORS)}.")
        if self.sampled < 0:
            raise ExplainerError(f"sampled={self.sampled}; give 0 for even budgets, or how many to draw.")
        if not self.references:
            raise ExplainerError("references is empty; name at least one, such as black.")
        if not 0 <= self.coarse <= 1:
            raise ExplainerError(f"coarse={self.coarse}; give a share of the run, from 0 to 1.")
        if not all(0 < tau < math.inf for tau in self.tau):
            raise ExplainerError(f"tau={self.tau}; give two temperatures above 0.")
        if not 0 <= self.noise < math.inf:
            raise ExplainerError(f"noise={self.noise}; give a scale of 0 or more.")
        if self.budgets < 3:
            raise ExplainerError(
                f"budgets={self.budgets}; a curve needs at least 3 points, its two ends are constants."
            )

    def loss(self, explainer, pixel_values, draws: Draws, progress: float = 0.0, autocast=None):
        """Deletion AUC + (1 - insertion AUC) + peak penalty of the explainer's maps, and what to log."""
        classifier, shared = explainer.require_classifier(), draws.shared()
        grid = draw_grid(self.grids, self.coarse, pixel_values.shape[-2:], shared, progress)
        reference = draw_reference(self.references, shared)
        tau = self.tau[0] + (self.tau[1] - self.tau[0]) * progress
        blank = draw_blank(classifier, pixel_values, reference, draws)
        lower = torch.autocast(pixel_values.device.type, autocast) if autocast else nullcontext()
        with torch.no_grad(), lower:
            logits, maps = explainer.read(pixel_values)
            ends = None if self.sampled else ends_of_curves(classifier, logits, blank)
        conditioned, scored = draw_classes(logits, draws, self.runner_up, self.score_both)
        with lower:
            slopes = explainer.slopes(pixel_values, conditioned)
        attributions = explainer.map_of(pixel_values, maps, conditioned, slopes)[:, 0]
        shares, weights = draw_budgets(attributions, draws, self.sampled, self.budgets)  # (B, K) each
        top, kappa, error = soft_masks(attributions, shares, grid, tau, self, draws)  # (B, K, H, W): most important
        bottom = 1 - top
        if self.rank_twice:
            bottom = soft_masks(-attributions, 1 - shares, grid, tau, self, draws, BOTTOM)[0]
        removed, kept = curves(classifier, pixel_values, blank, top, bottom, scored, lower)  # (B, K) each
        deletion, insertion = (mean_area(curve, weights, ends, scored, self) for curve in (removed, kept))
        loss = deletion + self.insertion * (1 - insertion)
        if self.peak:
            loss = loss + self.peak * peak_penalty(attributions)
        areas = {"deletion": float(deletion.detach()), "insertion": float(insertion.detach())}
        return loss, areas | {"kappa": kappa, "column_error": error, "grid": grid, "tau": tau}


OPERATORS = ("coarse_to_fine", "sinkhorn", "topk")
OBJECTIVES = {
    "default": RankingObjective(),
    # Objective, operator and schedule of the released code of "Learn to Rank", not its network.
    "aha-release": RankingObjective(
        operator="sinkhorn",
        grids=(7, 28),
        coarse=1.0,
        sampled=0,
        budgets=16,
        references=("black", "mean", "blur"),
        tau=(1.0, 0.3),
        standardize=False,
        noise=1.0,
        score_both=True,
        rank_twice=True,
        smooth=1.0,
        peak=0.0025,
    ),
}


def find_objective(name: str, **changes) -> RankingObjective:
    """The preset `name` of `OBJECTIVES`, with single values changed; grids that are asked for are for the whole run."""
    if name not in OBJECTIVES:
        raise ExplainerError(f"unknown objective {name!r}; choose from {', '.join(OBJECTIVES)}.")
    return replace(OBJECTIVES[name], **for_the_whole_run(changes))


def for_the_whole_run(changes: dict) -> dict:
    if "grids" in changes or changes.get("operator") == "sinkhorn":  # whose memory is the square of the cells
        return {"coarse": 1.0, **changes}
    return changes


def read_settings(given: dict) -> dict:
    """Values of `RankingObjective` from those of a `TrainingConfig`, whose numbers may be words."""
    changes = dict(given)
    if "budgets" in changes and changes.setdefault("sampled", 0):
        raise ExplainerError(
            f"budgets={given['budgets']} with sampled={given['sampled']}; give even budgets or sampled ones, not both."
        )
    for name in ("grids", "tau"):
        if name in changes and len(changes[name]) != 2:
            raise ExplainerError(f"{name}={changes[name]}; give two values, the first and the last.")
    if "grids" in changes:
        low, high = changes["grids"]
        low, high = as_integer(low), None if high in ("pixels", None) else as_integer(high)
        if low < 2 or (high is not None and high < low):
            raise ExplainerError(
                f"grids={given['grids']}; give two counts of cells in rising order, from 2 on, or 'pixels' as the last."
            )
        changes["grids"] = (low, high)
    if "references" in changes:
        changes["references"] = tuple(map(read_reference, changes["references"]))
    return for_the_whole_run(changes)


def as_integer(value) -> int:
    try:
        return int(value)
    except ValueError:
        raise ExplainerError(f"grids holds {value!r}; give counts of cells, or 'pixels' as the last.") from None


def ranking_loss(
    explainer,
    pixel_values: torch.Tensor,
    draws: Draws,
    progress: float = 0.0,
    objective: RankingObjective = OBJECTIVES["default"],
    autocast: torch.dtype | None = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Deletion AUC + (1 - insertion AUC) + peak penalty of the explainer's maps of `pixel_values`, and what to log.

    Args:
        draws: of grid and reference, and per picture of class and noise; the same draws give the same loss.
        progress: share of the run that is done, which sets the temperature.
        autocast: a dtype for the classifier's forwards; everything else stays as it is.
    """
    return objective.loss(explainer, pixel_values, draws, progress, autocast)


def ends_of_curves(classifier, logits: torch.Tensor, blank: torch.Tensor) -> torch.Tensor:
    """Probabilities (2, B, num_labels) of the whole pictures and of the blank ones, where no map matters."""
    whole = classifier.scores(logits)
    return torch.stack([whole, classifier.scores(classifier(blank)).expand(len(whole), -1)])


def soft_masks(attributions, shares, grid: int, tau: float, objective: RankingObjective, draws: Draws, what: int = TOP):
    """Nested soft masks (B, K, H, W) of the most important `shares` (B, K) of the cells; kappa; column error."""
    height, width = attributions.shape[1:]
    rows, columns = cells(grid, height, width)
    scores = F.adaptive_avg_pool2d(attributions[:, None], (rows, columns)).flatten(1)  # (B, N)
    if objective.standardize:
        scores = scores - scores.mean(1, keepdim=True)
        scores = scores / scores.detach().std(1, keepdim=True).clamp(min=1e-6)
    budgets = shares * scores.shape[1]
    kappa, error = float((scores.detach().amax(1) - scores.detach().amin(1)).max()) / tau, 0.0
    count = scores.shape[1]

    def gumbel(*shape):
        return objective.noise * draws.stack(scores, what, lambda g: draw_gumbel(shape, g, scores))

    if objective.operator == "sinkhorn" or (objective.operator != "topk" and grid <= objective.sinkhorn_limit):
        soft = gumbel_sinkhorn(scores, tau, noise=gumbel(count, count) if objective.noise else 0.0, warn=False)
        masks, error = soft.masks(budgets), soft.column_error
    else:
        masks = soft_topk(scores + gumbel(count) if objective.noise else scores, budgets, tau)
    masks = F.interpolate(masks.unflatten(2, (rows, columns)), size=(height, width), mode="nearest")
    return (smooth(masks, objective.smooth) if objective.smooth else masks), kappa, error


def cells(grid: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns with `grid` cells on the shorter side and square cells."""
    if height <= width:
        return grid, min(width, round(grid * width / height))
    return min(height, round(grid * height / width)), grid


def curves(classifier, pixel_values, blank, top, bottom, scored, lower=None):
    """Probabilities (B, K) without the top cells, and without the bottom ones, mean over the classes that count."""
    batch, budgets = top.shape[:2]
    blank = blank.expand_as(pixel_values)

    def probability(masks, at):
        picture = at % (batch * budgets) // budgets
        with lower or nullcontext():
            scores = classifier.scores(classifier(blend(pixel_values[picture], masks, blank[picture])))
        return scores.gather(1, scored[picture]).mean(1)

    masks = torch.cat([top, bottom]).flatten(0, 1)
    return score_in_packs(probability, masks, classifier, pixel_values).view(2, batch, budgets).unbind(0)


def mean_area(curve, weights, ends, scored, objective: RankingObjective) -> torch.Tensor:
    """Area under a curve (B, K), mean over pictures; with its `ends` if budgets are even."""
    area = (weights * curve).sum(1)
    if ends is not None:  # each is half a trapezoid wide
        area = area + ends.gather(2, scored.expand(2, -1, -1)).sum(0).mean(1) / (2 * (objective.budgets - 1))
    return area.mean()


def smooth(masks: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian of `sigma` pixels over 7 x 7, reflected borders, as AHA's release."""
    at = torch.arange(-3, 4, device=masks.device, dtype=masks.dtype)
    return blur_with(masks, torch.exp(-0.5 * (at / sigma) ** 2)).clamp(0, 1)


def peak_penalty(attributions: torch.Tensor) -> torch.Tensor:
    """Mean squared excess of a value over the mean of its 15 x 15 neighborhood."""
    side = min(7, min(attributions.shape[-2:]) - 1)
    padded = F.pad(attributions[:, None], [side] * 4, mode="reflect")
    mean = F.avg_pool2d(padded, 2 * side + 1, stride=1)[:, 0]
    return F.relu(attributions - mean).square().mean()
