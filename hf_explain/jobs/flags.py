"""Flags of a command line, from the fields of a dataclass whose docstring describes them."""

from __future__ import annotations

import argparse
import re


def flag(kind, default, help_: str) -> dict:
    """How argparse reads a field of a dataclass."""
    if kind is bool:
        return {
            "action": argparse.BooleanOptionalAction if default else "store_true",
            "default": default,
            "help": help_,
        }
    text = str(kind)
    several = "tuple" in text
    one = int if kind is int or kind == int | None else float if "float" in text else str
    shown = " ".join(map(str, default)) if several and default else default
    help_ = help_ if default is None else f"{help_} (default: {shown})"
    return {"type": one, "default": default, "help": help_.replace("%", "%%")} | ({"nargs": "+"} if several else {})


def documented(settings: type) -> dict[str, str]:
    """What the docstring of a class of settings says of each field."""
    text = (settings.__doc__ or "").split("Args:")[1]
    found = re.findall(r"^        (\w+): (.*?)(?=^        \w+: |\Z)", text, flags=re.M | re.S)
    return {name: " ".join(help_.split()).rstrip(".") for name, help_ in found}
