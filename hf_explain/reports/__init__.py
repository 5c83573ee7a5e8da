"""results in; figures, tables, pages out.

Nothing here measures: it imports `modeling` (colors, errors) and is given plain values. Start with page.py (the
report of `hf-explain demo`); curves.py and sheet.py draw, tables.py writes the same table for terminal, card and page.
"""

from .findings import headline
from .page import write_report

__all__ = ["headline", "write_report"]
