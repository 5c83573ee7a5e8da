"""What a visitor is told when something fails or is refused."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape

import gradio as gr
from transformers.utils import logging

from ..modeling.errors import ExplainerError

logger = logging.get_logger(__name__)

PATHS = re.compile(r"(?<![\w.:/])(?:[A-Za-z]:)?(?:[/\\][^\s/\\'\",;:)]+){2,}[/\\]?")
TOAST = 20  # seconds


@contextmanager
def telling() -> Iterator[None]:
    """Errors as one sentence: ours without paths, others without anything of theirs; those are logged."""
    try:
        yield
    except Exception as error:
        text = "this failed on the server; the operator finds why in its log."
        if isinstance(error, ExplainerError):
            text = PATHS.sub("(a file of the server)", str(error))
        else:
            logger.error("an event failed", exc_info=error)
        # gradio takes it for HTML, and it may hold what a stranger called a class, a model or a file.
        raise gr.Error(escape(text, quote=False), duration=TOAST, print_exception=False) from None


def answering(function: Callable) -> Callable:
    """The event, with its errors as `telling` tells them."""

    @functools.wraps(function)
    def answer(*args):
        with telling():
            return function(*args)

    @functools.wraps(function)
    def stream(*args):
        with telling():
            yield from function(*args)

    return stream if inspect.isgeneratorfunction(function) else answer


def within(name: str, value, low: float, high: float) -> float:
    """The value, if it is a number the page could have sent; programs can send others."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ExplainerError(f"{name} {value!r:.40}; give a number from {low:g} to {high:g}.")
    return float(value)


async def fetch_nothing(*_, **__) -> str:
    """In place of gradio's download of what a visitor names by its address: of any size, from this machine."""
    raise gr.Error("an address was given; give the file itself.", print_exception=False)
