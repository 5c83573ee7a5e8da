"""The AggAtt sheet of a survey: maps sorted by how well they did, averaged from the best to the worst."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image

from ..localization.aggatt import aggatt_sheet
from ..localization.aggregation import CUTS, Aggregate, average_bins
from .survey import SMALL, Found, Settings, kept


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
    empty = 0

    def positive():
        nonlocal empty
        for _, name, path in kept(folder):
            if name == method:
                for index, small in zip(*read_maps(path), strict=True):
                    one = np.maximum(small, 0)
                    empty += not one.any()
                    yield int(index), one

    order = np.argsort(-scores, kind="stable").tolist()
    bins, scale = average_bins(positive(), order, scores.tolist(), CUTS)
    return Aggregate(bins, scale, float(scores.mean()), len(scores), empty)


def read_maps(path: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    """(indices, maps) of a part."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path, columns=["index", "map"])
    maps = [np.frombuffer(one, np.float16).astype(np.float32) for one in table["map"].to_pylist()]
    height = min(SMALL, int(len(maps[0]) ** 0.5))
    return table["index"].to_numpy(), [one.reshape(height, -1) for one in maps]
