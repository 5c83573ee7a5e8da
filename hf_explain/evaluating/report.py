"""What a survey says: intervals, paired differences, a table, a CSV, curves, and the numbers of a model card."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import PIL.Image

from ..faithfulness.intervals import interval, paired
from ..jobs.folders import write_whole
from ..reports.curves import draw_curves
from ..reports.tables import Column, Table, as_text, cells
from .grids import read_grids
from .survey import Found, Settings, mean_curves

ALONE = {"average_precision": "average precision", "pointing_game": "pointing game", "difull": "DiFull"}
COST = {
    "ms": Column("ms per picture", "lower", digits=1),
    "forwards": Column("forwards per picture", "lower", digits=0),
}
RANDOM = "random"


def summarize(folder, found: Found, settings: Settings) -> dict:
    """Every method's means with 95 % intervals over the pictures, and paired differences of the first to the others.

    Args:
        found: of `read_columns`.
    """
    methods = list(found)
    protocols = {key: protocol.describe() for key, protocol in settings.read_protocols().items()}
    results: dict = {"methods": {}, "differences": [], "protocols": protocols}
    for name, columns in found.items():
        known = {c: v[np.isfinite(v)] for c, v in columns.items() if "/" in c or c in ALONE}
        results["methods"][name] = {
            "pictures": len(columns["index"]),
            "constant_maps": int(columns["constant"].sum()),
            "ms": float(np.median(columns["ms"])),
            "forwards": float(np.median(columns["forwards"])),
            "values": {c: interval(v) for c, v in known.items() if len(v)},
            "curves": mean_curves(folder, name),
        }
    first = methods[0]
    for other in methods[1:]:
        for column in results["methods"][first]["values"]:
            ours, theirs = found[first][column], found[other][column]
            both = np.isfinite(ours) & np.isfinite(theirs)
            difference = paired(ours[both], theirs[both])
            results["differences"].append({"method": first, "against": other, "value": column, **difference})
    for name, scores in read_grids(folder, methods).items():
        empty = int(scores["empty"].sum())
        results["methods"][name]["values"]["difull"] = {**interval(scores["score"]), "empty": empty}
    true = found[first]["label"]
    if (true >= 0).all():
        results["accuracy"] = float((true == found[first]["predicted"]).mean())
    return results


def make_tables(results: dict, settings: Settings) -> list[Table]:
    """One table per protocol, and one of what has no protocol."""
    methods, made = results["methods"], []
    for key, protocol in settings.read_protocols().items():
        areas = {f"{key}/{c.name}": Column(c.name.replace("_", " "), c.better) for c in protocol.curves}
        made.append(make_table(protocol.said(key), areas, {name: m["values"] for name, m in methods.items()}))
    alone = {
        key: Column(said, "higher") for key, said in ALONE.items() if any(key in m["values"] for m in methods.values())
    }
    made.append(make_table("Place and time", alone | COST, {name: m["values"] | m for name, m in methods.items()}))
    return made


def make_table(title: str, columns: dict[str, Column], values: dict[str, dict]) -> Table:
    """Of every method's values by the keys of the columns."""
    filled = [cells(column, {name: own.get(key) for name, own in values.items()}) for key, column in columns.items()]
    rows = [(name.replace("_", " "), name == RANDOM, [column[name] for column in filled]) for name in values]
    return Table(title, list(columns.values()), rows)


def as_terminal(results: dict, settings: Settings) -> str:
    texts = [as_text(table) for table in make_tables(results, settings)]
    constant = {name: m["constant_maps"] for name, m in results["methods"].items() if m["constant_maps"]}
    notes = [f"{settings.pictures} pictures of {settings.dataset['name']}; 95 % intervals over the pictures."]
    notes += [f"{name}: left out. {reason}" for name, reason in results.get("refused", {}).items()]
    for name, count in constant.items():
        notes.append(f"{count} maps of {name} are constant and rank nothing; their order was drawn at random.")
    return "\n\n".join([*texts, "\n".join(notes)])


def write_csv(folder, found: Found) -> Path:
    """A line per picture and method."""
    path = Path(folder) / "results.csv"
    names = list(dict.fromkeys(c for columns in found.values() for c in columns))
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["method", *names])
    for method, columns in found.items():
        listed = [columns[c].tolist() if c in columns else [""] * len(columns["index"]) for c in names]
        writer.writerows([method, *values] for values in zip(*listed, strict=True))
    write_whole(path, buffer.getvalue().encode())
    return path


def draw(results: dict, settings: Settings) -> dict[str, PIL.Image.Image]:
    """File name -> figure: the first two mean curves of every protocol whose scores are shares or probabilities."""
    figures = {}
    for key, protocol in settings.read_protocols().items():
        shown = [c for c in protocol.curves if c.score in ("probability", "indicator")][:2]
        if protocol.is_suite or len(shown) < 2:
            continue
        panels = {}
        for c in shown:
            along = "share brought back" if c.kind == "insertion" else "share removed"
            up = "probability of the class" if c.score == "probability" else "share still predicted"
            panels[c.name] = (c.name.replace("_", " ").capitalize(), f"{c.better} is better", along, up)
        curves: dict[str, dict] = {}
        for name, method in results["methods"].items():
            own: dict = {}
            curves[name.replace("_", " ")] = own
            for c in shown:
                for end, values in method["curves"][f"{key}/{c.name}"].items():
                    after = round((len(values) - 1) * (1 / protocol.end - 1))  # what a curve to 90 % leaves out
                    own[c.name if end == "mean" else f"{c.name}_{end}"] = [*values, *[None] * after]
        gray = [RANDOM] if RANDOM in curves else []
        figures[f"curves-{key.replace('/', '-')}.png"] = draw_curves(curves, gray, protocol.said(key), panels=panels)
    return figures
