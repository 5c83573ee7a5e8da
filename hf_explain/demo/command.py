"""`hf-explain demo`: everything once, on embedded pictures, with no network."""

from __future__ import annotations

import argparse

from ..data.small_classifiers import RECIPES
from ..jobs.flags import flags_of, given
from .run import Demo
from .run import run as run_demo

FLAGS = {"": flags_of(Demo)}
FLAGS[""]["--backbone"] |= {"metavar": "|".join(RECIPES), "help": "of the classifier (default: vit)"}


def run(arguments: argparse.Namespace) -> int:
    run_demo(Demo(**given(Demo, arguments)))
    return 0
