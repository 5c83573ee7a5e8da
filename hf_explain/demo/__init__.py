"""`hf-explain demo` and `hf-explain counting`: everything once, on drawn pictures, with no network.

It imports everything on the floors below, not its neighbors `explaining` and `evaluating`. Start with run.py (a
classifier, its explainer, their report), then comparison.py (which methods are measured, and how).
"""

from .settings import Demo

__all__ = ["Demo"]
