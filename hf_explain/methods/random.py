"""The floor every method is measured against."""

from __future__ import annotations

import torch

from ..modeling.classifier import Classifier


def random(classifier: Classifier, pixel_values: torch.Tensor, targets=None, *, seed: int = 0) -> torch.Tensor:
    """Uniform noise in [0, 1), the same for the same seed and shape.

    >>> from hf_explain import METHODS
    >>> METHODS["random"](None, torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 8, 8])
    """
    batch, _, height, width = pixel_values.shape
    noise = torch.rand(batch, height, width, generator=torch.Generator().manual_seed(seed))
    return noise.to(pixel_values.device)
