"""Answers to questions, each computed once, by whoever has the model to himself; a bounded number is kept.

An answer depends on nothing but the question, so visitors can share answers and never mix: nothing is kept per visitor.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from .models import Models
from .uploads import read_upload

try:
    from spaces import GPU as gpu  # type: ignore[attr-defined]  # of a Space on ZeroGPU; without effect elsewhere
except ImportError:  # also raised for a folder of that name

    def gpu(function: Callable) -> Callable:
        return function


KEPT = 32  # answers, each with arrays of the picture's size, and as many pictures


class Answers:
    """`ask(view, name, *question)` is what a function of `views` says of the model of that name, `open` the picture."""

    def __init__(self, models: Models):
        self.models = models
        self.ask = lru_cache(KEPT)(gpu(self.compute))
        self.open = lru_cache(KEPT)(partial(read_upload, limits=models.limits))

    def compute(self, view: Callable, name: str, *question) -> Any:
        with self.models.use(name) as model:
            return view(model, *question)
