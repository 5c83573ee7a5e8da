"""Occlusion (Zeiler & Fergus, arXiv 1311.2901), by captum."""

from __future__ import annotations

import math

import torch

from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from ..modeling.references import reference_image
from ..modeling.targets import read_targets
from .batching import check_batch_size
from .forwards import forwards, scores_of

STEPS, WIDE = 16, 4  # of the window along a side, and in the window


@torch.no_grad()
def occlusion(
    classifier: Classifier,
    pixel_values: torch.Tensor,
    targets=None,
    *,
    window: int | None = None,
    stride: int | None = None,
    reference: str | float | torch.Tensor = "black",
    batch_size: int = 32,
) -> torch.Tensor:
    """How far the class's probability falls when a square is covered, averaged over the squares that cover a pixel.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> occlusion(random_classifier(), torch.rand(2, 3, 32, 32), window=16, stride=8).shape
    torch.Size([2, 32, 32])

    Args:
        window, stride: side of the square and its step, in pixels. By default a quarter and a sixteenth of the
            picture's side: 169 squares of a square picture, whatever its size.
        reference: what covers it.
        batch_size: pictures per forward.
    """
    from captum.attr import Occlusion  # not when hf_explain is imported

    check_batch_size(batch_size)
    window, stride = read_window(window, stride, *pixel_values.shape[-2:])
    pixels = pixel_values.to(classifier.device, classifier.dtype)
    targets = read_targets(targets, torch.cat([classifier(chunk) for chunk in pixels.split(batch_size)]))
    cover = reference_image(pixels, classifier.pixel_space, reference).contiguous()
    squares = math.prod(-(-(length - window) // stride) + 1 for length in pixels.shape[-2:])
    shape, strides, maps = (3, window, window), (3, stride, stride), []
    with forwards("occlusion", (squares + 1) * len(pixels)) as done:
        method = Occlusion(scores_of(classifier, done))
        for x, b, t in zip(*(v.split(batch_size) for v in (pixels, cover, targets)), strict=True):
            at_once = max(1, batch_size // len(x))
            maps.append(method.attribute(x, shape, strides, baselines=b, target=t, perturbations_per_eval=at_once))
    return torch.cat(maps).float().mean(1)


def read_window(window: int | None, stride: int | None, height: int, width: int) -> tuple[int, int]:
    """Side and step of the square, where None is by the picture's size; refuses what does not fit.

    >>> read_window(None, None, 64, 64), read_window(None, None, 224, 224), read_window(None, None, 480, 640)
    ((16, 4), (56, 14), (140, 35))
    """
    step = math.ceil(math.sqrt(height * width) / STEPS)
    if window is None:
        window = min(max(WIDE * step, stride or 0), height, width)
    if stride is None:
        stride = max(1, min(step, window // 2))
    if not 1 <= stride <= window <= min(height, width):
        raise ExplainerError(
            f"window={window} and stride={stride} for {height} x {width} pictures; give 1 <= stride <= window <= size."
        )
    return window, stride
