"""The AggAtt sheet of a survey: maps sorted by how well they did, averaged from the best to the worst."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import PIL.Image

from ..localization.aggatt import aggatt_sheet
from ..localization.aggregation import Aggregate, Bin, bin_edges, order_statistic
from .survey import SMALL, Found, Settings, kept

CUTS = (0, 0.02, 0.05, 0.5, 0.95, 0.98, 1)


def draw_sheet(folder, found: Found, settings: Settings, rows=None) -> PIL.Image.Image:
    """One line of mean maps per method, and under it the map in the middle of each bin.

    Sorted by average precision where the evidence is known, else by the first protocol's last area minus its first.

    Args:
        found: of `read_columns`.
        rows: of the data set, to show the examples on.
    """
    lines, wanted, said = [], set(), ("", "")
    for name, columns in found.items():
        scores, said = score_of(columns, settings)
        lines.append((name.replace("_", " "), collect(folder, name, scores)))
        wanted |= {b.example for b in lines[-1][1].bins}
    pictures: list[PIL.Image.Image | None] | None = None
    if rows is not None:
        pictures = [None] * settings.pictures
        for index in wanted:
            values = rows[index]["pixel_values"].float()
            low, high = values.amin(), values.amax()
            gray = ((values - low) / (high - low).clamp(min=1e-6)).mean(0)
            pictures[index] = PIL.Image.fromarray((255 * gray).byte().numpy())
    title = f"Maps from the best to the worst by {said[1]}: their means, and the middle one of each part"
    return aggatt_sheet(lines, pictures, 0, 1, title, score=said)


def score_of(columns: dict[str, np.ndarray], settings: Settings) -> tuple[np.ndarray, tuple[str, str]]:
    """Per picture, higher is better, and how it is called in short and in words."""
    if "average_precision" in columns and np.isfinite(columns["average_precision"]).all():
        return columns["average_precision"], ("AP", "average precision against the evidence")
    key, protocol = next(iter(settings.read_protocols().items()))
    signs = {"higher": 1, "lower": -1}
    curves = protocol.curves[:2]
    total = sum(signs[c.better] * columns[f"{key}/{c.name}"] for c in curves)
    plus = " + ".join(c.name for c in curves if c.better == "higher")
    minus = " - ".join(c.name for c in curves if c.better == "lower")
    return np.asarray(total), ("score", f"{plus} - {minus} ({key})" if minus else f"{plus} ({key})")


def collect(folder, method: str, scores: np.ndarray) -> Aggregate:
    """Bin means of the small maps, read part by part."""
    order = np.argsort(-scores, kind="stable")
    edges = bin_edges(len(scores), CUTS)
    place = np.empty(len(scores), int)
    place[order] = np.arange(len(scores))
    pairs = list(pairwise(edges))
    middle = {int(order[(low + high - 1) // 2]): b for b, (low, high) in enumerate(pairs) if high > low}
    sums: list[np.ndarray | None] = [None] * len(pairs)
    examples: dict[int, np.ndarray] = {}
    empty = 0
    for _, name, path in kept(folder):
        if name != method:
            continue
        for index, small in zip(*read_maps(path), strict=True):
            positive = np.maximum(small, 0)
            empty += not positive.any()
            b = next(i for i, (low, high) in enumerate(pairs) if low <= place[index] < high)
            before = sums[b]
            sums[b] = positive if before is None else before + positive
            if index in middle:
                examples[middle[int(index)]] = positive
    bins = []
    for b, (low, high) in enumerate(pairs):
        total = sums[b]
        if total is None:
            continue
        example = int(order[(low + high - 1) // 2])
        share = CUTS[b], CUTS[b + 1]
        bins.append(Bin(share, high - low, total / (high - low), example, examples[b], float(scores[example])))
    scale = order_statistic(np.concatenate([one.mean.ravel() for one in bins]), 0.995) or 1.0
    return Aggregate(bins, scale, float(scores.mean()), len(scores), empty)


def read_maps(path: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    """(indices, maps) of a part."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path, columns=["index", "map"])
    maps = [np.frombuffer(one, np.float16).astype(np.float32) for one in table["map"].to_pylist()]
    height = min(SMALL, int(len(maps[0]) ** 0.5))
    return table["index"].to_numpy(), [one.reshape(height, -1) for one in maps]
