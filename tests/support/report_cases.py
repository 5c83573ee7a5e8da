"""Made-up results of a demo, and its page as a browser reads it."""

import math
from html.parser import HTMLParser

from hf_explain.reports.page import write_report

REFERENCES = ["black", "mean", "blur", "noise"]
CURVES = ["deletion", "insertion"]


def around(mean, half=0.012):
    return {"mean": mean, "low": mean - half, "high": mean + half}


def made_up_curves(deletion, insertion, points=21):
    at = [i / (points - 1) for i in range(points)]
    falling = [0.97 * math.exp(-x / deletion) for x in at]
    rising = [0.12 + 0.85 * (1 - math.exp(-x / (1.04 - insertion))) for x in at]
    curves = {}
    for name, values in (("deletion", falling), ("insertion", rising)):
        curves |= {name: values, f"{name}_low": [v - 0.03 for v in values], f"{name}_high": [v + 0.03 for v in values]}
    return curves


def made_up_method(label, ms, deletion, insertion, place):
    shift = dict(zip(REFERENCES, (0.0, 0.004, -0.011, 0.031)))
    measured = {
        name: {
            "deletion": around(deletion + more),
            "insertion": around(insertion - more / 2),
            "curves": made_up_curves(deletion + more, insertion),
        }
        for name, more in shift.items()
    }
    more = {"pointing_game": around(place), "average_precision": around(place - 0.1, 0.02)}
    return {"label": label, "ms": ms, "references": measured, "class_discrimination": around(place - 0.05)} | more


def compared(method, against, mean, half=0.01, **where):
    """Comparisons under every reference and on both curves, or where it is said."""
    return [
        {"method": method, "against": against, "reference": r, "curve": c, "difference": around(mean, half)}
        for r in where.get("references", REFERENCES)
        for c in where.get("curves", CURVES)
    ]


class Page(HTMLParser):
    """Tags that are opened and closed in order, what they refer to, and the text."""

    EMPTY = {"meta", "link", "img", "br"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.addresses, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open
        self.text = " ".join(self.text.split())  # as a browser shows it

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.addresses += [v for k, v in attributes if k in ("src", "href", "srcset", "data", "action", "poster")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def page_of(tmp_path, results, pictures=None):
    html = write_report(tmp_path / "new" / "report.html", results, pictures).read_text(encoding="utf-8")
    return html, Page(html)
