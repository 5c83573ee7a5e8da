"""Infidelity and max-sensitivity (Yeh et al., arXiv 1901.09392), by captum, one number per picture.

The random perturbations are the same for every picture, by the seed, whatever the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from ..modeling.perturbation import blend
from .case import check_maps, color_gain, find_score, need_space, prepare
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
    from captum.metrics import infidelity as by_captum

    case = prepare(classifier, pixel_values, attributions, targets, batch_size)
    if draws < 1:
        raise ExplainerError(f"draws={draws}; give at least 1.")
    if perturbation not in ("noise", "blocks"):
        raise ExplainerError(f"unknown perturbation {perturbation!r}; choose from noise, blocks.")
    if perturbation == "noise":
        shape = draws, *case.pixel_values.shape[1:]
        drawn = deviation * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        perturb, count = noise_table(classifier, case.pixel_values, drawn)
    else:
        perturb, count = block_table(classifier, case.pixel_values, draws, grids, seed)
    read = find_score(score)
    maps = attributions.to(case.pixel_values.device).double()[:, None].expand_as(case.pixel_values)
    found = []
    for at in torch.arange(len(case)).split(batch_size):
        at = at.to(case.targets.device)
        pictures, classes = case.pixel_values[at], case.targets[at]
        clean = read(classifier, case.logits[at], classes).double()

        def forward(pixels, pictures=pictures, classes=classes, clean=clean):
            if pixels.shape == pictures.shape and torch.equal(pixels, pictures):  # which captum asks for every time
                return clean
            each = classes.repeat_interleave(len(pixels) // len(classes))
            return read(classifier, classifier(pixels), each).double()

        found.append(
            by_captum(
                forward, deal(perturb, len(at)), pictures, maps[at], n_perturb_samples=count,
                max_examples_per_batch=min(batch_size, len(at) * count), normalize=normalize,
            )
        )  # fmt: skip
    return torch.cat(found).float().cpu()


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
    from captum.metrics import sensitivity_max as by_captum

    case = prepare(classifier, pixel_values, None, targets, batch_size)
    if draws < 1:
        raise ExplainerError(f"draws={draws}; give at least 1.")
    clean = torch.cat(
        [
            method(classifier, x, t).detach()
            for x, t in zip(case.pixel_values.split(batch_size), case.targets.split(batch_size), strict=True)
        ]
    )
    check_maps(pixel_values, clean)
    shape = draws, *case.pixel_values.shape[1:]
    drawn = radius * (2 * torch.rand(shape, generator=torch.Generator().manual_seed(seed)) - 1)
    perturb, _ = noise_table(classifier, case.pixel_values, drawn)
    found = []
    for at in torch.arange(len(case)).split(max(1, batch_size // draws)):

        def explain(pixels, target, at=at):
            if isinstance(pixels, tuple):  # how captum asks for the maps of the unperturbed pictures, and wants them
                return (clean[at],)
            return method(classifier, pixels, target).detach()

        found.append(
            by_captum(
                explain, case.pixel_values[at], second_of(deal(perturb, len(at))),
                n_perturb_samples=draws, max_examples_per_batch=min(batch_size, len(at) * draws),
                target=case.targets[at.to(case.targets.device)],
            )
        )  # fmt: skip
    return torch.cat(found).float().cpu()


# ---- perturbations: functions of pictures and of which perturbation each gets ----


def noise_table(classifier, like: torch.Tensor, drawn: torch.Tensor):
    """Noise `drawn` (N, 3, H, W), in colors, that is taken away; and how many there are."""
    noise = color_gain(classifier, like) * drawn.to(like)
    return (lambda pixels, which: pixels - noise[which]), len(noise)


def block_table(classifier, like: torch.Tensor, draws: int, grids: Sequence[int], seed: int):
    """For each draw and grid, cell after cell becomes a random gray and stays it; and how many states that makes."""
    random, masks, grays = torch.Generator().manual_seed(seed), [], []
    height, width = like.shape[-2:]
    for _ in range(draws):
        for grid in grids:
            cell, count = grid_labels(height, width, grid), grid * grid
            masks.append(cell <= torch.arange(count)[:, None, None])
            grays.append(torch.rand(count, generator=random)[cell].expand(count, -1, -1))
    mask, gray, space = torch.cat(masks).to(like.device), torch.cat(grays).to(like), need_space(classifier)

    def perturb(pixels, which):
        return blend(pixels, mask[which], space.from_rgb(gray[which][:, None].expand(-1, 3, -1, -1)))

    return perturb, len(mask)


def deal(perturb: Callable, pictures: int) -> Callable:
    """What captum calls, for some perturbations at a time, with `pictures` pictures each repeated that often.

    It gives (perturbation, perturbed pictures), in the order of the table, so how many captum asks for changes nothing.
    """
    done = 0

    def dealt(pixels):
        nonlocal done
        samples = len(pixels) // pictures
        which = torch.arange(done, done + samples, device=pixels.device).repeat(pictures)
        done += samples
        altered = perturb(pixels, which)
        return pixels - altered, altered

    return dealt


def second_of(function: Callable) -> Callable:
    """Takes one argument, by which captum tells that it wants no radius."""
    return lambda pixels: function(pixels)[1]
