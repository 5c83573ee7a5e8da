"""Attention as an explanation: rollout, and attention weighed by its gradient.

Every implementation of attention is read where it happens, by a torch function mode, so no model has to be loaded with
"eager" attention. Defined where all layers attend from the same tokens to the same tokens: on windows and pooled keys
there is no map from token to token to multiply.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from ..modeling.feature_maps import FeatureMap
from .batching import batches
from .forwards import forwards

FUSE = ("mean", "max", "min")


class ReadAttention(TorchFunctionMode):
    """Inside, the attention of this thread's calls is computed in the open: `maps` holds (B, heads, N, N) of each."""

    def __init__(self):
        super().__init__()
        self.maps: list[torch.Tensor] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            return self.attend(*args, **kwargs)
        result = function(*args, **kwargs)
        if function in (F.softmax, torch.softmax, torch.Tensor.softmax) and result.ndim == 4:
            self.maps.append(result)
        return result

    def attend(
        self, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
    ) -> torch.Tensor:
        if enable_gqa:
            groups = query.shape[-3] // key.shape[-3]
            key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
        scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        weights = scores.softmax(-1)
        self.maps.append(weights)
        return weights @ value


@torch.no_grad()
def attention_rollout(
    classifier: Classifier, pixel_values, targets=None, *, fuse: str = "mean", discard: float = 0.0,
    batch_size: int = 32,
) -> torch.Tensor:  # fmt: skip
    """Attention of all layers multiplied, half of each being the token itself (Abnar & Zuidema, arXiv 2005.00928).

    The same for every class: it knows the picture, not the logit.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> attention_rollout(random_classifier(), torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 32, 32])

    Args:
        fuse: how heads become one: "mean", "max" or "min".
        discard: share of each layer's smallest weights that are dropped.
    """
    if fuse not in FUSE or not 0 <= discard < 1:
        raise ExplainerError(f"fuse={fuse!r}, discard={discard}; choose from {', '.join(FUSE)}, and a share below 1.")
    tokens, found = find_tokens(classifier, pixel_values, "attention_rollout"), []
    with forwards("attention_rollout", len(pixel_values)) as done:
        for x, _ in batches(classifier, pixel_values, targets, batch_size):
            layers = read(classifier, x, "attention_rollout")[1]
            total = torch.eye(layers[0].shape[-1], device=x.device).expand(len(x), -1, -1)
            for weights in layers:
                one = {"mean": weights.mean(1), "max": weights.amax(1), "min": weights.amin(1)}[fuse]
                if discard:
                    flat = one.flatten(1)
                    smallest = flat.topk(int(discard * flat.shape[1]), largest=False).indices
                    flat = flat.scatter(1, smallest, 0)
                    one = flat.view_as(one)
                one = one + torch.eye(one.shape[1], device=one.device)
                one = one / one.sum(-1, keepdim=True)
                total = one @ total
            found.append(as_map(total, tokens, x.shape[-2:]))
            done(len(x))
    return torch.cat(found)


def transformer_attribution(
    classifier: Classifier, pixel_values, targets=None, *, batch_size: int = 32
) -> torch.Tensor:
    """Attention times its positive gradient, added up over the layers (Chefer et al., arXiv 2103.15679).

    The rule of their second paper, which needs no relevance propagation through the other layers.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> transformer_attribution(random_classifier(), torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 32, 32])
    """
    tokens, found = find_tokens(classifier, pixel_values, "transformer_attribution"), []
    with forwards("transformer_attribution", len(pixel_values)) as done:
        for x, t in batches(classifier, pixel_values, targets, batch_size):
            with torch.inference_mode(False), torch.enable_grad():
                logits, layers = read(classifier, x.requires_grad_(True), "transformer_attribution")
                gradients = torch.autograd.grad(logits.gather(1, t[:, None]).sum(), layers)
            layers = [weights.detach() for weights in layers]
            count = layers[0].shape[-1]
            total = torch.eye(count, device=x.device).expand(len(x), -1, -1)
            for weights, gradient in zip(layers, gradients, strict=True):
                total = total + (weights * gradient).float().relu().mean(1) @ total
            found.append(as_map(total - torch.eye(count, device=x.device), tokens, x.shape[-2:]))
            done(len(x))
    return torch.cat(found)


def read(classifier, pixel_values, method: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """(logits, attention of each layer (B, heads, N, N)), or why there is none."""
    with ReadAttention() as mode:
        logits = classifier(pixel_values)
    kind = type(classifier.model).__name__
    if not mode.maps:
        raise ExplainerError(f"{method} reads attention, but {kind} has none; choose another method.")
    shapes = {tuple(one.shape[-2:]) for one in mode.maps}
    rows, columns = next(iter(shapes))
    if len(shapes) > 1 or rows != columns or any(len(one) != len(pixel_values) for one in mode.maps):
        raise ExplainerError(
            f"{method} multiplies attention between the same tokens, but {kind} attends within windows, across scales "
            "or to pooled tokens; choose another method."
        )
    return logits, mode.maps


def find_tokens(classifier, pixel_values: torch.Tensor, method: str) -> FeatureMap:
    """How the last layer's tokens lie in the picture."""
    if not isinstance(classifier, Classifier):
        raise ExplainerError(
            f"{method} reads the attention of one classifier, which {type(classifier).__name__} is not; explain its "
            "layers with attribute_at(...) of hf_explain.methods.inner."
        )
    last = classifier.probe(tuple(pixel_values.shape[-2:]))[-1]
    if last.layout != "tokens":
        kind = type(classifier.model).__name__
        raise ExplainerError(f"{method} reads attention between patches, but {kind} has none; choose another method.")
    return last


def as_map(total: torch.Tensor, tokens: FeatureMap, size) -> torch.Tensor:
    """What [CLS], or without one the mean of all patches, takes from each patch, enlarged to the picture."""
    rows = total[:, 0] if tokens.prefix else total.mean(1)
    grid = [round(length / stride) for length, stride in zip(size, tokens.stride, strict=True)]
    maps = rows[:, tokens.prefix :].unflatten(1, grid)
    return F.interpolate(maps[:, None].float(), size=tuple(size), mode="bilinear", align_corners=False)[:, 0]
