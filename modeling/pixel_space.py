"""`PixelSpace`: how the image processor of a classifier writes colors."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch

from .errors import ExplainerError


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
