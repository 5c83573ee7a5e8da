"""What explainers are trained for: functions of an explainer, a batch and a generator.

`ranking_loss` is deletion and insertion themselves, made differentiable: the map is pooled to a grid, softly ranked,
and the classifier sees the picture at several budgets with the most important cells removed, or only them kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from .modeling.perturbation import ExplainerError, blend, blur_with, reference_image
from .modeling.ranking import draw_gumbel, gumbel_sinkhorn, soft_topk


@dataclass(frozen=True)
class RankingObjective:
    """How `ranking_loss` perturbs and scores.

    Args:
        operator: "sinkhorn", "topk", or "coarse_to_fine": Sinkhorn on grids up to `sinkhorn_limit` cells a side, soft
            top-k on finer ones.
        grids: cells per side, drawn uniformly from this range, both included; None ends at single pixels.
        budgets: points of the curves with both ends, which are constants and cost no forward.
        references: one is drawn per batch.
        tau: first and last temperature, linear over the run.
        standardize: scores to mean 0 and deviation 1 per picture, so that tau alone says how sharp the ranking is.
        noise: scale of the Gumbel noise: on the logits for Sinkhorn, on the scores for soft top-k.
        score_both: condition on the prediction and score the runner-up too, as AHA's release; else the class is drawn.
        rank_twice: rank the negative scores again, with noise of its own, for insertion; else one ranking serves both.
        smooth: sigma in pixels of the Gaussian over the masks.
        peak: weight of the penalty on values above their neighborhood's mean.
    """

    operator: str = "coarse_to_fine"
    grids: tuple[int, int | None] = (7, None)
    sinkhorn_limit: int = 28
    budgets: int = 8
    references: tuple[str | float, ...] = ("black", "mean", "blur", "noise")
    tau: tuple[float, float] = (0.5, 0.05)
    standardize: bool = True
    noise: float = 0.1
    score_both: bool = False
    rank_twice: bool = False
    smooth: float = 0.0
    peak: float = 0.0

    def __post_init__(self):
        if self.operator not in OPERATORS:
            raise ExplainerError(f"unknown operator {self.operator!r}; choose from {', '.join(OPERATORS)}.")
        if self.budgets < 3:
            raise ExplainerError(
                f"budgets={self.budgets}; a curve needs at least 3 points, its two ends are constants."
            )


OPERATORS = ("coarse_to_fine", "sinkhorn", "topk")
OBJECTIVES = {
    "default": RankingObjective(),
    # Objective, operator and schedule of the released code of "Learn to Rank", not its network.
    "aha-release": RankingObjective(
        operator="sinkhorn",
        grids=(7, 28),
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


def ranking_loss(
    explainer,
    pixel_values: torch.Tensor,
    generator: torch.Generator,
    progress: float = 0.0,
    objective: RankingObjective = OBJECTIVES["default"],
) -> tuple[torch.Tensor, dict[str, float]]:
    """Deletion AUC + (1 - insertion AUC) + peak penalty of the explainer's maps of `pixel_values`, and what to log.

    Args:
        generator: of grid, reference, classes and noise, on the CPU; the same state gives the same loss.
        progress: share of the run that is done, which sets the temperature.
    """
    classifier = explainer.require_classifier()
    grid, reference = draw_grid(objective, pixel_values.shape[-2:], generator), draw_reference(objective, generator)
    tau = objective.tau[0] + (objective.tau[1] - objective.tau[0]) * progress
    blank = reference_image(pixel_values, classifier.pixel_space, reference, generator)
    with torch.no_grad():
        logits, maps = explainer.read(pixel_values)
        classes = logits.topk(2).indices if logits.shape[1] > 1 else logits.new_zeros(len(logits), 1, dtype=torch.long)
        ends = torch.stack([classifier.scores(logits), classifier.scores(classifier(blank))])  # (2, B, labels)
    if objective.score_both:
        conditioned, scored = classes[:, :1], classes
    else:  # so that maps of other classes than the prediction are trained too
        second = torch.rand(len(logits), generator=generator) < 0.5
        column = (second.long() % classes.shape[1]).to(classes.device)
        conditioned = scored = classes.gather(1, column[:, None])
    dtype = next(p.dtype for p in explainer.head.parameters())
    attributions = explainer.attribute(pixel_values.to(dtype), [m.to(dtype) for m in maps], conditioned)[:, 0].float()
    top, kappa, error = soft_masks(attributions, grid, tau, objective, generator)  # (B, K, H, W): the most important
    bottom = soft_masks(-attributions, grid, tau, objective, generator)[0].flip(1) if objective.rank_twice else 1 - top
    removed, kept = curves(classifier, pixel_values, blank, top, bottom, scored)  # (B, K, classes) each
    clean, gone = (end.gather(1, scored)[:, None] for end in ends)
    deletion = area(torch.cat([clean, removed, gone], dim=1))
    insertion = area(torch.cat([gone, kept, clean], dim=1))
    loss = deletion + 1 - insertion
    if objective.peak:
        loss = loss + objective.peak * peak_penalty(attributions)
    log = {"deletion": float(deletion), "insertion": float(insertion), "kappa": kappa, "column_error": error}
    return loss, log | {"grid": grid, "tau": tau}


def draw_grid(objective: RankingObjective, size, generator: torch.Generator) -> int:
    """Cells per side; ranges that end at single pixels are drawn evenly on a logarithmic scale."""
    low, high = objective.grids
    pixels = min(size)
    last = min(high or pixels, pixels)
    low = min(low, last)
    share = float(torch.rand((), generator=generator))
    if high is None:
        return min(last, round(low * (last / low) ** share))
    return min(last, low + int(share * (last - low + 1)))


def draw_reference(objective: RankingObjective, generator: torch.Generator) -> str | float:
    return objective.references[int(torch.randint(len(objective.references), (), generator=generator))]


def soft_masks(attributions, grid: int, tau: float, objective: RankingObjective, generator: torch.Generator):
    """Nested soft masks (B, K, H, W) of the most important cells at the inner budgets; kappa; column error."""
    height, width = attributions.shape[1:]
    rows, columns = cells(grid, height, width)
    scores = F.adaptive_avg_pool2d(attributions[:, None], (rows, columns)).flatten(1)  # (B, N)
    if objective.standardize:
        scores = scores - scores.mean(1, keepdim=True)
        scores = scores / scores.detach().std(1, keepdim=True).clamp(min=1e-6)
    shares = torch.linspace(0, 1, objective.budgets)[1:-1].to(scores.device)
    budgets = shares * scores.shape[1]
    kappa, error = float((scores.detach().amax(1) - scores.detach().amin(1)).max()) / tau, 0.0
    if objective.operator == "sinkhorn" or (objective.operator != "topk" and grid <= objective.sinkhorn_limit):
        soft = gumbel_sinkhorn(scores, tau, noise=objective.noise, generator=generator)
        masks, error = soft.masks(budgets), soft.column_error
    else:
        if objective.noise:
            scores = scores + objective.noise * draw_gumbel(scores.shape, generator, scores)
        masks = soft_topk(scores, budgets, tau)
    masks = F.interpolate(masks.unflatten(2, (rows, columns)), size=(height, width), mode="nearest")
    return (smooth(masks, objective.smooth) if objective.smooth else masks), kappa, error


def cells(grid: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns with `grid` cells on the shorter side and square cells."""
    if height <= width:
        return grid, min(width, round(grid * width / height))
    return min(height, round(grid * height / width)), grid


def curves(classifier, pixel_values, blank, top, bottom, scored):
    """Probabilities (B, K, classes) without the top cells, and without the bottom ones; one forward for both."""
    batch, budgets = top.shape[:2]
    pictures, references = (x.repeat_interleave(budgets, 0) for x in (pixel_values, blank))
    perturbed = torch.cat([blend(pictures, masks.flatten(0, 1), references) for masks in (top, bottom)])
    scores = classifier.scores(classifier(perturbed)).unflatten(0, (2, batch, budgets))
    return scores.gather(3, scored[None, :, None].expand(2, -1, budgets, -1)).unbind(0)


def area(curve: torch.Tensor) -> torch.Tensor:
    """Mean over pictures and classes of the areas under (B, points, classes)."""
    return torch.trapezoid(curve, dx=1 / (curve.shape[1] - 1), dim=1).mean()


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


def find_objective(name: str, **changes) -> RankingObjective:
    """The preset `name` of `OBJECTIVES`, with single values changed."""
    if name not in OBJECTIVES:
        raise ExplainerError(f"unknown objective {name!r}; choose from {', '.join(OBJECTIVES)}.")
    return replace(OBJECTIVES[name], **changes)
