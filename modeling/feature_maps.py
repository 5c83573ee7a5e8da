"""Any Hugging Face vision model -> logits and its hidden states as (B, C, h, w) maps. Nobody names a layer.

Hidden states come in many shapes: tokens with zero, one, two or five leading special tokens, channels first or last,
pyramids. `probe` looks at them once, with one forward of a blank picture, and describes each by a `FeatureMap` that is
stored in the explainer's config; `read_features` only follows that description.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from transformers import PreTrainedModel

from .errors import ExplainerError
from .model_call import call

# Output has the form of a picture classifier's, but no hidden state has a place in the picture.
NOT_SPATIAL = {
    "imagegpt": "its tokens are colors",
    "perceiver": "its latents have no place in the picture",
    "siglip2": "its input is packed patches, not a picture",
    "shieldgemma2": "it is a language model",
    "vit_mae": "it hides and shuffles patches at random",
}


@dataclass(frozen=True)
class FeatureMap:
    """One hidden state: where it is, and how it becomes a map."""

    index: int  # in output.hidden_states
    channels: int
    stride: tuple[float, float]  # pixels per cell, vertical and horizontal
    layout: str = "tokens"  # "tokens" (B, N, C), "map" (B, C, h, w), "channels_last" (B, h, w, C)
    prefix: int = 0  # leading tokens that are no patches
    reshaped: bool = False  # read output.reshaped_hidden_states instead

    def to_dict(self) -> dict:
        return asdict(self) | {"stride": list(self.stride)}


def admissible_prefixes(config) -> list[int]:
    registers = getattr(getattr(config, "vision_config", config), "num_register_tokens", 0) or 0
    return list(dict.fromkeys([0, 1, 2, 1 + registers, 2 + registers]))


def known_patch_size(config) -> tuple[int, int] | None:
    patch = getattr(getattr(config, "vision_config", config), "patch_size", None)
    return (patch, patch) if isinstance(patch, int) else None


def candidate_grids(height, width, patch):
    """Start grids of every usual stride, and their repeated halvings, in floor and in ceil rounding."""
    grids = []
    for start in ([patch] if patch else []) + [(s, s) for s in (2, 4, 7, 8, 14, 16, 32)]:
        for rounding in (math.floor, math.ceil):
            h, w = rounding(height / start[0]), rounding(width / start[1])
            while h >= 1 and w >= 1:
                grids.append((h, w))
                if (h, w) == (1, 1):
                    break
                h, w = max(1, rounding(h / 2)), max(1, rounding(w / 2))
    return list(dict.fromkeys(grids))


def infer_grid(count, height, width, patch, prefixes):
    """(prefix, h, w) of `count` tokens of a height x width picture.

    >>> infer_grid(197, 224, 224, (16, 16), [0, 1, 2])
    (1, 14, 14)
    """
    if patch:  # a plain ViT: the grid is known, the rest are special tokens. Without this 4 + 5 tokens read as 3 x 3.
        for rounding in (math.floor, math.ceil):
            h, w = rounding(height / patch[0]), rounding(width / patch[1])
            if count - h * w in prefixes:
                return count - h * w, h, w
    grids = candidate_grids(height, width, patch)
    for prefix in prefixes:  # a pyramid: the smallest prefix wins
        for h, w in grids:
            if h * w == count - prefix:
                return prefix, h, w
    raise ExplainerError(f"{count} tokens fit no grid of a {height} x {width} picture")


def describe(output, index, size, config) -> FeatureMap:
    """The `FeatureMap` of one hidden state of a probe, by the rule that knows no architecture."""
    height, width = size
    state = output.hidden_states[index]
    reshaped = getattr(output, "reshaped_hidden_states", None)
    if reshaped is not None and index < len(reshaped) and reshaped[index] is not None:
        state, wide = reshaped[index], state
        channels = wide.shape[-1] if wide.ndim == 3 else state.shape[1]
        last = state.shape[-1] == channels and math.prod(state.shape[1:3]) == math.prod(wide.shape[1:-1])
        first = state.shape[1] == channels and math.prod(state.shape[2:]) == math.prod(wide.shape[1:-1])
        if last and (not first or config.model_type == "hiera"):
            h, w = state.shape[1:3]
            return FeatureMap(index, channels, (height / h, width / w), "channels_last", reshaped=True)
        h, w = state.shape[2:]
        return FeatureMap(index, state.shape[1], (height / h, width / w), "map", reshaped=True)
    patch = known_patch_size(config)
    if state.ndim == 4:
        grids = candidate_grids(height, width, patch)
        if tuple(state.shape[1:3]) in grids and tuple(state.shape[2:]) not in grids:  # SAM
            h, w = state.shape[1:3]
            return FeatureMap(index, state.shape[3], (height / h, width / w), "channels_last")
        h, w = state.shape[2:]
        return FeatureMap(index, state.shape[1], (height / h, width / w), "map")
    if state.ndim == 3:
        prefix, h, w = infer_grid(state.shape[1], height, width, patch, admissible_prefixes(config))
        # The patch itself where it made the grid: 64 / 4 = 16 would miscount patches of 14 at another size.
        stride = (height / h, width / w)
        if patch and (h, w) == (height // patch[0], width // patch[1]):
            stride = (float(patch[0]), float(patch[1]))
        return FeatureMap(index, state.shape[2], stride, "tokens", prefix)
    raise ExplainerError(f"hidden state {index} has {state.ndim} dimensions, but a map has 3 (tokens) or 4")


def to_map(output, states, position, feature: FeatureMap, size) -> torch.Tensor:
    """One hidden state as (B, C, h, w)."""
    state = output.reshaped_hidden_states[position] if feature.reshaped else states[position]
    if feature.layout != "tokens":
        return state.permute(0, 3, 1, 2) if feature.layout == "channels_last" else state
    count = state.shape[1] - feature.prefix
    for rounding in (round, math.floor, math.ceil):
        h, w = (max(1, rounding(s / t)) for s, t in zip(size, feature.stride, strict=True))
        if h * w == count:
            return state[:, feature.prefix :].transpose(1, 2).unflatten(2, (h, w))
    raise ExplainerError(
        f"hidden state {feature.index} has {count} patches for a {size[0]} x {size[1]} picture, which is no grid of "
        f"stride {feature.stride[0]:g} x {feature.stride[1]:g}; give pictures of the size the explainer was made for."
    )


def read_features(model: PreTrainedModel, pixel_values: torch.Tensor, features: list[FeatureMap]):
    """(output, maps): the maps `features` describe, each (B, C, h, w), from one forward."""
    wanted = [f.index for f in features]
    output = call(model, pixel_values, output_hidden_states=wanted)  # most families keep only these in memory
    states = output.hidden_states
    selected = len(states) == len(wanted)  # TimmWrapper returns the selection, the others keep the positions
    size = pixel_values.shape[-2:]
    return output, [to_map(output, states, p if selected else f.index, f, size) for p, f in enumerate(features)]


@torch.no_grad()
def probe(model: PreTrainedModel, size: tuple[int, int]) -> tuple[torch.Tensor | None, list[FeatureMap]]:
    """(logits or None, one `FeatureMap` per hidden state) of a vision model, from a blank picture of `size`."""
    name, config = type(model).__name__, model.config
    if config.model_type in NOT_SPATIAL:
        raise ExplainerError(
            f"{name} has no spatial hidden states ({NOT_SPATIAL[config.model_type]}), so its pixels cannot be "
            "explained from them; use a classifier whose layers keep a grid, such as ViT, Swin, ConvNeXt or ResNet."
        )
    parameter = next(p for p in model.parameters() if p.is_floating_point())
    blank = torch.zeros(1, 3, *size, device=parameter.device, dtype=parameter.dtype)
    try:
        output = call(model, blank, output_hidden_states=True)
    except (TypeError, ValueError) as error:
        raise ExplainerError(
            f"{name} cannot be called with a picture and output_hidden_states=True ({str(error).splitlines()[0]}); "
            "give an image classifier of transformers (AutoModelForImageClassification)."
        ) from error
    states = getattr(output, "hidden_states", None)
    if not states:
        raise ExplainerError(
            f"{name} returns no hidden states, so there is nothing to read an explanation from; use an image "
            "classifier whose forward answers to output_hidden_states=True, as those of transformers do."
        )
    try:
        features = [describe(output, i, size, config) for i in range(len(states))]
    except ExplainerError as error:
        raise ExplainerError(
            f"the hidden states of {name} have no place in the picture: {error}; use a model whose layers keep a grid, "
            "such as ViT, Swin, ConvNeXt or ResNet."
        ) from None
    if not any(f.stride[0] < size[0] or f.stride[1] < size[1] for f in features):
        raise ExplainerError(
            f"every hidden state of {name} is a single cell at {size[0]} x {size[1]}, so none has a place; give larger "
            "pictures (the size of the image processor)."
        )
    return getattr(output, "logits", None), features


def choose_features(features: list[FeatureMap], count: int = 4) -> list[FeatureMap]:
    """The hidden states a head reads: the last of each resolution; `count` evenly spread ones if there is only one."""
    last_of_stride = {f.stride: f for f in features}
    if len(last_of_stride) == 1:
        depth = len(features) - 1  # 0 is the embedding
        picks = {max(1, round(depth * (i + 1) / count)) if depth else 0 for i in range(count)}
        return [features[i] for i in sorted(picks)]
    return sorted(last_of_stride.values(), key=lambda f: f.index)
