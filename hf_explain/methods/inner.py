"""Methods that explain from any map inside a classifier, in the settings of the ML-Att paper (arXiv 2205.10435).

They are called like those of `METHODS`, with the maps (B, C, h, w) of a layer in the pictures' place, and are summed
over the channels without losing their sign.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from ..methods import METHODS
from ..modeling.errors import ExplainerError, spelled_as, unknown_name
from ..modeling.targets import of_target, read_targets
from .cams import cell_by_cell, weighed_by_gradient, weighed_by_positive_gradient
from .forwards import forwards, together
from .gradients import pixel_gradient
from .layers import Layer, LayerClassifier, find_layers
from .rise import seen_through_masks

DEPTHS = ("input", "middle", "final")


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
    clean = of_target(classifier(maps).float(), targets)
    fall = torch.zeros(len(maps), height, width, device=maps.device)
    with forwards("occlusion", len(corners) * len(maps)) as done:
        for some in portions(corners, batch_size // len(maps)):
            hidden = maps.repeat(len(some), 1, 1, 1)
            for part, (y, x) in zip(hidden.split(len(maps)), some, strict=True):
                part[:, :, y : y + window, x : x + window] = 0
            drops = clean - of_target(classifier(hidden).float(), targets.repeat(len(some))).view(
                len(some), -1
            )  # (squares, B)
            for drop, (y, x) in zip(drops, some, strict=True):
                fall[:, y : y + window, x : x + window] += drop[:, None, None] / window**2
            done(len(hidden))
    return fall


def rise(
    classifier, maps: torch.Tensor, targets: torch.Tensor, *, masks: int = 1000, cells: int = 6, share: float = 0.1,
    seed: int = 0, batch_size: int = 32,
) -> torch.Tensor:  # fmt: skip
    """Mean of random smooth masks, each weighted by the class's probability with all else zero (arXiv 1806.07421)."""
    with forwards("rise", masks * len(maps)) as done:
        return seen_through_masks(
            classifier, maps, targets, done, masks=masks, cells=cells, share=share, seed=seed, batch_size=batch_size
        )


def starts(length: int, window: int, stride: int) -> list[int]:
    last = length - window
    return sorted({*range(0, last + 1, stride), last})


def portions(items, size: int) -> Iterator:
    for start in range(0, len(items), max(1, size)):
        yield items[start : start + max(1, size)]


INNER_METHODS: dict[str, Callable[..., torch.Tensor]] = {
    "random": random,
    "gradient": gradient,
    "input_x_gradient": input_x_gradient,
    "integrated_gradients": integrated_gradients,
    "occlusion": occlusion,
    "grad_cam": weighed_by_gradient,
    "grad_cam_plus_plus": weighed_by_positive_gradient,
    "layer_cam": cell_by_cell,
    "rise": rise,
}
AT_INPUT = {"occlusion": {"window": 16, "stride": 8}}  # settings that differ on pictures
SEEDED = ("random",)  # the same seed would draw the same for every batch
BATCHED = ("integrated_gradients", "occlusion", "rise")  # which show the classifier several maps per picture


# ---- at a layer ----


def attribute_at(
    classifier,
    pixel_values: torch.Tensor,
    targets=None,
    method: str | Callable = "input_x_gradient",
    layer: str | Layer | None = "final",
    *,
    batch_size: int = 32,
    **options,
) -> torch.Tensor:
    """The maps (B, h, w) of a method at a layer, signed and as large as the layer's own.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> attribute_at(random_classifier("resnet"), torch.rand(2, 3, 32, 32), None, "gradient", "final").shape
    torch.Size([2, 2, 2])

    Args:
        classifier: a `Classifier`, or a `GridClassifier` of `hf_explain.localization.grids`.
        method: a name of `INNER_METHODS`, or a function in the calling form of `METHODS`.
        layer: "input", "middle", "final", or one of `find_layers(classifier)`, which saves looking for it again.
        batch_size: pictures, or maps in their place, per forward.
        options: of the method, instead of the paper's settings.
    """
    method = spelled_as(method) if isinstance(method, str) else method
    if isinstance(method, str) and method not in INNER_METHODS:
        raise ExplainerError(f"{unknown_name('method', method, INNER_METHODS)}, or give a function.")
    if isinstance(layer, str) and layer not in DEPTHS:
        raise ExplainerError(f"unknown layer {layer!r}; choose from {', '.join(DEPTHS)}.")
    if isinstance(layer, str):
        layer = None if layer == "input" else find_layers(getattr(classifier, "classifier", classifier))[layer]
    function = INNER_METHODS[method] if isinstance(method, str) else method
    given = {**(AT_INPUT.get(str(method), {}) if layer is None else {}), **options}
    if method in BATCHED:
        given["batch_size"] = batch_size
    maps = []
    with torch.inference_mode(False):
        pixels = pixel_values.detach().clone().to(classifier.device, classifier.dtype)
        with torch.no_grad():
            targets = read_targets(targets, torch.cat([classifier(x) for x in pixels.split(batch_size)])).clone()
        with together(max(1, len(pixels) / batch_size)):
            for number, (x, t) in enumerate(zip(pixels.split(batch_size), targets.split(batch_size), strict=True)):
                if method in SEEDED:
                    given["seed"] = options.get("seed", 0) + number
                rest = classifier if layer is None else split(classifier, layer, x, batch_size)
                maps.append(function(rest, x if layer is None else rest.maps, t, **given))
    return torch.cat(maps).float()


def split(classifier, layer: Layer, pixel_values: torch.Tensor, batch_size: int) -> LayerClassifier:
    """The rest of a classifier of pictures, or of grids, which knows itself how its cells are split."""
    own = getattr(classifier, "at_layer", None)
    return own(layer, pixel_values, batch_size) if own else LayerClassifier(classifier, layer, pixel_values)
