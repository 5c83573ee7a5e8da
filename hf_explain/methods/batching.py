"""The pictures of a method, a few at a time, with the classes to explain."""

from __future__ import annotations

import torch

from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from ..modeling.targets import read_targets


def batches(classifier: Classifier, pixel_values, targets, batch_size: int) -> list[tuple]:
    """(pictures, classes) of at most `batch_size` on the classifier's device, the prediction where none is given.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> [len(x) for x, t in batches(random_classifier(), torch.rand(5, 3, 32, 32), None, batch_size=2)]
    [2, 2, 1]
    """
    check_batch_size(batch_size)
    with torch.inference_mode(False):
        pixels = pixel_values.detach().clone().to(classifier.device, classifier.dtype)
        with torch.no_grad():
            if targets is None:
                logits = torch.cat([classifier(x) for x in pixels.split(batch_size)])
            else:
                logits = torch.empty(len(pixels), classifier.num_labels, device=pixels.device)
            targets = read_targets(targets, logits).clone()
        if targets.ndim != 1:
            raise ExplainerError(f"targets of shape {tuple(targets.shape)}; a method explains one class per image.")
        return list(zip(pixels.split(batch_size), targets.split(batch_size), strict=True))


def check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ExplainerError(f"batch_size={batch_size}; give the pictures per forward, at least 1.")
