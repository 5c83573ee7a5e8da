"""How far a long task is: a bar on a terminal; in a notebook or a log file, a line now and then."""

from __future__ import annotations

import sys

from tqdm import tqdm
from transformers.utils import logging

EVERY = 30.0  # seconds from one line to the next; a task that takes less says nothing
LINE = "{desc}: {n_fmt} of {total_fmt}, {elapsed} gone, {remaining} left{postfix}"
ENDLESS = "{desc}: {n_fmt}{unit}, {elapsed} gone{postfix}"  # where nobody knows how many there are


asked_for_lines = False


def only_lines() -> None:
    """Where there is no terminal: none of the bars of transformers, which fill a log file, but lines of ours."""
    global asked_for_lines
    asked_for_lines = True
    logging.disable_progress_bar()


def progress(items=None, *, shown: bool = True, **settings):
    """`items` with a bar; or, with total= in place of items, a bar to update by hand.

    Silent where the bars of transformers are.

    >>> sum(progress([1, 2, 3], desc="adding"))
    6

    Args:
        shown: False in all processes but the first.
        settings: of tqdm.
    """
    shown = shown and (logging.is_progress_bar_enabled() or asked_for_lines)
    if not shown or sys.stderr.isatty():
        return logging.tqdm(items, disable=not shown, **settings)
    total = settings.get("total", len(items) if hasattr(items, "__len__") else None)
    form = ENDLESS if total is None else LINE
    return tqdm(items, file=Lines(), mininterval=EVERY, delay=EVERY, miniters=1, bar_format=form, **settings)


class Lines:
    """Where a bar would draw over itself, a line each."""

    def write(self, text: str) -> None:
        if line := text.replace("\r", "").strip():
            print(line, file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()
