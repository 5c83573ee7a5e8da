"""A few steps of descent on a picture's own map, learned or not: slower than the map, closer to what is measured.

"Learn to Rank" (arXiv 2604.05819) names an optional refinement but does not publish its recipe; this one is ours. To
the standardized map a residual is added, zero at first: a sum of grids. Each step draws one budget per stratum, removes
and keeps the softly most important pixels, and makes the class less probable where they are removed and more probable
where they alone are kept. Of the start and the maps on the way, the one that is best with hard masks is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers.utils import logging

from ..faithfulness.case import all_logits, check_maps
from ..jobs.randomness import keyed
from ..modeling.classifier import Classifier, as_classifier
from ..modeling.errors import ExplainerError, whole_number
from ..modeling.perturbation import blend, rank_each
from ..modeling.precision import widest_float
from ..modeling.ranking import soft_topk
from ..modeling.references import find_reference, reference_image
from ..modeling.targets import read_targets
from .objectives import cells
from .refinement_settings import Refinement, read_settings

SHARES = tuple(odd / 16 for odd in range(1, 16, 2))  # where iterates are compared: no point of 21 even budgets
BUDGETS, NOISE, CHECK = range(3)  # what is drawn
FLOOR = 1e-4  # added to what a logarithm is taken of


def refine(
    classifier,
    pixel_values: torch.Tensor,
    attributions: torch.Tensor,
    targets=None,
    *,
    steps: int = 8,
    seed: int = 0,
    batch_size: int = 32,
    image_processor=None,
    **changes,
) -> torch.Tensor:
    """Refined maps (B, H, W), float32, none worse than its start by `Curves.hard_loss`; only their order has a meaning.

    They are the standardized start plus what was found. A picture's map depends on nothing but the picture, its start,
    its class and the seed. The classifier is left as it was.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> classifier, pictures, maps = random_classifier(), torch.rand(2, 3, 32, 32), torch.rand(2, 32, 32)
    >>> refine(classifier, pictures, maps, steps=1, budgets=2).shape
    torch.Size([2, 32, 32])

    Args:
        classifier: a `Classifier`, or a model together with image_processor=.
        attributions: where to start, (B, H, W). Constant maps rank nothing and are refused; `METHODS["random"]` makes
            a start of noise.
        targets: the classes the maps are of; default the prediction.
        steps: 0 returns the maps as they are.
        seed: of the budgets, of reference "noise", and of the order among equal pixels.
        batch_size: pictures per forward; a step needs 2 * budgets of them per map, or several forwards.
        changes: other values of `Refinement`.
    """
    settings = read_settings({"steps": steps, **changes})
    seed, batch_size = whole_number("seed", seed, 0), whole_number("batch_size", batch_size, 1)
    classifier = as_classifier(classifier, image_processor)
    check_maps(pixel_values, attributions)
    full = torch.autocast(classifier.device.type, enabled=False)
    with torch.inference_mode(False), torch.no_grad(), full:  # what is made in inference mode has no gradient
        starts = attributions.detach().clone()
        if not settings.steps:
            return starts.float()
        pictures = pixel_values.detach().to(classifier.device, torch.float32, copy=True)
        targets = read_targets(targets, all_logits(classifier, pictures, batch_size)).clone()
        if targets.ndim != 1:
            raise ExplainerError(f"targets of shape {tuple(targets.shape)}; a map is refined for one class.")
        groups = list(zip(*(v.split(batch_size) for v in (pictures, starts, targets)), strict=True))
        maps, few = [], len(pictures) * settings.budgets <= batch_size
        total = len(groups) * settings.steps
        with logging.tqdm(total=total, desc="refining", disable=True if few else None, leave=False) as bar:
            for x, start, target in groups:
                curves = Curves(classifier, x, target, settings, seed, batch_size)
                maps.append(descend(curves, standardize(start).to(x.device), bar))
        return torch.cat(maps).to(attributions.device)


def standardize(maps: torch.Tensor) -> torch.Tensor:
    """(B, H, W) with mean 0 and deviation 1 of what lies between the percentiles 1 and 99, so that no outlier decides.

    >>> standardize(torch.tensor([[[1.0, 3.0], [3.0, 1.0]]])).tolist()
    [[[-1.0, 1.0], [1.0, -1.0]]]
    """
    flat = maps.flatten(1).to(widest_float(maps.device))
    ordered, end = flat.sort(1).values, flat.shape[1] // 100
    low, high = ordered[:, end, None], ordered[:, -1 - end, None]
    all_count = low == high  # where nearly all are equal
    low, high = torch.where(all_count, ordered[:, :1], low), torch.where(all_count, ordered[:, -1:], high)
    flat = (flat - low) / (high - low)  # so that no square is too large or too small for float32
    deviation, mean = torch.std_mean(flat.clamp(0, 1), 1, keepdim=True, correction=0)
    return ((flat - mean) / deviation).float().view_as(maps)


@dataclass(frozen=True)
class Curves:
    """Deletion and insertion of maps of some pictures (B, 3, H, W) and their classes (B,), soft or hard."""

    classifier: Classifier
    pixel_values: torch.Tensor
    targets: torch.Tensor
    settings: Refinement
    seed: int
    batch_size: int

    def blank(self, reference: str | float, *key: int) -> torch.Tensor:
        """The reference of each picture; noise is the same for every picture of a seed and key."""
        one, space = self.pixel_values[:1], self.classifier.pixel_space
        if find_reference(reference).per_pixel:
            random = keyed(self.seed, *key, device=one.device)
            return reference_image(one, space, reference, random).expand_as(self.pixel_values)
        return reference_image(self.pixel_values, space, reference)

    def probability(self, at: torch.Tensor, removed: torch.Tensor, blank: torch.Tensor) -> torch.Tensor:
        """Of the class of picture `at` (J,), where `removed` (J, H, W) is replaced."""
        logits = self.classifier(blend(self.pixel_values[at], removed, blank[at]))
        return self.classifier.scores(logits).gather(1, self.targets[at, None])[:, 0]

    def jobs(self, points: int):
        """(picture, point) of every forward, in chunks."""
        every = torch.arange(len(self.pixel_values) * points, device=self.pixel_values.device)
        for jobs in every.split(self.batch_size):
            yield jobs // points, jobs % points

    def soft_slope(self, masks: torch.Tensor, blank: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradient of the loss by soft masks (B, K, H, W), each picture's own; its value (B,).

        The logarithms keep a slope where the classifier is sure, and the probability itself has hardly any.
        """
        points, weight = masks.shape[1], self.settings.insertion
        slope, loss = torch.zeros_like(masks), masks.new_zeros(masks.shape[:2])
        for at, point in self.jobs(points):
            for removes in (True, False):
                with torch.enable_grad():
                    mask = masks[at, point].detach().requires_grad_(True)
                    scores = self.probability(at, mask if removes else 1 - mask, blank)
                    part = -torch.log(1 - scores + FLOOR) if removes else -weight * torch.log(scores + FLOOR)
                    slope[at, point] += torch.autograd.grad(part.sum(), mask)[0] / points
                loss[at, point] += part.detach()
        return slope, loss.mean(1)

    @torch.no_grad()
    def hard_loss(self, maps: torch.Tensor) -> torch.Tensor:
        """Deletion + weight * (1 - insertion) (B,) with whole pixels, at `SHARES`, mean over the judges."""
        rank = rank_each(maps.cpu(), self.seed).to(maps.device)
        cuts = torch.tensor([round(share * rank[0].numel()) for share in SHARES], device=maps.device)
        loss = maps.new_zeros(len(maps), len(cuts))
        for reference in self.settings.judges:
            blank = self.blank(reference, CHECK)
            for at, point in self.jobs(len(cuts)):
                top = rank[at] < cuts[point, None, None]
                removed, kept = (self.probability(at, pixels, blank) for pixels in (top, ~top))
                loss[at, point] += removed + self.settings.insertion * (1 - kept)
        return loss.mean(1) / len(self.settings.judges)


@torch.no_grad()
def descend(curves: Curves, start: torch.Tensor, bar=None) -> torch.Tensor:
    """The best of `start` (B, H, W), standardized, and the maps that Adam finds from there."""
    settings, size = curves.settings, start.shape[1:]
    grids = make_grids(start, settings.scales)
    optimizer = torch.optim.Adam(grids, settings.learning_rate, eps=0.1)
    best, least = start, curves.hard_loss(start)
    for step in range(settings.steps):
        reference = settings.references[step % len(settings.references)]
        blank = curves.blank(reference, NOISE, step)
        within = torch.rand(settings.budgets, generator=keyed(curves.seed, BUDGETS, step), dtype=torch.float64)
        shares = (torch.arange(settings.budgets) + within) / settings.budgets
        count = start[0].numel()
        with torch.enable_grad():
            scores = start + residual(grids, size)
            masks = soft_topk(scores.flatten(1), (shares * count).clamp(0.5, count - 0.5), settings.tau)
        slope, _ = curves.soft_slope(masks.detach().unflatten(2, size), blank)
        for grid, gradient in zip(grids, torch.autograd.grad(masks, grids, slope.flatten(2)), strict=True):
            # Of length 1 per picture and grid: Adam's eps is a share of it, so that rounding, which depends on the
            # batch, and what hardly matters are not blown up to full steps.
            length = gradient.square().mean((1, 2, 3), keepdim=True).sqrt()
            grid.grad = gradient / length.clamp(min=torch.finfo(gradient.dtype).tiny)
        optimizer.step()
        if (step + 1) % settings.compare == 0 or step + 1 == settings.steps:
            now = start + residual(grids, size)
            loss = curves.hard_loss(now)
            better = loss < least - 1e-6  # what is equal up to rounding stays as it was
            best, least = torch.where(better[:, None, None], now, best), torch.where(better, loss, least)
        if bar is not None:
            bar.update()
    return best


def make_grids(start: torch.Tensor, scales) -> list[torch.Tensor]:
    """Zeros (B, 1, rows, columns) per scale; scales finer than the picture are single pixels."""
    height, width = start.shape[1:]
    pixels = min(height, width)
    sizes = [(height, width) if s is None or s >= pixels else cells(s, height, width) for s in scales]
    return [start.new_zeros(len(start), 1, *size).requires_grad_(True) for size in dict.fromkeys(sizes)]


def residual(grids: list[torch.Tensor], size) -> torch.Tensor:
    """The sum (B, H, W) of the grids, brought to `size`."""
    return torch.stack([F.interpolate(grid, size, mode="bilinear", align_corners=False) for grid in grids]).sum(0)[:, 0]
