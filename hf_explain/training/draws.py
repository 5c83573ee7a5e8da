"""What a training step draws: its grid and its reference, and for each picture its class, budgets and noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..jobs.randomness import keyed
from ..modeling.references import find_reference, reference_image

CLASSES, BLANK, TOP, BOTTOM, BUDGETS, GATES = range(6)  # what is drawn per picture; gates of layer i are GATES + i


@dataclass(frozen=True)
class Draws:
    """The random numbers of one step: keyed by the seed, the step and a picture's index in the global batch.

    So how a global batch is split into micro-batches and over processes changes nothing, nor does a restart.

    Args:
        first: index of the first picture of this (micro-)batch in the global batch.
    """

    seed: int
    step: int = 0
    first: int = 0

    def shared(self) -> torch.Generator:
        """For what the whole global batch shares."""
        return keyed(self.seed, self.step)

    def stack(self, like: torch.Tensor, what: int, draw: Callable[[torch.Generator], torch.Tensor]) -> torch.Tensor:
        """`draw` once per picture of `like`, each with its own generator; `what` tells apart what is drawn."""
        keys = ((self.seed, self.step, self.first + i, what) for i in range(len(like)))
        return torch.stack([draw(keyed(*key, device=like.device)) for key in keys])


def draw_grid(
    grids: tuple[int, int | None], coarse: float, size, generator: torch.Generator, progress: float = 0.0
) -> int:
    """Cells per side, out of the range `grids` in the first `coarse` of the run, then single pixels.

    A range that ends at single pixels (None) is drawn from evenly on a logarithmic scale.
    """
    low, high = grids
    pixels = min(size)
    if progress >= coarse < 1:
        return pixels
    last = min(high or pixels, pixels)
    low = min(low, last)
    share = float(torch.rand((), generator=generator))
    if high is None:
        return min(last, round(low * (last / low) ** share))
    return min(last, low + int(share * (last - low + 1)))


def draw_reference(references: Sequence[str | float], generator: torch.Generator) -> str | float:
    return references[int(torch.randint(len(references), (), generator=generator))]


def draw_blank(classifier, pixel_values, reference, draws: Draws) -> torch.Tensor:
    """The reference of each picture; (1, 3, H, W) where it is the same for all."""
    one, space = pixel_values[:1], classifier.pixel_space
    kind = find_reference(reference)
    if kind.per_pixel:
        return draws.stack(pixel_values, BLANK, lambda g: reference_image(one, space, reference, g)[0])
    return reference_image(pixel_values if kind.per_picture else one, space, reference)


def draw_classes(logits: torch.Tensor, draws: Draws, runner_up: float, both: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The class each picture's map is made for, (B, 1), and the classes whose probabilities are scored.

    The map is of the second most probable class in the share `runner_up` of the pictures; with `both`, of the first in
    all of them, and the second is scored as well.
    """
    classes = logits.topk(min(2, logits.shape[1])).indices
    if both:
        return classes[:, :1], classes
    uniform = draws.stack(classes, CLASSES, lambda g: torch.rand(1, generator=g, device=g.device))
    second = (uniform < runner_up).long()  # so that maps of other classes than the prediction are trained too
    drawn = classes.gather(1, second % classes.shape[1])
    return drawn, drawn


def draw_budgets(like: torch.Tensor, draws: Draws, sampled: int, even: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Shares of the cells to remove, rising, and what each adds to the area under a curve: (B, K) each.

    `sampled` of them are drawn for each picture; if that is 0 they are the inner ones of `even` evenly spaced points.
    """
    if not sampled:
        shares = torch.linspace(0, 1, even, device=like.device)[1:-1].expand(len(like), -1)
        return shares, torch.full_like(shares, 1 / (even - 1))
    uniform = draws.stack(like, BUDGETS, lambda g: torch.rand(sampled, generator=g, device=g.device))
    shares = (torch.arange(sampled, device=like.device) + uniform) / sampled  # one in each stratum of [0, 1)
    return shares.clamp(1e-4, 1 - 1e-4), torch.full_like(shares, 1 / sampled)
