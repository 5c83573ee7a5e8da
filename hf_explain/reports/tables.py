"""The measured numbers as tables: GitHub Markdown and plain text; `report.py` makes HTML of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..modeling.errors import ExplainerError
from .findings import BETTER, MORE, YARDSTICKS, interval, label_of, provenance, references


@dataclass(frozen=True)
class Cell:
    """A number as it is printed, its interval ("" if unknown), and whether it is the best of its column."""

    text: str = "–"
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Column:
    """Its name, whether lower or higher is better, and whether it is a reference nothing was trained on."""

    name: str
    better: str
    unseen: bool = False


@dataclass(frozen=True)
class Table:
    """rows: label, whether it is a yardstick, and a cell per column."""

    title: str
    columns: list[Column]
    rows: list[tuple[str, bool, list[Cell]]]


def tables(results: Mapping) -> dict[str, Table]:
    """deletion and insertion (methods x references) and more (localization, classes and time), those that have rows."""
    unseen = [str(one) for one in results.get("unseen", [])]
    made = {}
    for curve, better in BETTER.items():
        columns = [Column(name, better, name in unseen) for name in references(results)]

        def of_reference(method, index, curve=curve, columns=columns):
            return method.get("references", {}).get(columns[index].name, {}).get(curve)

        made[curve] = make_table(results, f"{curve.capitalize()} ({better} is better)", columns, of_reference)
    keys = [key for key in MORE if any(key in one for one in results.get("methods", {}).values())]
    columns = [Column(MORE[key][0], MORE[key][1]) for key in keys]
    made["more"] = make_table(results, "Place, class and time", columns, lambda method, index: method.get(keys[index]))
    return {name: one for name, one in made.items() if one.rows and one.columns}


def make_table(results: Mapping, title: str, columns: list[Column], find) -> Table:
    methods = results.get("methods", {})
    names = [m for m in methods if m not in YARDSTICKS] + [m for m in methods if m in YARDSTICKS]
    values = {m: [interval(find(methods[m], index)) for index in range(len(columns))] for m in names}
    rows = []
    for name in names:
        row = []
        for index, column in enumerate(columns):
            digits = 1 if column.name == MORE["ms"][0] else 3
            mean, low, high = values[name][index]
            rivals = [round(values[m][index][0], digits) for m in names if m not in YARDSTICKS]
            rivals = [one for one in rivals if not math.isnan(one)]
            first = (min if column.better == "lower" else max)(rivals, default=math.nan)
            best = len(rivals) > 1 and name not in YARDSTICKS and round(mean, digits) == first
            ends = "" if math.isnan(low) or math.isnan(high) else f"{low:.{digits}f}–{high:.{digits}f}"
            row.append(Cell("–" if math.isnan(mean) else f"{mean:.{digits}f}", ends, best))
        rows.append((label_of(results, name), name in YARDSTICKS, row))
    return Table(title, columns, rows if any(c.text != "–" for _, _, row in rows for c in row) else [])


def table(results: Mapping, name: str | None = None, style: str = "markdown") -> str:
    """A table of the results, "deletion", "insertion" or "more", or all one after the other, with where it comes from.

    `style`: "markdown" as GitHub reads it, or "text" for a terminal. The best of a column is bold, or starred.
    """
    every = tables(results)
    if style not in ("markdown", "text") or (name is not None and name not in (*BETTER, "more")):
        raise ExplainerError(
            f"table {name!r} in style {style!r}; choose from deletion, insertion, more, or None for all of them, and "
            "from markdown, text."
        )
    chosen = [one for key, one in every.items() if name in (None, key)]
    write = as_markdown if style == "markdown" else as_text
    return "\n\n".join([write(one) for one in chosen] + [provenance(results) + "."])


def as_markdown(one: Table) -> str:
    def clean(text: str) -> str:
        return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())

    def cell(c: Cell) -> str:
        text = f"**{c.text}**" if c.best else c.text
        return f"{text} ({c.interval})" if c.interval else text

    heads = [clean(c.name) + (" (never trained on)" if c.unseen else "") for c in one.columns]
    lines = [[one.title, *heads], ["---"] + ["---:"] * len(heads)]
    lines += [[f"*{clean(label)}*" if gray else clean(label), *map(cell, row)] for label, gray, row in one.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_text(one: Table) -> str:
    heads = [[c.name, "never trained on" if c.unseen else ""] for c in one.columns]
    body = [[f"{c.text}{'*' if c.best else ' '} {c.interval}".rstrip() for c in row] for _, _, row in one.rows]
    # Numbers stand under one another: intervals are padded to the same length.
    lines = [["", *(h[0] for h in heads)]] + ([["", *(h[1] for h in heads)]] if any(h[1] for h in heads) else [])
    lines += [[label, *cells] for (label, _, _), cells in zip(one.rows, body)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads) + 1)]
    printed = ["  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in lines]
    starred = any(c.best for _, _, row in one.rows for c in row)
    return "\n".join([one.title + ("; * is the best" if starred else ""), *printed])
