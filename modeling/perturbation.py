"""The only place a picture is altered: pixel space, references, and rank -> mask -> picture. Tensors only.

Everything works on `pixel_values`, the tensor a classifier's own image processor returns. Blending towards a reference
commutes with the normalization, so a picture never has to be un-normalized on the way; only references that are defined
as colors (black, mean, noise, a number) must be expressed in the processor's space, which is what `PixelSpace` is for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from numbers import Real

import numpy as np
import torch
import torch.nn.functional as F


class ExplainerError(Exception):
    """What came, what was expected, what to do. Not a ValueError: transformers swallows those while loading.

    >>> read_reference("grey")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    hf_explain.modeling.perturbation.ExplainerError: unknown reference 'grey'; choose from ...
    """


@dataclass(frozen=True)
class PixelSpace:
    """How a processor writes a color: `pixel_values[:, c] = gain[c] * rgb[:, order[c]] + offset[c]`, RGB in [0, 1].

    >>> import torch
    >>> space = PixelSpace(gain=(2.0, 2.0, 2.0), offset=(-1.0, -1.0, -1.0))
    >>> space.from_rgb(torch.zeros(1, 3, 4, 4)).unique().tolist()
    [-1.0]
    """

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    order: tuple[int, int, int] = (0, 1, 2)  # (2, 1, 0) for a processor that writes BGR

    def __post_init__(self):
        for name in ("gain", "offset", "order"):  # JSON gives lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if sorted(self.order) != [0, 1, 2] or 0.0 in self.gain or not len(self.gain) == len(self.offset) == 3:
            raise ExplainerError(
                f"pixel_space holds gain={self.gain}, offset={self.offset}, order={self.order}, but it needs three "
                "non-zero gains, three offsets and a permutation of (0, 1, 2); make the explainer again with "
                "from_classifier(...)."
            )

    @classmethod
    def from_image_processor(cls, image_processor) -> PixelSpace:
        """The pixel space of any processor, found by showing it pictures of one color and reading what it wrote."""

        if isinstance(image_processor, type):
            raise ExplainerError(f"image_processor is the class {image_processor.__name__}; give an instance of it.")

        def write(red, green, blue):
            picture = np.full((64, 64, 3), (red, green, blue), np.uint8)
            values = torch.as_tensor(image_processor(images=picture, return_tensors="pt")["pixel_values"]).double()
            if values.ndim != 4 or values.shape[1] != 3:
                raise ExplainerError(
                    f"{type(image_processor).__name__} returns pixel_values of shape {tuple(values.shape)}, but "
                    "(batch, 3, height, width) is needed; this classifier's input is not an RGB picture."
                )
            return values[0, :, values.shape[2] // 2, values.shape[3] // 2]  # the middle is never padding

        black = write(0, 0, 0)
        effect = torch.stack([write(255, 0, 0), write(0, 255, 0), write(0, 0, 255)], dim=1) - black[:, None]
        order = effect.abs().argmax(1)  # which color drives channel c
        gain = effect.gather(1, order[:, None])[:, 0]
        space = cls(tuple(gain.tolist()), tuple(black.tolist()), tuple(order.tolist()))
        probe = torch.tensor([0.2, 0.6, 0.8], dtype=torch.float64).view(1, 3, 1, 1)  # 51, 153, 204 of 255
        if not torch.allclose(
            space.from_rgb(probe).flatten(), write(51, 153, 204), atol=1e-4 * float(gain.abs().max())
        ):
            raise ExplainerError(
                f"{type(image_processor).__name__} does not write colors as gain * color + offset per channel, so "
                "black or a mean color has no meaning in its space; give an image processor that only rescales, "
                "normalizes and orders channels."
            )
        return space

    def from_rgb(self, rgb: torch.Tensor) -> torch.Tensor:
        """Pixel values of RGB in [0, 1]: (..., 3, H, W) -> (..., 3, H, W)."""
        rgb = floating(rgb)
        gain, offset = (rgb.new_tensor(v).view(3, 1, 1) for v in (self.gain, self.offset))
        return rgb[..., list(self.order), :, :] * gain + offset

    def to_rgb(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """RGB in [0, 1] of pixel values: (..., 3, H, W) -> (..., 3, H, W). Not clamped."""
        pixel_values = floating(pixel_values)
        gain, offset = (pixel_values.new_tensor(v).view(3, 1, 1) for v in (self.gain, self.offset))
        back = [self.order.index(c) for c in range(3)]
        return ((pixel_values - offset) / gain)[..., back, :, :]

    def is_close(self, other: PixelSpace) -> bool:
        return self.order == other.order and all(
            abs(a - b) <= 1e-4 * (1 + abs(b))
            for a, b in zip(self.gain + self.offset, other.gain + other.offset, strict=True)
        )

    def to_dict(self) -> dict:
        return {key: list(value) for key, value in asdict(self).items()}


def floating(values: torch.Tensor) -> torch.Tensor:
    """As they are, or float32 of the uint8 that a processor without rescaling gives."""
    return values if values.is_floating_point() else values.float()


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


# ---- references: what a removed pixel is replaced by, all in pixel_values' space, broadcastable to it ----

MEAN_COLOR = (0.485, 0.456, 0.406)  # of ImageNet, as AHA's "mean"


def _color(pixel_values, space, rgb):
    return space.from_rgb(pixel_values.new_tensor(rgb).view(1, 3, 1, 1)).expand_as(pixel_values)


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


def _rise_blur(pixel_values, space, generator):
    # RISE: an 11 x 11 kernel, a Gaussian of sigma 5 whose tails are reflected back into it, so that it is nearly a box.
    at = torch.arange(-20, 21, dtype=torch.float64)  # four sigmas
    folded = (at + 5).remainder(22).sub(10.5).abs().neg().add(10.5).long()  # 0..10: reflected at both borders
    kernel = torch.zeros(11, dtype=torch.float64).index_add(0, folded, torch.exp(-0.5 * (at / 5) ** 2))
    weights = (kernel / kernel.sum()).to(pixel_values).expand(pixel_values.shape[1], 1, 1, -1)
    rows = F.conv2d(pixel_values, weights, padding=(0, 5), groups=len(weights))
    return F.conv2d(rows, weights.transpose(2, 3), padding=(5, 0), groups=len(weights))


REFERENCES = {
    "black": lambda pixel_values, space, generator: _color(pixel_values, space, (0.0, 0.0, 0.0)),
    "mean": lambda pixel_values, space, generator: _color(pixel_values, space, MEAN_COLOR),
    "blur": _blur,
    "noise": _noise,
}
RAW_REFERENCES = {  # of published protocols: in the space of pixel_values itself, so other colors for other processors
    "zero": lambda pixel_values, space, generator: torch.zeros_like(pixel_values),
    "minimum": lambda pixel_values, space, generator: pixel_values.amin((1, 2, 3), keepdim=True).expand_as(
        pixel_values
    ),
    "rise_blur": _rise_blur,
    "signed_noise": _signed_noise,
}
COLORS = ("black", "mean", "noise")  # these have no meaning without a `PixelSpace`; grays neither
PER_PICTURE = ("blur", "rise_blur", "minimum")  # these depend on the picture
PER_PIXEL = ("noise", "signed_noise")  # these are drawn for every pixel


def read_reference(reference, known: Iterable[str] = tuple(REFERENCES)) -> str | float:
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
    known = REFERENCES | RAW_REFERENCES
    if isinstance(reference, str):
        reference = read_reference(reference, known)
    if space is None and (reference in COLORS or not isinstance(reference, str)):
        raise ExplainerError(
            f"reference {reference!r} is a color, but how this classifier's image processor writes colors is unknown; "
            "give image_processor=."
        )
    if isinstance(reference, str):
        return known[reference](pixel_values, space, generator)
    return _color(pixel_values, space, (float(reference),) * 3)


# ---- rank -> mask -> picture ----


def rank_pixels(attributions: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Position of each pixel in the order of falling importance, 0 = most important: (B, H, W) -> int64 (B, H, W).

    Ties keep reading order; with a generator they are broken at random. NaN, where a model never looked, comes last.

    >>> import torch
    >>> rank_pixels(torch.tensor([[[0.1, 0.9], [0.5, 0.5]]])).tolist()
    [[[3, 0], [1, 2]]]
    """
    flat = attributions.flatten(1).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)  # (B, P)
    start = torch.arange(flat.shape[1], device=flat.device).expand_as(flat)
    if generator is not None:
        start = torch.rand(flat.shape, generator=generator, device=generator.device).to(flat.device).argsort(1)
    order = flat.gather(1, start).argsort(dim=1, descending=True, stable=True)
    order = start.gather(1, order)
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(flat.shape[1], device=flat.device).expand_as(order))
    return rank.view_as(attributions)


def order_each(values: torch.Tensor, seed: int) -> torch.Tensor:
    """Indices of the values (B, N) from the largest to the smallest: (B, N).

    Equal ones are ordered by the seed, the same for a picture whatever the others are; NaN come last.
    """
    values = values.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    start = torch.rand(values.shape[1], generator=torch.Generator().manual_seed(seed)).argsort().to(values.device)
    return start[values[:, start].argsort(dim=1, descending=True, stable=True)]


def rank_each(attributions: torch.Tensor, seed: int) -> torch.Tensor:
    """`rank_pixels` with ties broken by the seed, the same for a picture whatever the others are.

    >>> import torch
    >>> one, other = rank_each(torch.zeros(2, 4, 4), seed=0)
    >>> bool((one == other).all())
    True
    """
    order = order_each(attributions.flatten(1), seed)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view_as(attributions)


def top_mask(rank: torch.Tensor, share: float) -> torch.Tensor:
    """Where the top `share` of the pixels is: exactly round(share * P) of them, (B, H, W) bool.

    >>> import torch
    >>> top_mask(torch.arange(16).view(1, 4, 4), 0.25).sum().item()
    4
    """
    return rank < round(share * rank[0].numel())


def blend(pixel_values: torch.Tensor, mask: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """`pixel_values` (B, 3, H, W) with `reference` where `mask` (B, H, W), bool or in [0, 1], is set.

    >>> mask = torch.tensor([[[True, False]]])
    >>> blend(torch.ones(1, 3, 1, 2), mask, torch.zeros(1, 3, 1, 2))[0, 0].tolist()
    [[0.0, 1.0]]
    """
    mask, pixel_values, reference = mask[:, None], floating(pixel_values), floating(reference)
    if mask.dtype == torch.bool:
        return torch.where(mask, reference, pixel_values)
    return torch.lerp(pixel_values, reference.to(pixel_values), mask.to(pixel_values))
