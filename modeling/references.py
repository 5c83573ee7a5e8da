"""References: what removed pixels become, in the space of `pixel_values`, broadcastable to it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Real

import torch
import torch.nn.functional as F

from .errors import ExplainerError
from .pixel_space import PixelSpace, floating


def blur_with(images: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Images (B, C, H, W) under a separable odd kernel (K,), normalized, with reflected borders.

    >>> import torch
    >>> blur_with(torch.ones(1, 2, 8, 8), torch.ones(3)).shape
    torch.Size([1, 2, 8, 8])
    """
    channels = images.shape[1]
    weights = (kernel / kernel.sum()).to(images).expand(channels, 1, 1, -1)
    padded = F.pad(images, [len(kernel) // 2] * 4, mode="reflect")
    rows = F.conv2d(padded, weights, groups=channels)
    return F.conv2d(rows, weights.transpose(2, 3), groups=channels)


@dataclass(frozen=True)
class Reference:
    """How removed pixels are made, and what they depend on.

    Args:
        make: called with `pixel_values`, the `PixelSpace` and the generator; gives the shape of `pixel_values`.
        color: has no meaning without a `PixelSpace`.
        per_picture: depends on the picture.
        per_pixel: is drawn for every pixel.
    """

    make: Callable[[torch.Tensor, PixelSpace | None, torch.Generator | None], torch.Tensor]
    color: bool = False
    per_picture: bool = False
    per_pixel: bool = False


MEAN_COLOR = (0.485, 0.456, 0.406)  # of ImageNet, as AHA's "mean"


def _color(*rgb: float) -> Reference:
    def make(pixel_values, space, generator):
        return space.from_rgb(pixel_values.new_tensor(rgb).view(1, 3, 1, 1)).expand_as(pixel_values)

    return Reference(make, color=True)


def _blur(pixel_values, space, generator):
    # AHA: 37 x 37 Gaussian with sigma 37 at 224 pixels, reflected borders. Other sizes keep the share of the picture.
    size = min(pixel_values.shape[-2:])
    radius = min(max(1, round(size * 18 / 224)), size - 1)
    if radius < 1:
        return pixel_values
    at = torch.arange(-radius, radius + 1, device=pixel_values.device, dtype=torch.float32)
    return blur_with(pixel_values, torch.exp(-0.5 * (at / (2 * radius + 1)) ** 2))


def _noise(pixel_values, space, generator):
    rgb = torch.rand(pixel_values.shape, generator=need(generator), device=generator.device)
    return space.from_rgb(rgb.to(pixel_values))


def need(generator):
    if generator is None:
        raise ExplainerError("a reference of noise is random: give generator=torch.Generator().manual_seed(...).")
    return generator


def _signed_noise(pixel_values, space, generator):
    return 2 * torch.rand(pixel_values.shape, generator=need(generator), device=generator.device).to(pixel_values) - 1


def _minimum(pixel_values, space, generator):
    return pixel_values.amin((1, 2, 3), keepdim=True).expand_as(pixel_values)


def _rise_blur(pixel_values, space, generator):
    # RISE: an 11 x 11 kernel, a Gaussian of sigma 5 whose tails are reflected back into it, so that it is nearly a box.
    at = torch.arange(-20, 21, dtype=torch.float64)  # four sigmas
    folded = (at + 5).remainder(22).sub(10.5).abs().neg().add(10.5).long()  # 0..10: reflected at both borders
    kernel = torch.zeros(11, dtype=torch.float64).index_add(0, folded, torch.exp(-0.5 * (at / 5) ** 2))
    weights = (kernel / kernel.sum()).to(pixel_values).expand(pixel_values.shape[1], 1, 1, -1)
    rows = F.conv2d(pixel_values, weights, padding=(0, 5), groups=len(weights))
    return F.conv2d(rows, weights.transpose(2, 3), padding=(5, 0), groups=len(weights))


REFERENCES = {  # what training draws from, and whatever else asks for a color or a blur
    "black": _color(0.0, 0.0, 0.0),
    "mean": _color(*MEAN_COLOR),
    "blur": Reference(_blur, per_picture=True),
    "noise": Reference(_noise, color=True, per_pixel=True),
}
RAW_REFERENCES = {  # of published protocols: in the space of pixel_values itself, so other colors for other processors
    "zero": Reference(lambda pixel_values, space, generator: torch.zeros_like(pixel_values)),
    "minimum": Reference(_minimum, per_picture=True),
    "rise_blur": Reference(_rise_blur, per_picture=True),
    "signed_noise": Reference(_signed_noise, per_pixel=True),
}


def read_reference(reference, known: Iterable[str] = REFERENCES) -> str | float:
    """A name out of `known` as it is, a gray in [0, 1] as a number.

    >>> read_reference("blur"), read_reference("0.5")
    ('blur', 0.5)
    """
    if isinstance(reference, str) and reference in known:
        return reference
    if plain := isinstance(reference, (str, Real)):
        with contextlib.suppress(ValueError):
            if 0 <= float(reference) <= 1:
                return float(reference)
    shown = repr(reference) if plain else type(reference).__name__
    raise ExplainerError(f"unknown reference {shown:.60}; choose from {', '.join(known)}, or give a gray from 0 to 1.")


def find_reference(reference: str | float) -> Reference:
    """What a name of `REFERENCES` or `RAW_REFERENCES`, or a gray, stands for."""
    known = REFERENCES | RAW_REFERENCES
    if isinstance(reference, str):
        reference = read_reference(reference, known)
    return known[reference] if isinstance(reference, str) else _color(*[float(reference)] * 3)


def reference_image(
    pixel_values: torch.Tensor,
    space: PixelSpace | None,
    reference: str | float | torch.Tensor = "black",
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """What `pixel_values` (B, 3, H, W) become where pixels are removed, same shape.

    `reference` is a name of `REFERENCES` or `RAW_REFERENCES`, a number (that gray, in [0, 1]) or a tensor in the space
    of `pixel_values`.

    >>> import torch
    >>> reference_image(torch.rand(2, 3, 8, 8), PixelSpace(), 0.5).shape
    torch.Size([2, 3, 8, 8])
    """
    pixel_values = floating(pixel_values)
    if isinstance(reference, torch.Tensor):
        try:
            return reference.to(pixel_values).expand_as(pixel_values)
        except RuntimeError as error:
            raise ExplainerError(
                f"a reference of shape {tuple(reference.shape)} does not fit pixel_values {tuple(pixel_values.shape)}; "
                "give one that broadcasts to it."
            ) from error
    found = find_reference(reference)
    if found.color and space is None:
        raise ExplainerError(
            f"reference {reference!r} is a color, but how this classifier's image processor writes colors is unknown; "
            "give image_processor=."
        )
    return found.make(pixel_values, space, generator)
