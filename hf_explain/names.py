"""Names a person types: how they may be spelled, what is said of unknown ones; and labels as names of files."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


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


def slug(text: str) -> str:
    """A label as a part of a file's name.

    >>> slug("tabby, tabby cat")
    'tabby_tabby_cat'
    """
    return re.sub(r"\W+", "_", text).strip("_")[:60] or "class"
