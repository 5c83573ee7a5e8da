"""SmoothGrad (arXiv 1706.03825): the mean gradient near a picture."""

from __future__ import annotations

import torch

from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from .batching import batches
from .forwards import forwards
from .gradients import pixel_gradient


def smoothgrad(
    classifier: Classifier, pixel_values, targets=None, *, samples: int = 25, noise: float = 0.15, seed: int = 0,
    batch_size: int = 32,
) -> torch.Tensor:  # fmt: skip
    """Absolute value of the mean gradient, the largest over the channels.

    captum's draws its noise from the global generator, so that a picture's map would depend on what ran before.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> smoothgrad(random_classifier(), torch.rand(2, 3, 32, 32), samples=4).shape
    torch.Size([2, 32, 32])

    Args:
        samples: noisy copies of each picture, all pictures with the same noise.
        noise: its spread, as a share of the picture's range.
    """
    if samples < 1 or noise < 0:
        raise ExplainerError(f"samples={samples}, noise={noise}; give at least 1 sample, and no negative noise.")
    maps = []
    with forwards("smoothgrad", samples * len(pixel_values)) as done:
        for x, t in batches(classifier, pixel_values, targets, batch_size):
            spread = noise * (x.flatten(1).amax(1) - x.flatten(1).amin(1)).view(-1, 1, 1, 1)
            random, total = torch.Generator().manual_seed(seed), torch.zeros(x.shape, device=x.device)
            for _ in range(samples):
                drawn = torch.randn(x.shape[1:], generator=random).to(x)
                total += pixel_gradient(classifier, x + spread * drawn, t)
                done(len(x))
            maps.append((total / samples).abs().amax(1))
    return torch.cat(maps)
