"""Class activation maps: the channels of a classifier's last map, each weighed by what it means to the class.

They are defined wherever the last hidden state is a map, which is everywhere `find_layers` finds one: on convolutional
and hierarchical models, and on the patches of transformers. Nobody names a layer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from ..modeling.references import reference_image
from .batching import batches
from .forwards import forwards
from .gradients import pixel_gradient
from .layers import Layer, LayerClassifier, find_layers

# ---- weights: (rest of the classifier, its maps (B, C, h, w), targets) -> (B, h, w) ----


def weighed_by_gradient(rest, maps: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Positive part of the channels' sum, each weighted by its mean gradient (arXiv 1610.02391)."""
    weights = pixel_gradient(rest, maps, targets).mean((2, 3), keepdim=True)
    return (weights * maps.float()).sum(1).relu()


def weighed_by_positive_gradient(rest, maps: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """As above, with each cell's positive gradient weighted by its second-order share (arXiv 1710.11063).

    The factor exp(logit) of the paper is the same for the whole map and left out.
    """
    gradient, maps = pixel_gradient(rest, maps, targets), maps.float()
    below = 2 * gradient**2 + maps.sum((2, 3), keepdim=True) * gradient**3
    share = torch.where(below.abs() > 1e-12, gradient**2 / torch.where(below.abs() > 1e-12, below, 1.0), 0.0)
    return ((share * gradient.relu()).sum((2, 3), keepdim=True) * maps).sum(1).relu()


def cell_by_cell(rest, maps: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Positive part of map times positive gradient, cell by cell (LayerCAM, TIP 2021)."""
    return (pixel_gradient(rest, maps, targets).relu() * maps.float()).sum(1).relu()


# ---- methods ----


def grad_cam(classifier: Classifier, pixel_values, targets=None, *, batch_size: int = 32) -> torch.Tensor:
    """Grad-CAM (arXiv 1610.02391) of the last map, enlarged to the picture.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> grad_cam(random_classifier(), torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 32, 32])
    """
    return at_last_layer("grad_cam", weighed_by_gradient, classifier, pixel_values, targets, batch_size)


def grad_cam_plus_plus(classifier: Classifier, pixel_values, targets=None, *, batch_size: int = 32) -> torch.Tensor:
    """Grad-CAM++ (arXiv 1710.11063) of the last map, enlarged to the picture.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> grad_cam_plus_plus(random_classifier(), torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 32, 32])
    """
    return at_last_layer(
        "grad_cam_plus_plus", weighed_by_positive_gradient, classifier, pixel_values, targets, batch_size
    )


def layer_cam(classifier: Classifier, pixel_values, targets=None, *, batch_size: int = 32) -> torch.Tensor:
    """Layer-CAM (TIP 2021) of the last map, enlarged to the picture.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> layer_cam(random_classifier(), torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 32, 32])
    """
    return at_last_layer("layer_cam", cell_by_cell, classifier, pixel_values, targets, batch_size)


def at_last_layer(name: str, weigh: Callable, classifier, pixel_values, targets, batch_size: int) -> torch.Tensor:
    layer, maps = last_layer(classifier, pixel_values), []
    with forwards(name, 2 * len(pixel_values)) as done:
        for x, t in batches(classifier, pixel_values, targets, batch_size):
            rest = LayerClassifier(classifier, layer, x)
            maps.append(enlarge(weigh(rest, rest.maps, t), x.shape[-2:]))
            done(2 * len(x))
    return torch.cat(maps)


@torch.no_grad()
def score_cam(
    classifier: Classifier, pixel_values, targets=None, *, channels: int | None = 256, batch_size: int = 32
) -> torch.Tensor:
    """Score-CAM (arXiv 1910.01279): each channel weighed by the class's probability with the picture seen through it.

    A forward per channel. Channels that are the same everywhere show nothing and weigh nothing.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> score_cam(random_classifier(), torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 32, 32])

    Args:
        channels: at most so many of each picture, those that vary most over it; None for all, as in the paper.
    """
    if channels is not None and channels < 1:
        raise ExplainerError(f"channels={channels}; give at least 1, or None for all.")
    layer, maps = last_layer(classifier, pixel_values), []
    count = min(channels or layer.feature.channels, layer.feature.channels)
    with forwards("score_cam", (1 + count) * len(pixel_values)) as done:
        for x, t in batches(classifier, pixel_values, targets, batch_size):
            activations = LayerClassifier(classifier, layer, x).maps.float()  # (B, C, h, w)
            done(len(x))
            for one, every, label in zip(x, activations, t, strict=True):
                some = every[every.flatten(1).var(1, correction=0).topk(count).indices.sort().values]
                weights = seen_through(classifier, one, some, int(label), batch_size, done)
                maps.append(enlarge((weights[:, None, None] * some).sum(0).relu()[None], x.shape[-2:]))
    return torch.cat(maps)


def seen_through(
    classifier, picture: torch.Tensor, channels: torch.Tensor, target: int, batch_size: int, done: Callable[[int], None]
) -> torch.Tensor:
    """Probability of the class with a picture (3, H, W) multiplied by each channel (C, h, w) from 0 to 1: (C,)."""
    low, high = (f(channels.flatten(1), 1) for f in (torch.amin, torch.amax))
    flat, found = high - low < 1e-12, []
    blank = reference_image(picture[None], classifier.pixel_space, "zero")
    for some in ((channels - low.view(-1, 1, 1)) / (high - low).clamp(min=1e-12).view(-1, 1, 1)).split(batch_size):
        mask = enlarge(some, picture.shape[-2:])[:, None].to(picture)
        found.append(classifier.scores(classifier(blank + mask * (picture - blank)))[:, target].float())
        done(len(some))
    return torch.cat(found).masked_fill(flat, 0)


# ---- the layer ----


def last_layer(classifier, pixel_values: torch.Tensor) -> Layer:
    if not isinstance(classifier, Classifier):
        raise ExplainerError(
            f"{type(classifier).__name__} has no last layer of its own; explain its layers with attribute_at(...) of "
            "hf_explain.methods.inner."
        )
    height, width = pixel_values.shape[-2:]
    layer = find_layers(classifier, (height, width))["final"]
    assert layer is not None
    return layer


def enlarge(maps: torch.Tensor, size) -> torch.Tensor:
    return F.interpolate(maps[:, None].float(), size=tuple(size), mode="bilinear", align_corners=False)[:, 0]
