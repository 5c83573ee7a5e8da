"""`hf-explain counting`: the faithfulness task of Vision DiffMask."""

from __future__ import annotations

import argparse

from ..jobs.flags import flags_of, given
from .counting import Counting
from .counting import run as run_counting

FLAGS = {"": flags_of(Counting)}


def run(arguments: argparse.Namespace) -> int:
    run_counting(Counting(**given(Counting, arguments)))
    return 0
