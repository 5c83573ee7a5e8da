"""Occlusion (Zeiler & Fergus, arXiv 1311.2901), by captum."""

from __future__ import annotations

import torch

from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from ..modeling.references import reference_image
from ..modeling.targets import read_targets
from .batching import slowly


@torch.no_grad()
def occlusion(
    classifier: Classifier,
    pixel_values: torch.Tensor,
    targets=None,
    *,
    window: int = 8,
    stride: int = 4,
    reference: str | float | torch.Tensor = "black",
    batch_size: int = 32,
) -> torch.Tensor:
    """How far the class's probability falls when a square is covered, averaged over the squares that cover a pixel.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> occlusion(random_classifier(), torch.rand(2, 3, 32, 32), window=16, stride=8).shape
    torch.Size([2, 32, 32])

    Args:
        window, stride: side of the square and its step, in pixels.
        reference: what covers it.
        batch_size: pictures per forward.
    """
    from captum.attr import Occlusion  # not when hf_explain is imported

    if not 1 <= stride <= window <= min(pixel_values.shape[-2:]):
        size = "{} x {}".format(*pixel_values.shape[-2:])
        raise ExplainerError(
            f"window={window} and stride={stride} for {size} pictures; give 1 <= stride <= window <= size."
        )
    pixels = pixel_values.to(classifier.device, classifier.dtype)
    targets = read_targets(targets, torch.cat([classifier(chunk) for chunk in pixels.split(batch_size)]))
    cover = reference_image(pixels, classifier.pixel_space, reference).contiguous()
    method = Occlusion(lambda x: classifier.scores(classifier(x)))
    shape, strides = (3, window, window), (3, stride, stride)
    maps = []
    for x, b, t in slowly(
        list(zip(*(v.split(batch_size) for v in (pixels, cover, targets)), strict=True)), "occlusion"
    ):
        at_once = max(1, batch_size // len(x))
        maps.append(method.attribute(x, shape, strides, baselines=b, target=t, perturbations_per_eval=at_once))
    return torch.cat(maps).float().mean(1)
