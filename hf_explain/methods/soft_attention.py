"""The softened backward rules of attention: through the values only; the weights are constants."""

from __future__ import annotations

from ..modeling.errors import ExplainerError
from .soft_gradient import first, named, straight
from .soft_products import comes_from_pixels


def attention(mode, function, args, kwargs):
    """The value path only; the weights are constants, softened backwards if asked."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
    values = named(args, kwargs, *names)
    mode.counts["attention"] += 1
    q, k, v, mask = (values.pop(name, None) for name in names[:4])
    q, k, mask = (None if one is None else one.detach() for one in (q, k, mask))
    temperature = mode.rules.attention
    if temperature == 1:
        return function(q, k, v, attn_mask=mask, **values)
    softer = values | {"scale": (values.get("scale") or q.shape[-1] ** -0.5) / temperature}
    cooled = mask / temperature if mask is not None and mask.is_floating_point() else mask
    return straight(function(q, k, v.detach(), attn_mask=mask, **values), function(q, k, v, attn_mask=cooled, **softer))


def whole_attention(mode, function, args, kwargs):
    """torch's own module: attention as above, with its projections."""
    if mode.rules.attention != 1:
        raise ExplainerError("attention temperatures other than 1 do not reach torch's MultiheadAttention; give 1.")
    mode.counts["attention"] += 1
    query, key, *rest = args
    return function(query.detach(), key.detach(), *rest, **kwargs)


def softmax(mode, function, args, kwargs):
    """Written out attention: the weights are constants. What multiplies them next may be softened."""
    mode.counts["attention"] += 1
    x = first(args, kwargs)
    weights = function(*args, **kwargs).detach()
    if mode.rules.attention != 1:
        rest = {name: value for name, value in kwargs.items() if name != "input"}
        weights.softened = function(x.detach() / mode.rules.attention, *args[1:], **rest)
    return weights


def dropout(mode, function, args, kwargs):
    """In eval mode it is nothing, so what is known of its input stays known."""
    values = named(args, kwargs, "input", "p", "training")
    return function(*args, **kwargs) if values.get("training", True) else values["input"]


def apply_weights(mode, function, args, kwargs):
    """Of other products of two branches, nothing is known."""
    softened = getattr(args[0], "softened", None) if len(args) == 2 else None
    if softened is None:
        value = function(*args, **kwargs)
        return mode.kept("product", value) if len(args) == 2 and all(comes_from_pixels(x) for x in args) else value
    weights, values = args
    mode.counts["softened attention"] += 1
    return straight(function(weights, values.detach()), function(softened, values))
