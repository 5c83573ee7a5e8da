"""Gradient of the class's logit with respect to the pixels: maps that are read directly from it."""

from __future__ import annotations

import torch

from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from ..modeling.targets import read_targets


def pixel_gradient(classifier: Classifier, pixel_values: torch.Tensor, targets=None) -> torch.Tensor:
    """d logit_target / d pixel_values, (B, 3, H, W); no gradient of a weight is computed or kept.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> pixel_gradient(random_classifier(), torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 3, 32, 32])
    """
    with torch.inference_mode(False), torch.enable_grad():
        pixels = pixel_values.detach().clone().to(classifier.device, classifier.dtype).requires_grad_(True)
        logits = classifier(pixels)
        if not isinstance(logits, torch.Tensor):
            raise ExplainerError(
                f"{type(classifier).__name__} returns no plain logits; give Classifier(model, image_processor)."
            )
        targets = read_targets(targets, logits).clone()
        if targets.ndim != 1:
            raise ExplainerError(f"targets of shape {tuple(targets.shape)}; a method explains one class per image.")
        chosen = logits.gather(1, targets[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, pixels)
    return gradient.detach().float()


def gradient(classifier: Classifier, pixel_values: torch.Tensor, targets=None) -> torch.Tensor:
    """Largest absolute gradient over the channels (Simonyan et al., arXiv 1312.6034).

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> gradient(random_classifier(), torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 32, 32])
    """
    return pixel_gradient(classifier, pixel_values, targets).abs().amax(1)


def input_x_gradient(classifier: Classifier, pixel_values: torch.Tensor, targets=None) -> torch.Tensor:
    """Pixel times gradient, summed over the channels: the linear part of each pixel's effect on the logit.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> input_x_gradient(random_classifier(), torch.rand(2, 3, 32, 32), targets=3).shape
    torch.Size([2, 32, 32])
    """
    gradients = pixel_gradient(classifier, pixel_values, targets)
    return (gradients * pixel_values.to(gradients)).sum(1)
