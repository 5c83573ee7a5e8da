"""Flags of a command line, from the fields of a dataclass whose docstring describes them."""

from __future__ import annotations

import argparse
import re
from dataclasses import fields
from typing import Any, get_type_hints


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


def add_flags(parser: argparse.ArgumentParser, settings: type, **changes: dict) -> None:
    """A flag for each field of a class of settings; `changes`: field -> what argparse is told of it besides."""
    helps, types = documented(settings), get_type_hints(settings)
    for field in fields(settings):
        options = flag(types[field.name], field.default, helps[field.name])
        parser.add_argument(f"--{field.name}", **options | changes.get(field.name, {}))


def read_flags(settings: type, arguments: argparse.Namespace) -> Any:
    """The settings that were given with `add_flags`."""
    values = {field.name: getattr(arguments, field.name) for field in fields(settings)}
    return settings(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
