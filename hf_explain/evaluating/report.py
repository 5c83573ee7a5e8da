"""What a survey says: intervals, paired differences, a table, a CSV, curves, and the numbers of a model card."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import PIL.Image

from ..faithfulness.intervals import interval, paired
from ..faithfulness.protocols import Protocol, read_protocol
from ..jobs.folders import write_whole
from ..reports.curves import draw_curves
from ..reports.tables import Cell, Column, Table, as_text
from .grids import read_grids
from .survey import Found, Settings, mean_curves

ALONE = {"average_precision": "average precision", "pointing_game": "pointing game", "difull": "DiFull"}
COST = {"ms": ("ms per picture", 1), "forwards": ("forwards per picture", 0)}  # name, digits
RANDOM = "random"


def protocol_of(changes: Mapping) -> Protocol:
    return read_protocol(changes["preset"], {key: value for key, value in changes.items() if key != "preset"})


def summarize(folder, found: Found, settings: Settings) -> dict:
    """Every method's means with 95 % intervals over the pictures, and paired differences of the first to the others.

    Args:
        found: of `read_columns`.
    """
    methods = list(found)
    results: dict = {"methods": {}, "differences": [], "protocols": {}}
    for key, changes in settings.protocols.items():
        results["protocols"][key] = protocol_of(changes).describe()
    for name in methods:
        columns, curves = found[name], mean_curves(folder, name)
        values = {c: one(v) for c, v in columns.items() if "/" in c or c in ALONE}
        results["methods"][name] = {
            "pictures": len(columns["index"]),
            "constant_maps": int(columns["constant"].sum()),
            "ms": float(np.median(columns["ms"])),
            "forwards": float(np.median(columns["forwards"])),
            "values": {c: value for c, value in values.items() if value is not None},
            "curves": curves,
        }
    first, compared = methods[0], list(results["methods"][methods[0]]["values"])
    for other in methods[1:]:
        for column in compared:
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


def one(values: np.ndarray) -> dict | None:
    values = values[np.isfinite(values)]
    return interval(values) if len(values) else None


def make_tables(results: dict, settings: Settings) -> list[Table]:
    """One table per protocol, and one of what has no protocol."""
    made = []
    for key, changes in settings.protocols.items():
        protocol = protocol_of(changes)
        columns = [Column(curve.name.replace("_", " "), curve.better) for curve in protocol.curves]
        keys = [f"{key}/{curve.name}" for curve in protocol.curves]
        made.append(Table(protocol.said(key), columns, rows(results, keys, columns)))
    keys = [key for key in ALONE if any(key in m["values"] for m in results["methods"].values())]
    columns = [*(Column(ALONE[key], "higher") for key in keys), *(Column(name, "lower") for name, _ in COST.values())]
    made.append(Table("Place and time", columns, rows(results, [*keys, *COST], columns)))
    return made


def rows(results: dict, keys: list[str], columns: list[Column]) -> list[tuple[str, bool, list[Cell]]]:
    methods = results["methods"]
    rivals = [name for name in methods if name != RANDOM]
    lines = []
    for name, method in methods.items():
        cells = []
        for key, column in zip(keys, columns, strict=True):
            digits = COST[key][1] if key in COST else 3
            own = mean(method, key)
            if own is None:
                cells.append(Cell())
                continue
            known = [round(m, digits) for m in (mean(methods[rival], key) for rival in rivals) if m is not None]
            first = (min if column.better == "lower" else max)(known, default=0)
            best = len(known) > 1 and name in rivals and round(own, digits) == first
            value = None if key in COST else method["values"][key]
            ends = f"{value['low']:.{digits}f}–{value['high']:.{digits}f}" if value else ""
            cells.append(Cell(f"{own:.{digits}f}", ends, best))
        lines.append((name.replace("_", " "), name == RANDOM, cells))
    return lines


def mean(method: dict, key: str) -> float | None:
    return method.get(key) if key in COST else method["values"].get(key, {}).get("mean")


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
    for key, changes in settings.protocols.items():
        protocol = protocol_of(changes)
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
            label = name.replace("_", " ")
            curves[label] = {}
            for c in shown:
                found = method["curves"][f"{key}/{c.name}"]
                after = round((len(found["mean"]) - 1) * (1 / protocol.end - 1))  # what a curve to 90 % leaves out
                for end, values in (("", found["mean"]), ("_low", found["low"]), ("_high", found["high"])):
                    curves[label][c.name + end] = [*values, *[None] * after]
        gray = [RANDOM] if RANDOM in curves else []
        figures[f"curves-{key.replace('/', '-')}.png"] = draw_curves(curves, gray, protocol.said(key), panels=panels)
    return figures
