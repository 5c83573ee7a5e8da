"""`hf-explain demo`: everything once, on embedded pictures and with no network."""

from __future__ import annotations

import argparse

from ..data.small_classifiers import RECIPES
from ..jobs.flags import add_flags, read_flags
from .run import Demo
from .run import run as run_demo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_flags(parser, Demo, backbone={"metavar": "|".join(RECIPES), "help": "of the classifier (default: vit)"})


def run(arguments: argparse.Namespace) -> int:
    run_demo(read_flags(Demo, arguments))
    return 0
