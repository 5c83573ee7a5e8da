"""Names that can be no Hub id, such as "photos:efficientnet-lite0": what stands before the colon says who loads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from transformers import PreTrainedConfig, PreTrainedModel

from .errors import ExplainerError


class Scheme(NamedTuple):
    """How what a name of the scheme stands for is loaded; `model` also takes transformers' loading arguments."""

    config: Callable[[str], PreTrainedConfig]
    image_processor: Callable
    model: Callable[..., PreTrainedModel]


# This file travels with checkpoints and may import nothing of hf_explain, so importing hf_explain fills it in.
SCHEMES: dict[str, Scheme | None] = {"photos": None}


def scheme_of(name) -> str | None:
    """What stands before the colon of a name of this kind, whether it is known or not; None of others.

    >>> scheme_of("photos:efficientnet-lite0"), scheme_of("google/vit-base-patch16-224"), scheme_of("C:/photos")
    ('photos', None, None)
    """
    scheme, colon, _ = str(name).partition(":")
    return scheme if colon and scheme in SCHEMES else None


def find_scheme(name) -> Scheme | None:
    """What loads `name`; None of a Hub id, a folder, or a model."""
    scheme = scheme_of(name)
    if scheme is None:
        return None
    found = SCHEMES[scheme]
    if found is None:
        raise ExplainerError(
            f'{name} is a classifier that only hf-explain can load; pip install "hf-explain[{scheme}]", and import '
            "hf_explain before it is loaded."
        )
    return found
