"""Integrated gradients (Sundararajan et al., arXiv 1703.01365), by captum."""

from __future__ import annotations

import torch

from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from ..modeling.references import reference_image
from ..modeling.targets import read_targets
from .batching import check_batch_size
from .forwards import forwards


def integrated_gradients(
    classifier: Classifier,
    pixel_values: torch.Tensor,
    targets=None,
    *,
    steps: int = 32,
    reference: str | float | torch.Tensor = "black",
    batch_size: int = 32,
) -> torch.Tensor:
    """Gradient along the straight line from the reference to the picture, times the way, summed over the channels.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> integrated_gradients(random_classifier(), torch.rand(2, 3, 32, 32), steps=4).shape
    torch.Size([2, 32, 32])

    Args:
        steps: points on the line (Gauss-Legendre).
        reference: where the line begins; "noise" is no reference of this method.
        batch_size: pictures per forward and backward.
    """
    from captum.attr import IntegratedGradients  # not when hf_explain is imported

    check_batch_size(batch_size)
    if steps < 1:
        raise ExplainerError(f"steps={steps}; give at least 1.")
    with torch.inference_mode(False), torch.enable_grad():
        pixels = pixel_values.detach().clone().to(classifier.device, classifier.dtype)
        with torch.no_grad():
            targets = read_targets(
                targets, torch.cat([classifier(chunk) for chunk in pixels.split(batch_size)])
            ).clone()
            start = reference_image(pixels, classifier.pixel_space, reference).contiguous()
        with forwards("integrated_gradients", steps * len(pixels)) as done:

            def logits(x):
                found = classifier(x)
                done(len(x))
                return found

            method = IntegratedGradients(logits)
            maps = [
                method.attribute(x, baselines=b, target=t, n_steps=steps, internal_batch_size=max(batch_size, len(x)))
                for x, b, t in zip(*(v.split(batch_size) for v in (pixels, start, targets)), strict=True)
            ]
    return torch.cat(maps).detach().float().sum(1)
