"""Guided backpropagation (arXiv 1412.6806), alone or as the detail of Grad-CAM.

captum's hooks ReLU modules of the model; here one thread's calls of ReLU are differentiated otherwise, so nothing of
the model changes, and a module that is called twice is no trouble.
"""

from __future__ import annotations

from collections import Counter

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from .batching import batches
from .cams import grad_cam
from .forwards import forwards
from .gradients import pixel_gradient

RELUS = (F.relu, F.relu_, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_)


class Guided(torch.autograd.Function):
    """ReLU that lets only positive gradients back."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z > 0)
        return z.relu()

    @staticmethod
    def backward(ctx, gradient):
        (positive,) = ctx.saved_tensors
        return gradient.clamp(min=0) * positive


class GuidedBackward(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in RELUS:
            self.counts["relu"] += 1
            return Guided.apply(args[0] if args else (kwargs or {})["input"])
        return function(*args, **(kwargs or {}))


def guided_gradient(classifier: Classifier, pixel_values: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W); refuses models without ReLU."""
    with GuidedBackward() as mode:
        found = pixel_gradient(classifier, pixel_values, targets)
    if not mode.counts:
        raise ExplainerError(
            f"guided_backprop is defined by ReLUs, but {type(classifier.model).__name__} has none; choose another "
            "method, such as semantic_pullback."
        )
    return found


def guided_backprop(classifier: Classifier, pixel_values, targets=None, *, batch_size: int = 32) -> torch.Tensor:
    """Gradient through ReLUs that let only positive gradients back; absolute, the largest over the channels.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> guided_backprop(random_classifier("resnet"), torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 32, 32])
    """
    maps = []
    with forwards("guided_backprop", len(pixel_values)) as done:
        for x, t in batches(classifier, pixel_values, targets, batch_size):
            maps.append(guided_gradient(classifier, x, t).abs().amax(1))
            done(len(x))
    return torch.cat(maps)


def guided_grad_cam(classifier: Classifier, pixel_values, targets=None, *, batch_size: int = 32) -> torch.Tensor:
    """Grad-CAM (arXiv 1610.02391) times the guided gradient.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> guided_grad_cam(random_classifier("resnet"), torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 32, 32])
    """
    maps = []
    with forwards("guided_grad_cam", 3 * len(pixel_values)) as done:
        for x, t in batches(classifier, pixel_values, targets, batch_size):
            guided = guided_gradient(classifier, x, t).abs().amax(1)
            maps.append(guided * grad_cam(classifier, x, t, batch_size=batch_size))
            done(3 * len(x))
    return torch.cat(maps)
