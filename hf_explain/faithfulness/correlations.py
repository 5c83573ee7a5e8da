"""Does the importance of a group of pixels agree with what removing it does? Correlations, one per picture, -1 to 1.

Defined as in Quantus 0.6.0, but over pixels with all their channels, not channel entries. A correlation with something
constant is undefined: NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from ..modeling.perturbation import blend, rank_each
from ..modeling.references import find_reference, reference_image
from .case import Case, need_space, prepare
from .similarity import find_similarity

# Settings of Semantic Pullbacks (arXiv 2507.22832), for ground-truth targets. There 3136 channel entries of 3 x 224 x
# 224 go at each of 48 steps; here it is as many steps of whole pixels. Its fill 0 in [-1, 1] is mid gray. Over which
# grays its uniform fill goes is not known; here over all of them.
SP: dict[str, dict] = {
    "faithfulness_correlation": {"grid": 4, "absolute": True, "reference": 0.5},
    "faithfulness_estimate": {"steps": 48, "absolute": True, "reference": 0.5},
    "monotonicity_correlation": {"steps": 48, "draws": 10, "absolute": True, "score": "probability"},
    "random_logit": {"similarity": "pearson", "absolute": False},
}


# ---- the metrics ----


@torch.no_grad()
def faithfulness_correlation(
    classifier: Classifier,
    pixel_values: torch.Tensor,
    attributions: torch.Tensor,
    targets=None,
    *,
    runs: int = 100,
    subset_size: int = 224,
    grid: int | None = None,
    absolute: bool = False,
    reference: str | float | torch.Tensor = "black",
    score: str = "logit",
    similarity: str = "pearson",
    seed: int = 0,
    batch_size: int = 32,
) -> torch.Tensor:
    """Of the sum of a subset's attributions with the drop of the score when it is removed (Bhatt et al., 2020): (B,).

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> classifier, pictures, maps = random_classifier(), torch.rand(2, 3, 32, 32), torch.rand(2, 32, 32)
    >>> faithfulness_correlation(classifier, pictures, maps, runs=8, subset_size=16).shape
    torch.Size([2])

    Args:
        runs, subset_size: random subsets, and pixels of each; the same for every picture, by the seed.
        grid: instead of random subsets, the cells of a grid x grid partition of the picture.
        absolute: of attributions, their absolute value.
    """
    case = prepare(classifier, pixel_values, attributions, targets, batch_size)
    height, width = attributions.shape[1:]
    if grid is not None:
        subsets = grid_labels(height, width, grid) == torch.arange(grid * grid)[:, None, None]
    else:
        if not 1 <= subset_size <= height * width or runs < 2:
            raise ExplainerError(
                f"runs={runs} and subset_size={subset_size} for {height} x {width} pixels; give at least 2 runs, of 1 "
                f"to {height * width} pixels."
            )
        random = torch.Generator().manual_seed(seed)
        order = torch.rand(runs, height * width, generator=random).argsort(1)
        subsets = (order < subset_size).view(runs, height, width)  # a permutation holds each number below it once
    maps = attributions.abs() if absolute else attributions
    return correlate_subsets(case, maps, subsets, reference, score, similarity)


def correlate_subsets(case: Case, maps, subsets, reference, score: str, similarity: str) -> torch.Tensor:
    """Similarity of the sums over subsets (K, H, W) bool with the drops when they are removed: (B,)."""
    blank, subsets = removed(case, reference), subsets.to(case.pixel_values.device)
    found = case.altered(score, len(subsets), lambda at, which: blend(case.pixel_values[at], subsets[which], blank[at]))
    sums = maps.to(subsets.device).double().flatten(1) @ subsets.flatten(1).double().T
    return find_similarity(similarity)(sums, case.clean(score)[:, None] - found).cpu()


@torch.no_grad()
def faithfulness_estimate(
    classifier: Classifier,
    pixel_values: torch.Tensor,
    attributions: torch.Tensor,
    targets=None,
    *,
    steps: int = 48,
    absolute: bool = False,
    reference: str | float | torch.Tensor = "black",
    score: str = "logit",
    similarity: str = "pearson",
    seed: int = 0,
    batch_size: int = 32,
) -> torch.Tensor:
    """As above, of groups of equally important pixels, one removed at a time (Alvarez-Melis & Jaakkola, 2018): (B,).

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> classifier, pictures, maps = random_classifier(), torch.rand(2, 3, 32, 32), torch.rand(2, 32, 32)
    >>> faithfulness_estimate(classifier, pictures, maps, steps=8).shape
    torch.Size([2])

    Args:
        steps: groups the pixels are split into by falling importance, of equal size up to rounding.
        seed: of the order among equal pixels.
    """
    case = prepare(classifier, pixel_values, attributions, targets, batch_size)
    maps = (attributions.abs() if absolute else attributions).to(case.pixel_values.device)
    group = groups(maps, steps, seed)
    blank = removed(case, reference)

    def alter(at, which):
        return blend(case.pixel_values[at], group[at] == which[:, None, None], blank[at])

    drops = case.clean(score)[:, None] - case.altered(score, steps, alter)
    return find_similarity(similarity)(group_sums(maps, group, steps), drops).cpu()


@torch.no_grad()
def monotonicity_correlation(
    classifier: Classifier,
    pixel_values: torch.Tensor,
    attributions: torch.Tensor,
    targets=None,
    *,
    steps: int = 48,
    draws: int = 100,
    grays: tuple[float, float] = (0.0, 1.0),
    absolute: bool = True,
    score: str = "probability",
    similarity: str = "spearman",
    seed: int = 0,
    batch_size: int = 32,
) -> torch.Tensor:
    """Of a group's attribution with the mean squared change of the score when it becomes a random gray: (B,).

    Nguyen & Martinez, 2020. They divide the change by the squared clean score, which no correlation sees.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> classifier, pictures, maps = random_classifier(), torch.rand(2, 3, 32, 32), torch.rand(2, 32, 32)
    >>> monotonicity_correlation(classifier, pictures, maps, steps=8, draws=2).shape
    torch.Size([2])

    Args:
        steps: groups the pixels are split into by importance, of equal size up to rounding.
        draws: grays each group becomes, one after the other; drawn evenly from `grays`, the same for every picture.
    """
    case = prepare(classifier, pixel_values, attributions, targets, batch_size)
    maps = (attributions.abs() if absolute else attributions).to(case.pixel_values.device)
    group = groups(maps, steps, seed)
    low, high = grays
    drawn = torch.rand(steps * draws, generator=torch.Generator().manual_seed(seed)).to(maps.device)
    rgb = (low + (high - low) * drawn).view(-1, 1, 1, 1).expand(-1, 3, 1, 1)
    fill = need_space(classifier).from_rgb(rgb).to(case.pixel_values)

    def alter(at, which):
        hit = group[at] == (which // draws)[:, None, None]
        return blend(case.pixel_values[at], hit, fill[which])

    found = case.altered(score, steps * draws, alter).double()
    changes = (found - case.clean(score)[:, None]).square().view(len(case), steps, draws).mean(2)
    return find_similarity(similarity)(group_sums(maps, group, steps), changes).cpu()


@torch.no_grad()
def random_logit(
    classifier: Classifier,
    pixel_values: torch.Tensor,
    attributions: torch.Tensor,
    targets=None,
    *,
    method: Callable[..., torch.Tensor],
    similarity: str = "ssim",
    absolute: bool = False,
    seed: int = 0,
    batch_size: int = 32,
) -> torch.Tensor:
    """How alike the map is to the same method's map of another class (Sixt et al., 2020): (B,). Lower tells more apart.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> classifier, pictures, maps = random_classifier(), torch.rand(2, 3, 32, 32), torch.rand(2, 32, 32)
    >>> from hf_explain import METHODS
    >>> random_logit(classifier, pictures, METHODS["gradient"](classifier, pictures), method=METHODS["gradient"]).shape
    torch.Size([2])

    Args:
        method: makes maps, called `method(classifier, pixel_values, targets)`.
        seed: of the other class, drawn by the seed and the target, so that a picture's is the same in any batch.
    """
    case = prepare(classifier, pixel_values, attributions, targets, batch_size)
    others = other_classes(case.targets, case.logits.shape[1], seed)
    maps = case.maps_of(method, others).to(attributions.device)
    one, another = (m.abs() if absolute else m for m in (attributions, maps))
    return find_similarity(similarity)(one.flatten(1), another.flatten(1)).cpu()


# ---- which pixels ----


def removed(case: Case, reference) -> torch.Tensor:
    if isinstance(reference, str) and find_reference(reference).per_pixel:
        raise ExplainerError(f"reference {reference!r} is random for every pixel; choose a color, 'blur' or a tensor.")
    return reference_image(case.pixel_values, case.classifier.pixel_space, reference)


def grid_labels(height: int, width: int, grid: int) -> torch.Tensor:
    """Number of the cell each pixel is in, (H, W), of a grid x grid partition as equal as rounding allows."""
    if not 2 <= grid <= min(height, width):
        raise ExplainerError(
            f"grid={grid} for {height} x {width} pixels; give 2 to {min(height, width)} cells per side."
        )
    rows, columns = (torch.arange(size) * grid // size for size in (height, width))
    return rows[:, None] * grid + columns


def groups(maps: torch.Tensor, steps: int, seed: int) -> torch.Tensor:
    """Which of `steps` groups by falling importance each pixel is in, (B, H, W); ties are broken by the seed."""
    total = maps[0].numel()
    if not 2 <= steps <= total:
        raise ExplainerError(f"steps={steps} for {total} pixels; give 2 to {total}.")
    cuts = torch.tensor([round(step * total / steps) for step in range(1, steps)], device=maps.device)
    return torch.bucketize(rank_each(maps, seed).to(maps.device), cuts, right=True)


def group_sums(maps: torch.Tensor, group: torch.Tensor, steps: int) -> torch.Tensor:
    sums = torch.zeros(len(maps), steps, dtype=torch.float64, device=maps.device)
    return sums.scatter_add_(1, group.flatten(1), maps.flatten(1).double())


def other_classes(targets: torch.Tensor, labels: int, seed: int) -> torch.Tensor:
    """Another class than the target for each, (B,)."""
    if labels < 2:
        raise ExplainerError(
            "this classifier has one class, so there is no other to compare with; leave this metric out."
        )
    random = torch.Generator()
    drawn = [
        int(torch.randint(labels - 1, (), generator=random.manual_seed(seed * 1_000_003 + target)))
        for target in targets.tolist()
    ]
    return torch.tensor([d + (d >= t) for d, t in zip(drawn, targets.tolist(), strict=True)], device=targets.device)
