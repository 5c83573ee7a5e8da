"""`hf-explain counting`: the faithfulness task of Vision DiffMask."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import get_type_hints

from ..jobs.flags import documented, flag
from .counting import Counting
from .counting import run as run_counting


def add_arguments(parser: argparse.ArgumentParser) -> None:
    helps, types = documented(Counting), get_type_hints(Counting)
    for field in fields(Counting):
        parser.add_argument(f"--{field.name}", **flag(types[field.name], field.default, helps[field.name]))


def run(arguments: argparse.Namespace) -> int:
    run_counting(Counting(**{field.name: getattr(arguments, field.name) for field in fields(Counting)}))
    return 0
