"""`hf-explain counting`: the faithfulness task of Vision DiffMask."""

from __future__ import annotations

import argparse

from ..jobs.flags import add_flags, read_flags
from .counting import Counting
from .counting import run as run_counting


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_flags(parser, Counting)


def run(arguments: argparse.Namespace) -> int:
    run_counting(read_flags(Counting, arguments))
    return 0
