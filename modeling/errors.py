"""How wrong input is refused: the one error, the nearest name, the least number."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable


def whole_number(name: str, value, least: int) -> int:
    """An option's value, or `least` if it was not given."""
    if value is None:
        return least
    try:
        number = operator.index(value)
        if isinstance(value, bool) or number < least:
            raise TypeError
    except TypeError:
        raise ExplainerError(f"{name}={value!r:.60}; give an integer of at least {least}.") from None
    return number


class ExplainerError(Exception):
    """What came, what was expected, what to do. Not a ValueError: transformers swallows those while loading.

    >>> from hf_explain.modeling.references import read_reference
    >>> read_reference("grey")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    hf_explain.modeling.errors.ExplainerError: unknown reference 'grey'; choose from ...
    """


def spelled_as(name: str) -> str:
    """A method's name as `METHODS` has it: "Grad-CAM" is "grad_cam".

    >>> spelled_as("Grad-CAM")
    'grad_cam'
    """
    return str(name).strip().replace("-", "_").lower()


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant.

    >>> nearest("--hepl", ["--help", "--version"])
    '--help'
    """
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The beginning of a refusal: the name, the nearest of the known ones if one is near, and all of them.

    >>> unknown_name("method", "gradcam", ["gradient", "grad_cam"])
    "unknown method 'gradcam'; did you mean 'grad_cam'? choose from gradient, grad_cam"
    """
    known = list(known)
    near = nearest(spelled_as(name), known)
    ask = f"; did you mean {near!r}?" if near else ";"
    return f"unknown {kind} {name!r:.60}{ask} choose from {', '.join(known)}"
