"""Infidelity and max-sensitivity (Yeh et al., arXiv 1901.09392), one number per picture, as captum's.

The random perturbations are the same for every picture, by the seed, whatever the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from ..modeling.perturbation import blend
from .case import Case, check_maps, color_gain, need_space, prepare
from .correlations import grid_labels

# Settings of Semantic Pullbacks (arXiv 2507.22832), for ground-truth targets: cells of 112 and 56 of 224 pixels become
# random grays, and stay so until the last cell. Its radius 0.02 is of a space from -1 to 1.
SP: dict[str, dict] = {
    "infidelity": {"perturbation": "blocks", "draws": 5, "grids": (2, 4), "normalize": True},
    "max_sensitivity": {"draws": 10, "radius": 0.01},
}


@torch.no_grad()
def infidelity(
    classifier: Classifier,
    pixel_values: torch.Tensor,
    attributions: torch.Tensor,
    targets=None,
    *,
    perturbation: str = "noise",
    draws: int = 10,
    deviation: float = 0.1,
    grids: Sequence[int] = (2, 4),
    normalize: bool = False,
    score: str = "logit",
    seed: int = 0,
    batch_size: int = 32,
) -> torch.Tensor:
    """Mean squared difference of what a map says a perturbation does and what it does, (B,). Lower is better.

    What it says is the sum of the map, the same for all channels, times the perturbation, in `pixel_values`' space.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> classifier, pictures, maps = random_classifier(), torch.rand(2, 3, 32, 32), torch.rand(2, 32, 32)
    >>> infidelity(classifier, pictures, maps, draws=2).shape
    torch.Size([2])

    Args:
        perturbation: "noise", Gaussian, or "blocks": for each draw and grid the cells become random grays one after
            the other, and each state is a perturbation.
        deviation: standard deviation of the noise, in colors from 0 to 1.
        grids: cells per side of the blocks.
        normalize: scale each picture's map by the factor that makes the result least, so that only its shape counts.
        batch_size: pictures per forward.
    """
    case = prepare(classifier, pixel_values, attributions, targets, batch_size)
    if draws < 1:
        raise ExplainerError(f"draws={draws}; give at least 1.")
    if perturbation not in ("noise", "blocks"):
        raise ExplainerError(f"unknown perturbation {perturbation!r}; choose from noise, blocks.")
    if perturbation == "noise":
        noise = deviation * torch.randn(draws, *case.pixel_values.shape[1:], generator=seeded(seed))
        perturb, count = noise_table(case, noise)
    else:
        perturb, count = block_table(case, draws, grids, seed)
    maps, parts = attributions.to(case.pixel_values.device).double()[:, None], []

    def alter(at, which):
        altered = perturb(case.pixel_values[at], which)
        parts.append((maps[at] * (case.pixel_values[at] - altered)).flatten(1).sum(1))
        return altered

    done = case.clean(score).double()[:, None] - case.altered(score, count, alter).double()  # (B, count)
    said = torch.cat(parts).view_as(done)
    if normalize:
        said *= (said * done).sum(1, keepdim=True) / (said**2).sum(1, keepdim=True)
    return ((said - done) ** 2).mean(1).float().cpu()


@torch.no_grad()
def max_sensitivity(
    classifier: Classifier,
    pixel_values: torch.Tensor,
    targets=None,
    *,
    method: Callable[..., torch.Tensor],
    draws: int = 10,
    radius: float = 0.02,
    seed: int = 0,
    batch_size: int = 32,
) -> torch.Tensor:
    """How far a map moves, at most, when the picture moves a little, as a share of its norm: (B,). Lower is better.

    >>> from hf_explain import METHODS
    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> max_sensitivity(random_classifier(), torch.rand(2, 3, 32, 32), method=METHODS["gradient"], draws=2).shape
    torch.Size([2])

    Args:
        method: makes maps, called `method(classifier, pixel_values, targets)`.
        draws: uniform noises that are tried.
        radius: largest change of a color from 0 to 1.
        batch_size: pictures per call of `method`.
    """
    case = prepare(classifier, pixel_values, None, targets, batch_size)
    if draws < 1:
        raise ExplainerError(f"draws={draws}; give at least 1.")
    clean = case.maps_of(method, case.targets)
    check_maps(pixel_values, clean)
    noise = radius * (2 * torch.rand(draws, *case.pixel_values.shape[1:], generator=seeded(seed)) - 1)
    perturb, _ = noise_table(case, noise)
    moved = []
    for at, which in case.pairs(draws):
        maps = method(classifier, perturb(case.pixel_values[at], which), case.targets[at]).detach()
        moved.append((maps - clean[at.to(clean.device)]).flatten(1).norm(dim=1))
    return (torch.cat(moved).view(-1, draws).amax(1) / clean.flatten(1).norm(dim=1)).float().cpu()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- perturbations: functions of pictures and of which perturbation each gets ----


def noise_table(case: Case, drawn: torch.Tensor):
    """Noise `drawn` (N, 3, H, W), in colors, that is taken away; and how many there are."""
    noise = color_gain(case.classifier, case.pixel_values) * drawn.to(case.pixel_values)
    return (lambda pixels, which: pixels - noise[which]), len(noise)


def block_table(case: Case, draws: int, grids: Sequence[int], seed: int):
    """For each draw and grid, cell after cell becomes a random gray and stays it; and how many states that makes."""
    random, masks, grays = seeded(seed), [], []
    height, width = case.pixel_values.shape[-2:]
    for _ in range(draws):
        for grid in grids:
            cell, count = grid_labels(height, width, grid), grid * grid
            masks.append(cell <= torch.arange(count)[:, None, None])
            grays.append(torch.rand(count, generator=random)[cell].expand(count, -1, -1))
    mask, gray = torch.cat(masks).to(case.pixel_values.device), torch.cat(grays).to(case.pixel_values)
    space = need_space(case.classifier)

    def perturb(pixels, which):
        return blend(pixels, mask[which], space.from_rgb(gray[which][:, None].expand(-1, 3, -1, -1)))

    return perturb, len(mask)
