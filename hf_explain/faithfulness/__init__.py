"""`measure` and its `PRESETS`: what a classifier says while pixels are removed, and other metrics.

It imports `modeling` only: a map is a tensor, wherever it comes from. Start with measurement.py, then protocols.py
(what the published protocols say) and curves.py (how a curve is made); a metric that is no curve has a file of its own.
"""

from .measurement import measure
from .protocols import PRESETS, Curve, Protocol, read_protocol
from .report import Report, better_by

__all__ = ["PRESETS", "Curve", "Protocol", "Report", "better_by", "measure", "read_protocol"]
