"""What a stranger may upload: pictures of bounded size, known by their content, checked before they are decoded."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import PurePath

import PIL.Image

from ..modeling.errors import ExplainerError
from ..modeling.pictures import to_rgb

# By the content, whatever the name says: each decoder that is not here is one less to attack.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP")
ENDINGS = (".png", ".jpg", ".jpeg", ".jfif", ".mpo", ".webp", ".gif", ".bmp", "")
NAMES = "PNG, JPEG, WebP, GIF or BMP"


@dataclass(frozen=True)
class Limits:
    """How large what is given may be.

    Args:
        upload_bytes: of a file.
        upload_pixels: that a file's header may claim.
        side: pictures with a longer side are scaled down to it.
        model_bytes: of the weights of a model that is named by a visitor.
        methods: that are compared at once.
    """

    upload_bytes: int = 20_000_000
    upload_pixels: int = 50_000_000
    side: int = 1024
    model_bytes: int = 2_000_000_000
    methods: int = 8


@dataclass(frozen=True)
class Picture:
    """An upright RGB picture; two are the same if their digest is, which is that of the file."""

    digest: str
    image: PIL.Image.Image = field(compare=False, repr=False)


def read_upload(path: str | os.PathLike, name: str | None = None, limits: Limits | None = None) -> Picture:
    """The picture in an uploaded file, no larger than `limits` allow.

    Args:
        path: of the file.
        name: that its owner gave it, for messages and for its ending.
    """
    limits, name = limits or Limits(), PurePath(name or path).name
    shown = repr(name if len(name) <= 60 else name[:40] + "..." + name[-10:])
    if PurePath(name).suffix.lower() not in ENDINGS:
        raise ExplainerError(f"{shown} is not named like a picture; give a {NAMES} file.")
    size = os.path.getsize(path)
    if size > limits.upload_bytes:
        raise ExplainerError(
            f"{shown} has {size / 1e6:.0f} MB; give a picture of at most {limits.upload_bytes / 1e6:.0f} MB."
        )
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        image = open_header(file, shown, limits)
        with image:
            upright = to_rgb(image, shown)
    upright.thumbnail((limits.side, limits.side), PIL.Image.Resampling.LANCZOS)
    return Picture(digest, upright)


def open_header(file, shown: str, limits: Limits) -> PIL.Image.Image:
    """The picture, not decoded yet, if its header claims what is allowed."""
    most = f"at most {limits.upload_pixels / 1e6:.0f} million pixels"
    try:
        image = PIL.Image.open(file, formats=FORMATS)
    except PIL.Image.DecompressionBombError as error:
        raise ExplainerError(f"{shown} claims to hold far too many pixels; give a picture of {most}.") from error
    except Exception as error:  # a damaged header can break a decoder anywhere
        raise ExplainerError(f"{shown} is not a picture that can be read; give a {NAMES} file.") from error
    if image.width * image.height > limits.upload_pixels:
        raise ExplainerError(f"{shown} claims {image.width} x {image.height} pixels; give a picture of {most}.")
    return image
