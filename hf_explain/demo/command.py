"""`hf-explain demo`: everything once, on embedded pictures and with no network."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any, get_type_hints

from ..data.small_classifiers import RECIPES
from ..jobs.flags import documented, flag
from .run import Demo
from .run import run as run_demo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    helps, types = documented(Demo), get_type_hints(Demo)
    for field in fields(Demo):
        options = flag(types[field.name], field.default, helps[field.name])
        if field.name == "backbone":
            options |= {"metavar": "|".join(RECIPES), "help": "of the classifier (default: vit)"}
        parser.add_argument(f"--{field.name}", **options)


def run(arguments: argparse.Namespace) -> int:
    values: dict[str, Any] = {field.name: getattr(arguments, field.name) for field in fields(Demo)}
    settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    run_demo(Demo(**settings))
    return 0
