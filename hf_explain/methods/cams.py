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
from .batching import batches, slowly
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
    return at_last_layer(classifier, pixel_values, targets, weighed_by_gradient, batch_size)


def grad_cam_plus_plus(classifier: Classifier, pixel_values, targets=None, *, batch_size: int = 32) -> torch.Tensor:
    """Grad-CAM++ (arXiv 1710.11063) of the last map, enlarged to the picture.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> grad_cam_plus_plus(random_classifier(), torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 32, 32])
    """
    return at_last_layer(classifier, pixel_values, targets, weighed_by_positive_gradient, batch_size)


def layer_cam(classifier: Classifier, pixel_values, targets=None, *, batch_size: int = 32) -> torch.Tensor:
    """Layer-CAM (TIP 2021) of the last map, enlarged to the picture.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> layer_cam(random_classifier(), torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 32, 32])
    """
    return at_last_layer(classifier, pixel_values, targets, cell_by_cell, batch_size)


def at_last_layer(classifier, pixel_values, targets, weigh: Callable, batch_size: int) -> torch.Tensor:
    layer = last_layer(classifier, pixel_values)
    maps = []
    for x, t in batches(classifier, pixel_values, targets, batch_size):
        rest = LayerClassifier(classifier, layer, x)
        maps.append(enlarge(weigh(rest, rest.maps, t), x.shape[-2:]))
    return torch.cat(maps)


def score_cam(classifier: Classifier, pixel_values, targets=None, *, batch_size: int = 32) -> torch.Tensor:
    """Score-CAM (arXiv 1910.01279): each channel weighed by the class's probability with the picture seen through it.

    A forward per channel. Channels that are the same everywhere show nothing and weigh nothing.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> score_cam(random_classifier(), torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 32, 32])
    """
    layer, maps = last_layer(classifier, pixel_values), []
    with torch.no_grad():
        for x, t in batches(classifier, pixel_values, targets, batch_size):
            channels = LayerClassifier(classifier, layer, x).maps.float()  # (B, C, h, w)
            weights = torch.stack([
                seen_through(classifier, one, c, int(label), batch_size)
                for one, c, label in slowly(list(zip(x, channels, t, strict=True)), "score-cam")
            ])  # fmt: skip
            maps.append(enlarge((weights[:, :, None, None] * channels).sum(1).relu(), x.shape[-2:]))
    return torch.cat(maps)


def seen_through(classifier, picture: torch.Tensor, channels: torch.Tensor, target: int, batch_size: int):
    """Probability of the class with a picture (3, H, W) multiplied by each channel (C, h, w) from 0 to 1: (C,)."""
    low, high = (f(channels.flatten(1), 1) for f in (torch.amin, torch.amax))
    flat, found = high - low < 1e-12, []
    blank = reference_image(picture[None], classifier.pixel_space, "zero")
    for some in ((channels - low.view(-1, 1, 1)) / (high - low).clamp(min=1e-12).view(-1, 1, 1)).split(batch_size):
        mask = enlarge(some, picture.shape[-2:])[:, None].to(picture)
        found.append(classifier.scores(classifier(blank + mask * (picture - blank)))[:, target].float())
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
