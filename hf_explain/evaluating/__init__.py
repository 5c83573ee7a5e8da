"""`hf-explain evaluate`: methods side by side on a data set, resumable, and what came out.

It imports everything on the floors below, not its neighbors `explaining` and `demo`. Start with survey.py (what is
measured), then report.py (what is said of it); sanity.py asks whether maps depend on the classifier at all.
"""

from .survey import Survey

__all__ = ["Survey"]
