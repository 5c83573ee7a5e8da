"""What a visitor is told when something fails, and what is refused whoever asks."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable

import gradio as gr
from transformers.utils import logging

from ..modeling.errors import ExplainerError

logger = logging.get_logger(__name__)

PATHS = re.compile(r"(?<![\w.:/])(?:[A-Za-z]:)?(?:[/\\][^\s/\\'\",;:)]+){2,}[/\\]?")
TOAST = 20  # seconds


def tell(error: Exception) -> gr.Error:
    """One sentence: ours without paths, others without anything of theirs; those are logged."""
    text = "this failed on the server; the operator finds why in its log."
    if isinstance(error, ExplainerError):
        text = PATHS.sub("(a file of the server)", str(error))
    else:
        logger.error("an event failed", exc_info=error)
    return gr.Error(text, duration=TOAST, print_exception=False)


def answering(function: Callable) -> Callable:
    """The event with its errors as `tell` tells them."""

    @functools.wraps(function)
    def answer(*args):
        try:
            return function(*args)
        except Exception as error:
            raise tell(error) from None

    @functools.wraps(function)
    def stream(*args):
        try:
            yield from function(*args)
        except Exception as error:
            raise tell(error) from None

    return stream if inspect.isgeneratorfunction(function) else answer


def within(name: str, value, low: float, high: float) -> float:
    """The value, if it is a number the page could have sent; programs can send others."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ExplainerError(f"{name} {value!r:.40}; give a number from {low:g} to {high:g}.")
    return float(value)


async def fetch_nothing(*_, **__) -> str:
    """In place of gradio's download of what a visitor names by its address: of any size, from this machine."""
    raise gr.Error("an address was given; give the file itself.", print_exception=False)
