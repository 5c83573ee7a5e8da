"""Semantic Pullbacks (arXiv 2507.22832): what a class looks like to the classifier, pulled back to the pixels.

The class's logit is differentiated through softened backward rules (`soft_backward`), in colors from -1 to 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers.utils import logging

from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from ..modeling.pixel_space import PixelSpace
from ..modeling.targets import of_target
from .batching import batches
from .forwards import forwards
from .soft_backward import Rules, SoftBackward

logger = logging.get_logger(__name__)
FULL_SIZE = 3 * 224 * 224  # values of the pictures the published step length is for
TOLD: set[str] = set()  # models whose non-linearities without a rule were named


def semantic_pullback(
    classifier: Classifier,
    pixel_values: torch.Tensor,
    targets=None,
    *,
    variant: str = "soft",
    squeeze: str = "times_input",
    rules: Rules | None = None,
    steps: int = 5,
    length: float = 20.0,
    samples: int = 50,
    noise: float = 0.15,
    seed: int = 0,
    batch_size: int = 32,
) -> torch.Tensor:
    """The pullback of the class's logit, with one number per pixel.

    Args:
        variant: "soft", one pullback; "ascent", the way of `steps` steps along it; "smooth", the mean of `samples`
            pullbacks near the picture; "double", the pullback of the picture moved along its pullback.
        squeeze: "times_input" (color times pullback, which locates best), "sum", "absolute" or "norm" over the colors.
        rules: temperatures of the backward pass; default those of the paper's code.
        steps, length: of "ascent"; the length is that of each step for 3 x 224 x 224 values, and is scaled by the size.
        samples, noise, seed: of "smooth"; noise is the spread in colors from -1 to 1.
        batch_size: pictures per forward and backward.

    >>> import torch, hf_explain
    >>> from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil
    >>> model = ViTForImageClassification(ViTConfig(image_size=32, hidden_size=16, num_hidden_layers=1,
    ...                                             num_attention_heads=1, intermediate_size=16))
    >>> classifier = hf_explain.Classifier(model, ViTImageProcessorPil(size={"height": 32, "width": 32}))
    >>> hf_explain.METHODS["semantic_pullback"](classifier, torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 32, 32])
    """
    if squeeze not in SQUEEZES:
        raise ExplainerError(f"unknown squeeze {squeeze!r}; choose from {', '.join(SQUEEZES)}.")
    found = pullback(
        classifier, pixel_values, targets, variant=variant, rules=rules, steps=steps, length=length, samples=samples,
        noise=noise, seed=seed, batch_size=batch_size,
    )  # fmt: skip
    colors = signed_colors(need_space(classifier), pixel_values.to(found.device, classifier.dtype)).float()
    return SQUEEZES[squeeze](found, colors)


SQUEEZES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "times_input": lambda found, colors: (found * colors).sum(1),
    "sum": lambda found, colors: found.sum(1),
    "absolute": lambda found, colors: found.abs().sum(1),
    "norm": lambda found, colors: found.norm(dim=1),
}


def pullback(
    classifier: Classifier,
    pixel_values: torch.Tensor,
    targets=None,
    *,
    variant: str = "soft",
    rules: Rules | None = None,
    steps: int = 5,
    length: float = 20.0,
    samples: int = 50,
    noise: float = 0.15,
    seed: int = 0,
    batch_size: int = 32,
) -> torch.Tensor:
    """As `semantic_pullback`, signed and per color, (B, 3, H, W) in colors from -1 to 1: what the paper measures."""
    if variant not in VARIANTS:
        raise ExplainerError(f"unknown variant {variant!r}; choose from {', '.join(VARIANTS)}.")
    if steps < 1 or samples < 1 or not length > 0 or noise < 0:
        raise ExplainerError(
            f"steps={steps}, samples={samples}, length={length}, noise={noise}; give at least 1 step and sample, a "
            "positive length and no negative noise."
        )
    space, once = need_space(classifier), Once(classifier, rules)
    options = {"steps": steps, "length": length, "samples": samples, "noise": noise}
    found, passes = [], {"ascent": steps, "smooth": samples, "double": 2}.get(variant, 1)
    with forwards("semantic_pullback", passes * len(pixel_values)) as once.done:
        for x, t in batches(classifier, pixel_values, targets, batch_size):
            random = torch.Generator().manual_seed(seed)
            found.append(VARIANTS[variant](once, signed_colors(space, x), t, random=random, **options))
    once.tell()
    return torch.cat(found).float()


class Once:
    """One pullback: the gradient of the logits of `targets` by the colors, through the softened rules."""

    def __init__(self, classifier: Classifier, rules: Rules | None = None):
        self.classifier, self.space, self.mode = classifier, need_space(classifier), SoftBackward(rules)
        self.done: Callable[[int], None] = lambda pictures: None

    def __call__(self, colors: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            colors = colors.detach().clone().requires_grad_(True)
            pixels = self.space.from_rgb((colors + 1) / 2).to(self.classifier.dtype)
            with self.mode:
                score = of_target(self.classifier(pixels), targets).sum()
            found = torch.autograd.grad(score, colors, allow_unused=True)[0] if score.requires_grad else None
        if found is None:
            raise ExplainerError(
                f"gates='constant' leaves no way from the logits of {type(self.classifier.model).__name__} to its "
                "pixels, because all of them go through gates; give gates='gradient'."
            )
        self.done(len(found))
        return found.detach()

    def tell(self) -> None:
        """Names the non-linearities without a rule, once for each kind of model."""
        kind = type(self.classifier.model).__name__
        if self.mode.uncovered and kind not in TOLD:
            TOLD.add(kind)
            logger.warning(
                f"{kind} has non-linearities without a softened rule ({', '.join(sorted(self.mode.uncovered))}), which "
                "keep their gradient in semantic pullbacks."
            )


# ---- variants ----


def soft(once, colors, targets, **options) -> torch.Tensor:
    return once(colors, targets)


def ascent(once, colors, targets, *, steps: int, length: float, **options) -> torch.Tensor:
    """How far the picture goes in `steps` steps of one length along the pullback of where it is."""
    moved = colors
    for _ in range(steps):
        moved = moved + stride(once(moved, targets), length)
    return moved - colors


def smooth(once, colors, targets, *, samples: int, noise: float, random, **options) -> torch.Tensor:
    """All pictures get the same noise, which depends neither on the batch nor on the device."""
    total = torch.zeros_like(colors)
    for _ in range(samples):
        drawn = torch.randn(colors.shape[1:], generator=random).to(colors)
        total += once(colors + noise * drawn, targets)
    return total / samples


def double(once, colors, targets, **options) -> torch.Tensor:
    """The pullback at the picture plus twice its pullback."""
    return once(colors + 2 * once(colors, targets), targets)


VARIANTS: dict[str, Callable[..., torch.Tensor]] = {"soft": soft, "ascent": ascent, "smooth": smooth, "double": double}


def stride(direction: torch.Tensor, length: float) -> torch.Tensor:
    """`direction` with the length of one step, for each picture; the published length grows with the picture's side."""
    scaled = length * (direction[0].numel() / FULL_SIZE) ** 0.5
    size = direction.flatten(1).norm(dim=1).clamp(min=1e-20).view(-1, 1, 1, 1)
    return scaled * direction / size


# ---- colors from -1 to 1 ----


def signed_colors(space: PixelSpace, pixel_values: torch.Tensor) -> torch.Tensor:
    return 2 * space.to_rgb(pixel_values) - 1


def need_space(classifier: Classifier) -> PixelSpace:
    if classifier.pixel_space is None:
        raise ExplainerError(
            "semantic pullbacks are taken in colors, but how this classifier's image processor writes them is unknown; "
            "give Classifier(model, image_processor)."
        )
    return classifier.pixel_space
