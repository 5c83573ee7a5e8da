"""Flags of a command line: tables of what argparse is told, written out or read off a dataclass of settings."""

from __future__ import annotations

import argparse
from dataclasses import field, fields
from typing import Any, get_type_hints

from ..modeling.errors import whole_number


def flag(help_: str, default=None, **options) -> dict[str, Any]:
    """What argparse is told of a flag: its type is that of its default, and the help ends with this.

    >>> flag("pictures per forward", 8)
    {'type': <class 'int'>, 'default': 8, 'help': 'pictures per forward (default: 8)'}
    """
    if default is False:
        kind: dict[str, Any] = {"action": "store_true"}
    elif isinstance(default, tuple):
        kind = {"nargs": "+"}
    else:
        kind = {"type": str if default is None else type(default)}
    shown = " ".join(default) if isinstance(default, tuple) else default
    if shown or type(shown) is int:
        help_ = f"{help_} (default: {shown:g})" if isinstance(shown, float) else f"{help_} (default: {shown})"
    return {**kind, "default": default, "help": help_.replace("%", "%%"), **options}


def setting(default, help_: str) -> Any:
    """A field of a dataclass of settings, which knows what `--help` says of it."""
    return field(default=default, metadata={"help": help_})


def flags_of(settings: type) -> dict[str, dict]:
    """A flag for every field of a dataclass of settings, where None does not say the type."""
    types, found = get_type_hints(settings), {}
    for one in fields(settings):
        kind = str(types[one.name])
        options: dict[str, Any] = {"nargs": "+"} if "tuple" in kind else {}
        if one.default is not False:
            options["type"] = next(word for word in (str, float, int) if word.__name__ in kind)
        found[f"--{one.name}"] = flag(one.metadata["help"], one.default, **options)
    return found


def add_flags(parser: argparse.ArgumentParser, groups: dict[str, dict[str, dict]]) -> None:
    """Adds the flags of every group under its title, those of the group "" under none."""
    for title, flags in groups.items():
        group = parser.add_argument_group(title) if title else parser
        for name, options in flags.items():
            group.add_argument(name, **options)


def given(settings: type, arguments: argparse.Namespace) -> dict[str, Any]:
    """The values of the fields of `settings`."""
    values = {one.name: getattr(arguments, one.name) for one in fields(settings)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def check_counts(arguments: argparse.Namespace, *names: str) -> None:
    for name in names:
        whole_number(f"--{name}", getattr(arguments, name), 1)
