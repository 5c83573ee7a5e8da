"""How far a long task is: a bar on a terminal; in a notebook or a log file, a line now and then."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm
from transformers.utils import logging

EVERY = 30.0  # seconds from one line to the next; a task that takes less says nothing
LONG, LOOK = 10.0, 1.0  # seconds of a task that says nothing, and from which on it is known how long it takes
LINE = "{desc}: {n_fmt} of {total_fmt}, {elapsed} gone, {remaining} left{postfix}"
ENDLESS = "{desc}: {n_fmt}{unit}, {elapsed} gone{postfix}"  # where nobody knows how many there are


asked_for_lines = False


def only_lines() -> None:
    """Where there is no terminal: none of the bars of transformers, which fill a log file, but lines of ours."""
    global asked_for_lines
    asked_for_lines = True
    logging.disable_progress_bar()


def silent() -> None:
    """Nothing at all: in all processes but the first."""
    global asked_for_lines
    asked_for_lines = False
    logging.disable_progress_bar()


def is_wanted() -> bool:
    return logging.is_progress_bar_enabled() or asked_for_lines


def progress(items=None, *, shown: bool = True, delay: float | None = None, **settings):
    """`items` with a bar; or, with total= in place of items, a bar to update by hand.

    Silent where the bars of transformers are.

    >>> sum(progress([1, 2, 3], desc="adding"))
    6

    Args:
        shown: False in all processes but the first.
        delay: seconds before the first line, where there is no terminal; `EVERY` by default.
        settings: of tqdm.
    """
    shown = shown and is_wanted()
    if not shown or sys.stderr.isatty():
        return logging.tqdm(items, disable=not shown, **settings)
    total = settings.get("total", len(items) if hasattr(items, "__len__") else None)
    form = ENDLESS if total is None else LINE
    delay = EVERY if delay is None else delay
    return tqdm(items, file=Lines(), mininterval=EVERY, delay=delay, miniters=1, bar_format=form, **settings)


class Later:
    """A bar to update by hand that is not there before all is known to take longer than `LONG` seconds.

    >>> waited = Later(total=3, desc="adding")
    >>> for _ in range(3):
    ...     waited.update(1)
    >>> waited.bar is None
    True
    """

    def __init__(self, total: int, desc: str):
        self.total, self.desc, self.done = total, desc, 0
        self.bar: tqdm | None = None
        self.began = time.perf_counter()
        self.first: tuple[float, int] | None = None  # when the first part was done, which may be slower; and how much

    def update(self, count: int = 1) -> None:
        self.done += count
        if self.bar is not None:
            self.bar.update(count)
            return
        now = time.perf_counter()
        gone = now - self.began
        if gone > LONG or (gone > LOOK and self.first and gone + self.left(now) > LONG):
            self.show(gone)
        self.first = self.first or (now, self.done)

    def left(self, now: float) -> float:
        """Seconds, if the rest is as fast as what came after the first part."""
        assert self.first
        then, done = self.first
        return (now - then) / (self.done - done) * (self.total - self.done)

    def show(self, gone: float) -> None:
        if not is_wanted() or self.done >= self.total:
            return
        self.bar = progress(total=self.total, desc=self.desc, leave=False, delay=1e-9)
        self.bar.start_t -= gone
        self.bar.n = self.bar.last_print_n = self.done
        self.bar.refresh()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


class Lines:
    """Where a bar would draw over itself, a line each."""

    def write(self, text: str) -> None:
        if line := text.replace("\r", "").strip():
            print(line, file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()
