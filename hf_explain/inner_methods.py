"""Methods that explain from any map inside a classifier, in the settings of the ML-Att paper (arXiv 2205.10435).

They are called like those of `METHODS`, with the maps (B, C, h, w) of a layer in the pictures' place, and are summed
over the channels without losing their sign.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from .methods import METHODS
from .methods.gradients import pixel_gradient
from .modeling.perturbation import ExplainerError


def random(classifier, maps: torch.Tensor, targets: torch.Tensor, *, seed: int = 0) -> torch.Tensor:
    """Uniform noise: the floor."""
    return METHODS["random"](classifier, maps, targets, seed=seed)


def gradient(classifier, maps: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Absolute gradient; the paper sums it over the channels, `METHODS["gradient"]` takes the largest."""
    return pixel_gradient(classifier, maps, targets).abs().sum(1)


def input_x_gradient(classifier, maps: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Map times gradient."""
    return METHODS["input_x_gradient"](classifier, maps, targets)


def integrated_gradients(
    classifier, maps: torch.Tensor, targets: torch.Tensor, *, steps: int = 20, batch_size: int = 32
) -> torch.Tensor:
    """Gradient along the line from zero, which for pixel values is a color, not black."""
    zero = torch.zeros((), device=maps.device)
    size = max(batch_size, len(maps))
    return METHODS["integrated_gradients"](classifier, maps, targets, steps=steps, reference=zero, batch_size=size)


def grad_cam(classifier, maps: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Positive part of the channels' sum, each weighted by its mean gradient (arXiv 1610.02391)."""
    weights = pixel_gradient(classifier, maps, targets).mean((2, 3), keepdim=True)
    return (weights * maps.float()).sum(1).relu()


def layer_cam(classifier, maps: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Positive part of map times positive gradient, cell by cell (LayerCAM, TIP 2021)."""
    return (pixel_gradient(classifier, maps, targets).relu() * maps.float()).sum(1).relu()


@torch.no_grad()
def occlusion(
    classifier, maps: torch.Tensor, targets: torch.Tensor, *, window: int = 5, stride: int = 2, batch_size: int = 32
) -> torch.Tensor:
    """Fall of the logit when a square is zero, spread evenly over the square and summed over the squares.

    A window larger than the map is as large as the map's shorter side; the last squares end at the border.
    """
    height, width = maps.shape[-2:]
    window = min(window, height, width)
    if stride < 1 or window < 1:
        raise ExplainerError(f"window={window} and stride={stride}; give at least 1 each.")
    corners = [(y, x) for y in starts(height, window, stride) for x in starts(width, window, stride)]
    clean = chosen(classifier(maps), targets)
    fall = torch.zeros(len(maps), height, width, device=maps.device)
    for some in portions(corners, batch_size // len(maps)):
        hidden = maps.repeat(len(some), 1, 1, 1)
        for part, (y, x) in zip(hidden.split(len(maps)), some, strict=True):
            part[:, :, y : y + window, x : x + window] = 0
        drops = clean - chosen(classifier(hidden), targets.repeat(len(some))).view(len(some), -1)  # (squares, B)
        for drop, (y, x) in zip(drops, some, strict=True):
            fall[:, y : y + window, x : x + window] += drop[:, None, None] / window**2
    return fall


@torch.no_grad()
def rise(
    classifier,
    maps: torch.Tensor,
    targets: torch.Tensor,
    *,
    masks: int = 1000,
    cells: int = 6,
    share: float = 0.1,
    seed: int = 0,
    batch_size: int = 32,
) -> torch.Tensor:
    """Mean of random smooth masks, each weighted by the class's probability with all else zero (arXiv 1806.07421).

    Args:
        masks: how many, the same for all pictures.
        cells: of a mask, a side.
        share: of the cells that stay.
    """
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(len(maps), *maps.shape[-2:], device=maps.device)
    for count in map(len, portions(range(masks), batch_size // len(maps))):
        drawn = [draw_mask(maps.shape[-2:], cells, share, generator) for _ in range(count)]
        kept = torch.stack(drawn).to(maps)  # (masks, h, w)
        shown = (maps[None] * kept[:, None, None]).flatten(0, 1)  # all pictures under the first mask, then the second
        scores = classifier.scores(classifier(shown))
        score = scores.gather(1, targets.repeat(count)[:, None]).view(count, len(maps))
        total += torch.einsum("mb,mhw->bhw", score.float(), kept.float())
    return total / (masks * share)


def draw_mask(size, cells: int, share: float, generator: torch.Generator) -> torch.Tensor:
    """Cells that stay with probability `share`, enlarged smoothly and shifted by a part of a cell: (h, w)."""
    steps = [-(-length // cells) for length in size]  # of a cell, rounded up
    coarse = (torch.rand(1, 1, cells, cells, generator=generator) < share).float()
    large = F.interpolate(coarse, [(cells + 1) * step for step in steps], mode="bilinear", align_corners=False)[0, 0]
    y, x = (int(torch.randint(step, (), generator=generator)) for step in steps)
    return large[y : y + size[0], x : x + size[1]]


def starts(length: int, window: int, stride: int) -> list[int]:
    last = length - window
    return sorted({*range(0, last + 1, stride), last})


def portions(items, size: int) -> Iterator:
    for start in range(0, len(items), max(1, size)):
        yield items[start : start + max(1, size)]


def chosen(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return logits.float().gather(1, targets[:, None])[:, 0]


INNER_METHODS: dict[str, Callable[..., torch.Tensor]] = {
    "random": random,
    "gradient": gradient,
    "input_x_gradient": input_x_gradient,
    "integrated_gradients": integrated_gradients,
    "occlusion": occlusion,
    "grad_cam": grad_cam,
    "layer_cam": layer_cam,
    "rise": rise,
}
AT_INPUT = {"occlusion": {"window": 16, "stride": 8}}  # settings that differ on pictures
SEEDED = ("random",)  # the same seed would draw the same for every batch
BATCHED = ("integrated_gradients", "occlusion", "rise")  # which show the classifier several maps per picture
