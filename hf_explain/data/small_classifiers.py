"""Small classifiers of the embedded pictures: one recipe per kind of backbone, trained in a minute or two on a CPU.

Part of what they see in training is blanked: masked pictures are then in their distribution, and what deletion and
insertion measure is evidence, not surprise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from transformers import AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel

from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from ..modeling.perturbation import blend
from ..modeling.pixel_space import PixelSpace
from ..modeling.references import reference_image
from .scenes import CLASSES

BLANK_REFERENCES = ("black", "mean", "blur")
LARGE = 160  # pixels: from here on the usual full-size models


@dataclass(frozen=True)
class Recipe:
    """How one kind of backbone learns the scenes.

    Args:
        small, large: configs of a picture's size; small ones in width and depth, large ones as published.
        epochs, learning_rate: of AdamW with one cycle.
        plain: share of the steps before any picture is blanked.
        explaining: what the training of its explainer has instead of the demo's own values, of `TrainingConfig`.
        neighborhood: of its explainer, for pictures of 64 pixels.
    """

    small: Callable[[int], PreTrainedConfig]
    large: Callable[[int], PreTrainedConfig]
    epochs: int = 6
    learning_rate: float = 2e-3
    plain: float = 0.3
    explaining: Mapping[str, Any] = field(default_factory=dict)
    neighborhood: int = 1


def encoder(size: int, **changes) -> dict:
    """Eight patches a side. The wide initialization is what lets so narrow a model start to learn, here and below."""
    shape = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128}
    return {"image_size": size, "patch_size": size // 8, "initializer_range": 0.06, **shape, **changes}


def vit_s(size: int, **changes) -> dict:
    shape = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536}
    return {"image_size": size, "patch_size": 16, **shape, **changes}


def dinov2(arguments: dict) -> dict:
    """Dinov2Config has a ratio where the others have intermediate_size."""
    return {**arguments, "mlp_ratio": arguments.pop("intermediate_size") // arguments["hidden_size"]}


RECIPES = {
    "vit": Recipe(
        small=lambda size: transformers.ViTConfig(**encoder(size)),
        large=lambda size: transformers.ViTConfig(**vit_s(size)),
    ),
    "deit": Recipe(
        small=lambda size: transformers.DeiTConfig(**encoder(size)),
        large=lambda size: transformers.DeiTConfig(**vit_s(size)),
    ),
    "dinov2": Recipe(
        small=lambda size: transformers.Dinov2Config(**dinov2(encoder(size))),
        large=lambda size: transformers.Dinov2Config(**dinov2(vit_s(size, patch_size=14))),
    ),
    "swin": Recipe(
        small=lambda size: transformers.SwinConfig(
            image_size=size, patch_size=size // 8, embed_dim=64, depths=[2, 2], num_heads=[4, 8], window_size=4,
            mlp_ratio=2.0, drop_path_rate=0.0, initializer_range=0.12,
        ),
        large=lambda size: transformers.SwinConfig(image_size=size, window_size=min(7, size // 32)),
        plain=0.4,
        neighborhood=15,
    ),
    "convnext": Recipe(
        small=lambda size: transformers.ConvNextConfig(
            hidden_sizes=[24, 48, 96], depths=[2, 2, 2], num_stages=3, layer_scale_init_value=1.0,
            initializer_range=0.2,
        ),
        large=lambda size: transformers.ConvNextConfig(image_size=size),
        epochs=14,
        learning_rate=2.5e-3,
        plain=0.4,
        explaining={"learning_rate": 3e-3, "tau": (0.4, 0.04), "coarse": 0.25},
        neighborhood=15,
    ),
    "resnet": Recipe(
        small=lambda size: transformers.ResNetConfig(
            embedding_size=24, hidden_sizes=[24, 48, 96], depths=[1, 1, 1], layer_type="basic"
        ),
        large=lambda size: transformers.ResNetConfig(),
        epochs=5,
        learning_rate=3e-3,
        plain=0.2,
    ),
    "pvt_v2": Recipe(
        small=lambda size: transformers.PvtV2Config(
            image_size=size, hidden_sizes=[16, 32, 64, 96], depths=[1, 1, 2, 1], num_attention_heads=[1, 2, 4, 4],
            sr_ratios=[4, 2, 1, 1], mlp_ratios=[2, 2, 2, 2], drop_path_rate=0.0, initializer_range=0.1,
        ),
        large=lambda size: transformers.PvtV2Config(image_size=size),
        epochs=12,
        learning_rate=1.5e-3,
        plain=0.4,
    ),
}  # fmt: skip


def check_recipe(backbone: str, size: int) -> None:
    if backbone not in RECIPES:
        raise ExplainerError(f"unknown backbone {backbone!r}; choose from {', '.join(RECIPES)}.")
    if size < 32 or size % 32:
        raise ExplainerError(f"size={size}; give a multiple of 32 pixels, so that patches fit.")


def build_classifier(backbone: str, size: int = 64, seed: int = 0) -> PreTrainedModel:
    """An untrained classifier of the scenes' classes.

    >>> build_classifier("swin", size=64).config.num_labels
    8
    """
    check_recipe(backbone, size)
    recipe = RECIPES[backbone]
    config = (recipe.large if size >= LARGE else recipe.small)(size)
    config.id2label = dict(enumerate(CLASSES))
    config.label2id = {name: index for index, name in config.id2label.items()}
    config.architectures = config.architectures or []  # deit: from_config iterates over it
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return AutoModelForImageClassification.from_config(config)


def random_classifier(backbone: str = "vit", size: int = 32) -> Classifier:
    """An untrained `Classifier` of the scenes' classes, quick to make: what the examples in docstrings explain.

    >>> random_classifier("resnet")(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 8])
    """
    processor = transformers.ViTImageProcessorPil(size={"height": size, "width": size})
    return Classifier(build_classifier(backbone, size), processor).freeze()


def train_classifier(
    model: PreTrainedModel,
    pixel_values: torch.Tensor,
    labels: torch.Tensor,
    space: PixelSpace,
    *,
    recipe: Recipe,
    seed: int = 0,
    batch_size: int = 64,
    progress=iter,
) -> None:
    """Trains `model` in place on pictures (N, 3, H, W), half of each batch with a part of it blanked.

    Args:
        progress: wraps the iterator over the steps, as tqdm.
    """
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), recipe.learning_rate, weight_decay=0.01)
    batches = [b for _ in range(recipe.epochs) for b in torch.randperm(len(labels), generator=random).split(batch_size)]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=len(batches), pct_start=0.1
    )
    device = next(model.parameters()).device
    model.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):  # dropout, stochastic depth
        torch.manual_seed(seed)
        for step, batch in progress(list(enumerate(batches))):
            pictures = pixel_values[batch]
            if step >= recipe.plain * len(batches):
                pictures = blank_some(pictures, space, random)
            loss = F.cross_entropy(model(pictures.to(device)).logits, labels[batch].to(device))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    model.eval()


def blank_some(pixel_values: torch.Tensor, space: PixelSpace, random: torch.Generator) -> torch.Tensor:
    """The batch with up to 90 % of half of its pictures replaced, by each reference in turn."""
    out, chosen = pixel_values.clone(), torch.randperm(len(pixel_values), generator=random)[: len(pixel_values) // 2]
    if not len(chosen):
        return out
    for which, reference in zip(chosen.chunk(len(BLANK_REFERENCES)), BLANK_REFERENCES):
        pictures = pixel_values[which]
        gone = random_regions(pictures, 0.9 * torch.rand(len(which), 1, 1, generator=random), random)
        out[which] = blend(pictures, gone, reference_image(pictures, space, reference))
    return out


def random_regions(pictures: torch.Tensor, share: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """(B, H, W) bool: `share` (B, 1, 1) of the pixels, in blobs or squares of one size, from a quarter to one pixel."""
    side = min(pictures.shape[-2:])
    sides = [s for s in (4 * 2**n for n in range(10)) if s < side] + [side]
    cells = sides[int(torch.randint(len(sides), (), generator=random))]
    mode = ("nearest", "bilinear")[int(torch.randint(2, (), generator=random))]
    noise = F.interpolate(torch.rand(len(pictures), 1, cells, cells, generator=random), pictures.shape[-2:], mode=mode)
    rank = noise.flatten(1).argsort(1).argsort(1).view(len(pictures), *pictures.shape[-2:])
    return rank < share * rank[0].numel()
