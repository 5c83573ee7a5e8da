"""Flags of a command line: one for each field of a dataclass, with the field's type, default and help."""

from __future__ import annotations

import argparse
from dataclasses import field, fields
from typing import Any, get_type_hints

from ..modeling.errors import whole_number


def flag(default, help_: str, **options) -> Any:
    """A field of a dataclass that is a flag too; `options` of argparse are what its type does not say."""
    return field(default=default, metadata={"help": help_, **options})


def add_flags(parser: argparse._ActionsContainer, settings: type, **changes: dict) -> None:
    """Adds a flag for every field of `settings`; `changes` are options that single ones have in this command."""
    types = get_type_hints(settings)
    for one in fields(settings):
        options = {"default": one.default, **one.metadata, **changes.get(one.name, {})}
        parser.add_argument(f"--{one.name}", **of_type(str(types[one.name])), **with_default(options))


def of_type(kind: str) -> dict[str, Any]:
    """How argparse reads a field of this type: a word as the most general kind that is named, several for a tuple."""
    if "bool" in kind:
        return {"action": "store_true"}
    word = next(known for known in (str, float, int) if known.__name__ in kind)
    return {"type": word, **({"nargs": "+"} if "tuple" in kind else {})}


def with_default(options: dict[str, Any]) -> dict[str, Any]:
    """The same options, with the default in the help if there is one to name."""
    default, help_ = options["default"], options["help"]
    if not (default is None or default is False or default == ()):
        shown = (
            " ".join(default) if isinstance(default, tuple) else f"{default:{'g' if type(default) is float else ''}}"
        )
        help_ = f"{help_} (default: {shown})"
    return {**options, "help": help_.replace("%", "%%")}


def given(settings: type, arguments: argparse.Namespace) -> dict[str, Any]:
    """The values of the fields of `settings`."""
    values = {one.name: getattr(arguments, one.name) for one in fields(settings)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def check_counts(arguments: argparse.Namespace, *names: str) -> None:
    for name in names:
        whole_number(f"--{name}", getattr(arguments, name), 1)
