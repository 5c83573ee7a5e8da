"""From whatever a person calls a picture to an upright RGB picture."""

from __future__ import annotations

import base64
import binascii
import http.client
import io
import os
import urllib.request
from collections.abc import Mapping

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch

from .errors import ExplainerError

KINDS = "a PIL image, a path, a URL, a (H, W), (H, W, 3) or (3, H, W) array, or raw bytes"


def open_picture(source) -> PIL.Image.Image:
    """An upright RGB picture of a PIL image, path, URL, base64 string, bytes, array, tensor or `datasets` cell."""
    if isinstance(source, Mapping) and (source.get("bytes") or source.get("path")):  # datasets.Image(decode=False)
        source = source.get("bytes") or source["path"]
    if isinstance(source, PIL.Image.Image):
        return to_rgb(source, "the given PIL image")
    if isinstance(source, (np.ndarray, torch.Tensor)):
        return from_array(source)
    if isinstance(source, (str, os.PathLike)):
        return from_name(os.fspath(source))
    if callable(getattr(source, "read", None)):  # an open file
        return read(source, f"the open {type(source).__name__}")
    if isinstance(source, (bytes, bytearray)):
        return read(io.BytesIO(source), f"a byte string of length {len(source)}")
    raise ExplainerError(f"a {type(source).__name__} is no picture; give {KINDS}.")


# ---- names and files ----


def from_name(name: str) -> PIL.Image.Image:
    short = repr(name if len(name) <= 120 else name[:100] + "...")
    if name.lower().startswith(("http://", "https://")):
        return read(io.BytesIO(download(name, short)), short)
    if os.path.isdir(name):
        raise ExplainerError(f"{short} is a folder; give a picture in it, or a list of them.")
    if os.path.exists(name):
        return read(name, short)
    inline = name.lower().startswith("data:image/")
    try:
        data = base64.b64decode("".join(name.partition(",")[2].split() if inline else name.split()), validate=True)
        return read(io.BytesIO(data), short)
    except (binascii.Error, ValueError, ExplainerError) as error:
        if isinstance(error, ExplainerError) and (inline or len(name) > 255):
            raise
        # Many a mistyped name is valid base64, but of nothing.
        raise ExplainerError(f"there is no file {short}; give {KINDS}.") from None


def download(address: str, short: str) -> bytes:
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "hf-explain"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ExplainerError(f"{short} could not be fetched ({one_line(error)}); check the address.") from error


def read(file, name: str) -> PIL.Image.Image:
    try:
        image = PIL.Image.open(file)
    except PIL.Image.DecompressionBombError as error:
        raise too_large(name) from error
    except Exception as error:  # a damaged file can break a decoder anywhere
        raise unreadable(name, error) from error
    with image:
        return to_rgb(image, name)


def to_rgb(image: PIL.Image.Image, name: str) -> PIL.Image.Image:
    if 0 in image.size:
        raise ExplainerError(f"{name} is {image.width} x {image.height} pixels; give one that has some.")
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    try:
        image = PIL.ImageOps.exif_transpose(image)
        if sixteen or image.mode in ("I", "F"):  # PIL would cut everything above 255 off
            return to_gray(np.asarray(image), sixteen, name).convert("RGB")
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        return image if image.mode == "RGB" else image.convert("RGB")  # the first is a copy already
    except ExplainerError:
        raise
    except PIL.Image.DecompressionBombError as error:
        raise too_large(name) from error
    except Exception as error:
        raise unreadable(name, error) from error


def to_gray(values: np.ndarray, sixteen: bool, name: str) -> PIL.Image.Image:
    """Numbers with no range stated: 65535 is white if one is above 255, else 255; 1 if floating point stays below."""
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= 65535:  # also NaN
        raise ExplainerError(
            f"{name} holds numbers from {low:g} to {high:g}, but gray goes from 0 to 255 or 65535; scale it first."
        )
    top = 65535 if sixteen or high > 255 else 1 if values.dtype.kind == "f" and high <= 1 else 255
    return PIL.Image.fromarray((values.astype(np.float32) * (255 / top)).round().astype(np.uint8))


def unreadable(name: str, error: Exception) -> ExplainerError:
    reason = "no known format" if isinstance(error, PIL.UnidentifiedImageError) else one_line(error)
    return ExplainerError(f"{name} cannot be read as a picture ({reason}); check that it is one and complete.")


def too_large(name: str) -> ExplainerError:
    limit = 2 * (PIL.Image.MAX_IMAGE_PIXELS or 0)
    return ExplainerError(
        f"{name} claims more than {limit:,} pixels, which may be an attack; make it smaller, or raise "
        "PIL.Image.MAX_IMAGE_PIXELS if you trust it."
    )


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120].rstrip(".") or type(error).__name__


# ---- arrays ----


def from_array(values) -> PIL.Image.Image:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        array = (values.float() if values.is_floating_point() else values).numpy()  # NumPy has no bfloat16
    else:
        array = values
    shape = tuple(array.shape)
    if array.ndim == 4:
        raise ExplainerError(f"an array of shape {shape} is a batch; give a list of pictures: list(array).")
    if array.ndim == 3 and shape[-1] not in (1, 3, 4) and shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or array.size == 0 or (array.ndim == 3 and array.shape[-1] not in (3, 4)):
        raise ExplainerError(f"an array of shape {shape} is no picture; give (H, W), (H, W, 3) or (3, H, W).")
    if array.dtype.kind not in "buif":
        raise ExplainerError(f"an array of type {array.dtype} is no picture; give uint8, or floating point in [0, 1].")
    return PIL.Image.fromarray(np.ascontiguousarray(eight_bits(array))).convert("RGB")


def eight_bits(array: np.ndarray) -> np.ndarray:
    """uint8 of bool, uint16 (its whole range), other integers in [0, 255] or floating point in [0, 1]."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint16:
        return (array / 257).round().astype(np.uint8)
    low, high, floating = float(array.min()), float(array.max()), array.dtype.kind == "f"
    top, slack = (1, 1e-3) if floating else (255, 0)  # rounding may leave a little more than 1
    if not -slack <= low <= high <= top + slack:  # also NaN
        raise ExplainerError(
            f"an array of {array.dtype} with values from {low:g} to {high:g} is no picture; scale it to [0, {top}]."
        )
    return (array.astype(np.float32).clip(0, top) * (255 / top)).round().astype(np.uint8)
