"""The measured numbers as tables: GitHub Markdown and plain text; `page.html` makes HTML of them."""

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
    """Its name, whether lower or higher is better, its digits, and whether it is a reference nothing was trained on."""

    name: str
    better: str
    unseen: bool = False
    digits: int = 3


@dataclass(frozen=True)
class Table:
    """rows: label, whether it is a yardstick, and a cell per column."""

    title: str
    columns: list[Column]
    rows: list[tuple[str, bool, list[Cell]]]


def tables(results: Mapping) -> dict[str, Table]:
    """deletion and insertion (methods x references) and more (localization, classes and time), those that have rows."""
    methods = results.get("methods", {})
    unseen = [str(one) for one in results.get("unseen", [])]
    made = {}
    for curve, better in BETTER.items():
        columns = [
            (
                Column(name, better, name in unseen),
                {m: one.get("references", {}).get(name, {}).get(curve) for m, one in methods.items()},
            )
            for name in references(results)
        ]
        made[curve] = make_table(results, f"{curve.capitalize()} ({better} is better)", columns)
    columns = [
        (Column(name, better, digits=1 if key == "ms" else 3), {m: one.get(key) for m, one in methods.items()})
        for key, (name, better, _) in MORE.items()
        if any(key in one for one in methods.values())
    ]
    made["more"] = make_table(results, "Place, class and time", columns)
    return {name: one for name, one in made.items() if any(c.text != "–" for _, _, row in one.rows for c in row)}


def make_table(results: Mapping, title: str, columns: list[tuple[Column, dict]]) -> Table:
    """Of the values of every method, column by column; yardsticks come last."""
    methods = sorted(results.get("methods", {}), key=lambda method: method in YARDSTICKS)
    filled = [cells(column, values) for column, values in columns]
    rows = [(label_of(results, m), m in YARDSTICKS, [column[m] for column in filled]) for m in methods]
    return Table(title, [column for column, _ in columns], rows)


def cells(column: Column, values: Mapping) -> dict[str, Cell]:
    """The values as they are printed, the best of the methods marked."""
    found = {method: interval(value) for method, value in values.items()}
    rivals = {
        m: round(mean, column.digits)
        for m, (mean, _, _) in found.items()
        if m not in YARDSTICKS and not math.isnan(mean)
    }
    first = (min if column.better == "lower" else max)(rivals.values(), default=None)
    return {
        method: Cell(
            "–" if math.isnan(mean) else f"{mean:.{column.digits}f}",
            "" if math.isnan(low) or math.isnan(high) else f"{low:.{column.digits}f}–{high:.{column.digits}f}",
            len(rivals) > 1 and method in rivals and rivals[method] == first,
        )
        for method, (mean, low, high) in found.items()
    }


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
