"""captum is not needed to import hf_explain, only by the methods that are its own."""

from __future__ import annotations

import importlib

from ..modeling.errors import ExplainerError


def find_captum(name: str):
    """The class `name` of `captum.attr`."""
    try:
        return getattr(importlib.import_module("captum.attr"), name)
    except ImportError as error:
        raise ExplainerError(f"{name} needs captum, which is not installed; pip install captum.") from error
