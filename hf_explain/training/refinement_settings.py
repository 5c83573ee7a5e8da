"""The settings of refinement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from ..modeling.errors import ExplainerError, whole_number
from ..modeling.references import read_reference


@dataclass(frozen=True)
class Refinement:
    """How `refine` moves a map.

    >>> Refinement(steps=4, references=("black", "blur")).budgets
    6

    Args:
        steps: of Adam; 0 leaves the map alone.
        learning_rate: about how far one step moves a cell of a grid, in standard deviations of the start.
        insertion: how many times insertion counts beside deletion, of which there is more to win.
        references: what removed pixels become, in turn.
        judges: references the map is compared with the best so far by; not those of a step, nor those one reports.
        budgets: points of the curve per step, drawn one in each of as many equal strata.
        tau: temperature of the soft masks, in the same unit.
        scales: cells on the shorter side of each grid of the residual; None is single pixels.
        compare: every how many steps the map is compared with the best so far; the last always is.
    """

    steps: int = 8
    learning_rate: float = 0.05
    insertion: float = 10.0
    references: tuple[str | float, ...] = ("black", "blur", 1.0)
    judges: tuple[str | float, ...] = (0.5,)
    budgets: int = 6
    tau: float = 0.1
    scales: tuple[int | None, ...] = (16, None)
    compare: int = 4

    def __post_init__(self):
        for name, least in (("steps", 0), ("budgets", 1), ("compare", 1)):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least))
        for name in ("learning_rate", "insertion", "tau"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise ExplainerError(f"{name}={value!r:.60}; give a number above 0.")
        readers = {"references": read_reference, "judges": read_reference, "scales": read_scale}
        for name, read in readers.items():  # a list is as good as a tuple
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Sequence) or not value:
                raise ExplainerError(f"{name}={value!r:.60}; give a tuple of at least one.")
            object.__setattr__(self, name, tuple(map(read, value)))


def read_scale(value) -> int | None:
    return None if value is None else whole_number("a scale", value, 1)


def read_settings(values: dict) -> Refinement:
    known = [field.name for field in fields(Refinement)]
    if unknown := sorted(set(values) - set(known)):
        raise ExplainerError(f"unknown argument {', '.join(unknown)}; a refinement has {', '.join(known)}.")
    return Refinement(**values)
