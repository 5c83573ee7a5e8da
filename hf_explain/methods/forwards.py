"""How many forwards a method has made of all it will make: a bar, or lines, where that takes long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ..jobs.progress import Later


class Calls:
    """Calls of a method that are awaited together: how many there are, their bar, and whether one is under way."""

    def __init__(self, count: float):
        self.count, self.busy = count, False
        self.bar: Later | None = None


AROUND: ContextVar[Calls | None] = ContextVar("around", default=None)


@contextmanager
def together(count: float) -> Iterator[Calls]:
    """One bar for `count` calls of a method inside, the first of which says how many forwards it makes.

    >>> with together(2):
    ...     for _ in range(2):
    ...         with forwards("adding", 3) as done:
    ...             done(3)
    """
    around = AROUND.get()
    if around is not None:
        yield around
        return
    calls = Calls(count)
    token = AROUND.set(calls)
    try:
        yield calls
    finally:
        AROUND.reset(token)
        if calls.bar is not None:
            calls.bar.close()


@contextmanager
def forwards(method: str, total: int) -> Iterator[Callable[[int], None]]:
    """`done(pictures)`, to be called after each forward of a method that shows the classifier `total` pictures.

    Silent where all takes less than ten seconds, and inside another method, which counts for both.
    """
    with together(1) as calls:
        inside = calls.busy
        if calls.bar is None:
            calls.bar = Later(round(calls.count * total), f"forwards of {method}")
        calls.busy = True
        try:
            yield (lambda pictures: None) if inside else calls.bar.update
        finally:
            calls.busy = inside


def scores_of(classifier, done: Callable[[int], None]) -> Callable:
    """What the library that makes the pictures calls: their probabilities, counted."""

    def scores(pixel_values):
        found = classifier.scores(classifier(pixel_values))
        done(len(pixel_values))
        return found

    return scores
