"""What the app computed, in words."""

from __future__ import annotations

from .models import LEARNED
from .views import Map


def percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.1 or share > 0.995 else f"{100 * share:.0f} %"


def duration(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def gone(reference: str) -> str:
    return {"blur": "blurred", "mean": "a mean color"}.get(reference, reference)


def describe(one: Map) -> str:
    refined = f" and {one.refine_steps} steps of refinement" if one.refine_steps else ""
    method = "the learned explainer" if one.method == LEARNED else one.method.replace("_", " ")
    return f"{method}{refined}, in {duration(one.seconds)}"
