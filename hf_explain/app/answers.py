"""Answers to questions: each computed once, by whoever has the model to himself, and a bounded number kept.

An answer depends on nothing but the question, so visitors can share answers and never mix: nothing is kept per visitor.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from . import views
from .models import Models
from .uploads import Limits, Picture, read_upload

try:
    from spaces import GPU as gpu  # type: ignore[attr-defined]  # of a Space on ZeroGPU; without effect elsewhere
except ImportError:  # also raised for a folder of that name

    def gpu(function: Callable) -> Callable:
        return function


class Answers:
    """The functions of `views`, of models by name and pictures by file.

    Args:
        kept: how many answers, each with arrays of the picture's size, stay in memory.
    """

    def __init__(self, models: Models, limits: Limits | None = None, kept: int = 32):
        self.models, self.limits = models, limits or models.limits
        self.compute = gpu(self.compute_here)
        self.answer = lru_cache(kept)(self.compute_any)
        self.open = lru_cache(kept)(self.read)

    def compute_here(self, view: Callable, name: str, *question) -> Any:
        with self.models.use(name) as model:
            return view(model, *question)

    def compute_any(self, view: Callable, name: str, *question) -> Any:
        return self.compute(view, name, *question)

    def read(self, path: str, name: str | None) -> Picture:
        return read_upload(path, name, self.limits)

    def predict(self, name: str, picture: Picture) -> views.Seen:
        return self.answer(views.predict, name, picture)

    def attribute(self, name: str, picture: Picture, target, method: str, refine_steps: int = 0) -> views.Map:
        return self.answer(views.attribute, name, picture, target, method, refine_steps)

    def walk(self, name: str, one: views.Map, reference: str) -> views.Walk:
        return self.answer(views.walk, name, one, reference)

    def region(self, name: str, one: views.Map, reference: str) -> float:
        return self.answer(views.region, name, one, reference)

    def move(self, name: str, picture: Picture, target, steps: int, length: float) -> views.Moved:
        return self.answer(views.move, name, picture, target, steps, length)
