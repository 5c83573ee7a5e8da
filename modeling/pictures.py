"""From whatever a person calls a picture to RGB, from a map at the model's size back onto the picture, and its colors."""

from __future__ import annotations

import base64
import binascii
import io
import os
import urllib.error
import urllib.request
from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
import torch.nn.functional as F

from .perturbation import ExplainerError, PixelSpace

# Anchors of a perceptually uniform color map from black over purple and orange to pale yellow.
COLORS = np.array(
    [(0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85), (227, 89, 51), (249, 140, 10), (249, 201, 50), (252, 255, 164)],
    dtype=np.float32,
)  # fmt: skip
KINDS = "a PIL image, a path, a URL, a (H, W), (H, W, 3) or (3, H, W) array, or raw bytes"


def open_picture(source) -> PIL.Image.Image:
    """An upright RGB picture of a PIL image, path, URL, base64 string, bytes, array or tensor."""
    if isinstance(source, PIL.Image.Image):
        return to_rgb(source, "the picture")
    if isinstance(source, dict) and (source.get("bytes") or source.get("path")):  # datasets.Image(decode=False)
        source = source.get("bytes") or source["path"]
    if isinstance(source, (np.ndarray, torch.Tensor)):
        return from_array(source)
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        return to_rgb(read(fetch(name), shorten(name)), shorten(name))
    if isinstance(source, (bytes, bytearray)):
        return to_rgb(read(io.BytesIO(source), "the given bytes"), "the given bytes")
    raise ExplainerError(f"a {type(source).__name__} is no picture; give {KINDS}.")


def shorten(name: str) -> str:
    return repr(name if len(name) <= 120 else name[:100] + "...")


def fetch(name: str):
    if name.startswith(("http://", "https://")):
        try:
            request = urllib.request.Request(name, headers={"User-Agent": "hf-explain"})
            with urllib.request.urlopen(request, timeout=30) as answer:
                return io.BytesIO(answer.read())
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise ExplainerError(f"{shorten(name)} could not be fetched ({error}); check the address.") from error
    if os.path.exists(name):
        return name
    try:
        return io.BytesIO(
            base64.b64decode(name.split(",", 1)[1] if name.startswith("data:image/") else name, validate=True)
        )
    except (binascii.Error, ValueError, IndexError):
        raise ExplainerError(f"there is no file {shorten(name)}; give {KINDS}.") from None


def read(file, name: str) -> PIL.Image.Image:
    try:
        return PIL.Image.open(file)
    except (PIL.UnidentifiedImageError, PIL.Image.DecompressionBombError, OSError, ValueError) as error:
        raise ExplainerError(
            f"{name} cannot be read as a picture ({' '.join(str(error).split())}); is the file complete?"
        ) from error


def to_rgb(image: PIL.Image.Image, name: str) -> PIL.Image.Image:
    try:
        image.load()
        image = PIL.ImageOps.exif_transpose(image)
        if image.mode == "F" or image.mode.startswith("I"):  # 16 bits: PIL would cut everything above 255 off
            values = np.asarray(image, dtype=np.float32)
            top = 65535.0 if values.max(initial=0) > 255 else 255.0
            if image.mode == "F" and values.max(initial=0) <= 1:
                top = 1.0
            image = PIL.Image.fromarray((values / top * 255).clip(0, 255).round().astype(np.uint8))
        return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise ExplainerError(
            f"{name} cannot be read as a picture ({' '.join(str(error).split())}); is the file complete?"
        ) from error


def from_array(values) -> PIL.Image.Image:
    array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
    shape = array.shape
    if array.ndim == 3 and shape[-1] not in (1, 3, 4) and shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or array.size == 0 or (array.ndim == 3 and array.shape[-1] not in (3, 4)):
        raise ExplainerError(f"an array of shape {shape} is no picture; give (H, W), (H, W, 3) or (3, H, W).")
    if array.dtype == np.uint16:
        array = (array / 257).round().astype(np.uint8)
    elif array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        low, high = float(array.min()), float(array.max())
        floating = np.issubdtype(array.dtype, np.floating)
        if not (low >= 0 and high <= (1 if floating else 255)):  # also NaN
            expected = "[0, 1] for floating point" if floating else "[0, 255]"
            raise ExplainerError(
                f"an array with values from {low:g} to {high:g} is no picture; {expected} is expected."
            )
        array = (array * 255 if floating else array).round().astype(np.uint8)
    return PIL.Image.fromarray(array).convert("RGB")


# ---- from the picture to the model's input and back ----


@dataclass(frozen=True)
class View:
    """What of a picture the processor shows the model: `box` in the picture (left, top, right, bottom), `cells` in the
    model's input (the rest of which is padding)."""

    box: tuple[int, int, int, int]
    cells: tuple[int, int, int, int]


def find_view(image_processor, space: PixelSpace, height: int, width: int) -> View:
    """Where any processor that resizes, crops and pads looks, found by showing it a ramp and reading what came out."""
    scale = 1.0
    if getattr(image_processor, "do_resize", True):  # then only the aspect ratio counts; sharp and fast at this size
        scale = min(max(512 / max(height, width), 64 / min(height, width)), 4096 / max(height, width))
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    ramp = np.empty((h, w, 3), np.uint8)
    ramp[..., 0] = np.round(255 * (np.arange(w) + 0.5) / w)[None]
    ramp[..., 1] = np.round(255 * (np.arange(h) + 0.5) / h)[:, None]
    ramp[..., 2] = 255  # padding is black
    seen = torch.as_tensor(image_processor(images=PIL.Image.fromarray(ramp), return_tensors="pt")["pixel_values"])
    seen = space.to_rgb(seen.double())[0].numpy()  # (3, H, W)
    inside = seen[2] > 0.5
    columns, rows = np.flatnonzero(inside.any(0)), np.flatnonzero(inside.any(1))
    if not len(columns):
        raise ExplainerError(
            f"{type(image_processor).__name__} shows the model nothing of a {width} x {height} picture."
        )
    left, right = edges(seen[0][rows].mean(0)[columns], columns, w)
    top, bottom = edges(seen[1][:, columns].mean(1)[rows], rows, h)
    box = (round(left * width), round(top * height), round(right * width), round(bottom * height))
    box = (min(box[0], width - 1), min(box[1], height - 1), max(box[2], box[0] + 1), max(box[3], box[1] + 1))
    return View(box, (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))


def edges(values: np.ndarray, positions: np.ndarray, size: int) -> tuple[float, float]:
    """Where (in [0, 1]) the first and last position begin and end, of a linear ramp; flat ends are interpolation."""
    margin = 1.5 / size
    linear = (values > margin) & (values < 1 - margin) if size > 3 else np.zeros(len(values), bool)
    if linear.sum() < 4:
        return 0.0, 1.0
    x, y = positions[linear] + 0.5, values[linear]
    slope, start = np.polyfit(x, y, 1)
    if slope <= 0 or np.abs(slope * x + start - y).max() > 0.02 + 2 * slope:
        raise ExplainerError(
            "the image processor does more than resize, crop and pad, so a map cannot be brought back to the picture; ask "
            'for output_size="model".'
        )
    snap = 0.5 * slope  # half a pixel of the model's input
    first, last = slope * positions[0] + start, slope * (positions[-1] + 1) + start
    return (0.0 if first < snap else first), (1.0 if last > 1 - snap else last)


def paste(attribution: torch.Tensor, view: View, height: int, width: int) -> np.ndarray:
    """A map of the model's input (H, W) on the picture: float32 (height, width), NaN where the model never looked."""
    left, top, right, bottom = view.box
    x0, y0, x1, y1 = view.cells
    part = attribution[None, None, y0:y1, x0:x1].float()
    size = (bottom - top, right - left)
    if part.shape[-2:] != size:
        shrinks = size[0] < part.shape[-2] or size[1] < part.shape[-1]
        part = F.interpolate(part, size=size, mode="bilinear", align_corners=False, antialias=shrinks)
    if size == (height, width):
        return part[0, 0].numpy()
    canvas = np.full((height, width), np.nan, np.float32)
    canvas[top:bottom, left:right] = part[0, 0].numpy()
    return canvas


def overlay(
    picture: PIL.Image.Image, attribution: torch.Tensor, view: View | None, opacity: float = 0.6
) -> PIL.Image.Image:
    """The picture under its map: bright where it matters. The map is shown as given, its order stretched to [0, 1]."""
    if view is None:
        left, top, right, bottom = 0, 0, *picture.size
        part = attribution
    else:
        left, top, right, bottom = view.box
        x0, y0, x1, y1 = view.cells
        part = attribution[y0:y1, x0:x1]
    values = part.float().numpy()
    low, high = np.percentile(values, (1, 99))
    values = ((values - low) / (high - low)).clip(0, 1) if high > low else np.zeros_like(values)
    at = values * (len(COLORS) - 1)
    below = at.astype(int).clip(0, len(COLORS) - 2)
    share = (at - below)[..., None]
    colors = COLORS[below] * (1 - share) + COLORS[below + 1] * share
    colored = PIL.Image.fromarray(colors.round().astype(np.uint8))
    colored = colored.resize((right - left, bottom - top), PIL.Image.Resampling.BILINEAR)
    result = picture.copy()
    gray = picture.crop((left, top, right, bottom)).convert("L").convert("RGB")
    result.paste(PIL.Image.blend(gray, colored, opacity), (left, top))
    return result
