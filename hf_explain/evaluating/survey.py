"""Several methods on every picture of a data set: measured once, kept per picture, gone on with after any stop.

Pictures are taken in blocks. What a block gave is one parquet file, there as a whole or not at all; a block that is
there is never computed again. Blocks are dealt to the processes; since a block is the same whoever computes it, so are
the numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
import torch
import torch.nn.functional as F

from ..faithfulness.case import order_at_random, predict
from ..faithfulness.measurement import measure
from ..faithfulness.protocols import Protocol, read_protocol
from ..jobs.folders import settle, write_whole
from ..localization.evidence import average_precision, pointing_game
from ..methods.calling import attribute
from ..modeling.errors import ExplainerError
from ..modeling.model_call import counted

PARTS = "parts"
Found = dict[str, dict[str, np.ndarray]]  # method -> column -> one number per picture
SMALL = 32  # pixels a side of the maps that are kept, for the sheet


@dataclass(frozen=True)
class Settings:
    """What decides about the numbers; a folder holds those of one.

    Args:
        classifier, explainer: names and fingerprints.
        dataset: its name, configuration, split, columns and seed.
        pictures: how many of it.
        protocols: presets with what was changed of them.
        block: pictures per part.
        explained: "predicted" or "label": the class whose maps are measured.
        grids: of DiFull.
        dtype: the classifier's forwards were autocast to it.
        seed: of random methods.
    """

    classifier: dict
    explainer: dict | None
    dataset: dict
    pictures: int
    protocols: dict[str, dict]
    block: int = 64
    explained: str = "predicted"
    dtype: str | None = None
    seed: int = 0
    grids: int = 0
    columns: int = 2  # of the parts, counted up when they change

    def read_protocols(self) -> dict[str, Protocol]:
        """The protocols themselves."""
        every = {key: dict(changes) for key, changes in self.protocols.items()}
        return {key: read_protocol(changes.pop("preset"), changes) for key, changes in every.items()}


class Survey:
    """The parts of a folder: which are there, and how a missing one is made.

    Args:
        rows: {"pixel_values", "label", "mask"}, as `judged.Judged`.
        methods: name -> function (classifier, pixel_values, targets) -> maps.
        models: whose forwards are counted, besides the classifier's own.
    """

    def __init__(
        self, folder, classifier, rows, methods: Mapping[str, Callable], settings: Settings, batch_size=32, models=()
    ):
        self.folder, self.classifier, self.rows, self.methods = Path(folder), classifier, rows, dict(methods)
        self.settings, self.batch_size = settings, batch_size
        self.models, self.parts = (classifier.model, *models), self.folder / PARTS

    def open(self) -> None:
        """Writes down the settings, or refuses those of another survey."""
        settle(self.folder, asdict(self.settings), "results")
        self.parts.mkdir(exist_ok=True)

    def missing(self) -> list[tuple[int, list[str]]]:
        """(first picture, methods) of what is not there yet."""
        there = {(first, name) for first, name, _ in kept(self.folder)}
        starts = range(0, self.settings.pictures, self.settings.block)
        todo = [(first, [name for name in self.methods if (first, name) not in there]) for first in starts]
        return [(first, names) for first, names in todo if names]

    def run(self, rank: int = 0, world: int = 1, progress=iter) -> None:
        """This process' share of what is missing."""
        for first, names in progress(self.missing()[rank::world]):
            for name, table in self.block(first, names).items():
                write_part(self.parts / f"{first:09d}-{file_of(name)}", table)

    def block(self, first: int, names: list[str]) -> dict[str, dict]:
        """method -> columns of its part."""
        settings = self.settings
        rows = [self.rows[i] for i in range(first, min(first + settings.block, settings.pictures))]
        x, labels = torch.stack([row["pixel_values"] for row in rows]), [row["label"] for row in rows]
        true = None if None in labels else torch.tensor(labels)
        predicted = predict(self.classifier, x, self.batch_size)
        targets, protocols = true if settings.explained == "label" else predicted, settings.read_protocols()
        if targets is None or (true is None and any(one.label == "given" for one in protocols.values())):
            raise ExplainerError(
                "the true classes are wanted but unknown; give --label_column, or another preset and --explained."
            )
        maps: dict[str, torch.Tensor] = {}
        columns: dict[str, dict] = {}
        for name in names:
            columns[name] = {
                "index": np.arange(first, first + len(x)),
                "target": targets.numpy(),
                "predicted": predicted.numpy(),
                "label": np.array([-1 if label is None else label for label in labels]),
            }
            maps[name] = self.explain(name, x, targets, columns[name])
        for key, protocol in protocols.items():
            given = true if protocol.label == "given" else targets
            dtype = getattr(torch, settings.dtype) if settings.dtype else None
            reports = measure(self.classifier, x, maps, given, protocol, batch_size=self.batch_size, dtype=dtype)
            for name, report in reports.items():
                for curve, area in report.areas.items():
                    columns[name][f"{key}/{curve}"] = area.numpy()
                    if curve in report.curves:
                        columns[name][f"{key}/{curve}/curve"] = list(report.curves[curve].numpy())
        for name, one in maps.items():
            columns[name] |= located(one, [row["mask"] for row in rows])
            columns[name]["map"] = [small.tobytes() for small in shrink(one)]
        return columns

    def explain(self, name: str, x: torch.Tensor, targets: torch.Tensor, columns: dict) -> torch.Tensor:
        """Maps that rank something; what they cost, and which were constant, goes into the columns."""
        first, began = int(columns["index"][0]), time.perf_counter()
        with counted(*self.models) as seen:
            made = attribute(
                self.methods[name], self.classifier, x, targets, batch_size=self.batch_size,
                seed=self.settings.seed + first,
            )  # fmt: skip
        took = time.perf_counter() - began
        bad = (~made.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()
        if bad:
            raise ExplainerError(f"the {name} map of picture {first + bad[0]} holds NaN or infinite values.")
        columns["constant"] = (made.flatten(1).amax(1) == made.flatten(1).amin(1)).numpy()
        columns["ms"], columns["forwards"] = np.full(len(x), 1000 * took / len(x)), np.full(len(x), sum(seen) / len(x))
        return order_at_random(made)[0]


def located(maps: torch.Tensor, masks: list[torch.Tensor | None]) -> dict[str, np.ndarray]:
    """Scores against the evidence, where there is some; NaN for pictures without."""
    known = [mask for mask in masks if mask is not None]
    if len(known) < len(masks):
        return {}
    evidence, scores = torch.stack(known), {"average_precision": average_precision, "pointing_game": pointing_game}
    some, columns = evidence.flatten(1).any(1), {}
    for key, score in scores.items():
        columns[key] = np.full(len(maps), np.nan, np.float32)
        if some.any():
            columns[key][some.numpy()] = score(maps[some], evidence[some]).numpy()
    return columns


def shrink(maps: torch.Tensor) -> np.ndarray:
    """Maps of at most `SMALL` pixels a side, float16, the largest absolute value 1."""
    height, width = (min(SMALL, side) for side in maps.shape[-2:])
    small = F.adaptive_avg_pool2d(maps[:, None], (height, width))[:, 0]
    return (small / small.abs().amax((1, 2), keepdim=True).clamp(min=1e-12)).half().numpy()


# ---- parts ----


def kept(folder) -> Iterator[tuple[int, str, Path]]:
    """(first picture, method, path) of the parts that are there, in order."""
    for path in sorted((Path(folder) / PARTS).glob("*.parquet")):
        first, _, name = path.stem.partition("-")
        yield int(first), unquote(name), path


def file_of(method: str) -> str:
    """The name of a file of a method's results, whatever its options hold.

    >>> file_of("occlusion(window=8, reference='1/2')")
    "occlusion(window=8, reference='1%2F2').parquet"
    """
    return quote(method, safe="()=,' ") + ".parquet"


def write_part(path: Path, columns: dict) -> None:
    import io

    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({key: pyarrow.array(list(v)) for key, v in columns.items()}), buffer)
    write_whole(path, buffer.getvalue())


def read_parts(folder, methods, curves: bool) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """(method, its columns that are curves, or its others without the maps) part by part."""
    import pyarrow.parquet

    for _, name, path in kept(folder):
        if name in methods:
            names = [
                c for c in pyarrow.parquet.read_schema(path).names if c != "map" and c.endswith("/curve") == curves
            ]
            table = pyarrow.parquet.read_table(path, columns=names)
            yield name, {column: table[column].to_numpy() for column in names}


def read_columns(folder, methods) -> Found:
    """method -> column -> one number per picture, in the order of the pictures; curves and maps are left out."""
    found: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in methods}
    for name, columns in read_parts(folder, methods, curves=False):
        for column, values in columns.items():
            found[name].setdefault(column, []).append(values)
    return {name: {c: np.concatenate(parts) for c, parts in columns.items()} for name, columns in found.items()}


def mean_curves(folder, method: str) -> dict[str, dict[str, list[float]]]:
    """curve -> its mean and the ends of its 95 % band (normal approximation, point by point); read part by part."""
    sums: dict[str, tuple[int, np.ndarray, np.ndarray]] = {}
    for _, columns in read_parts(folder, [method], curves=True):
        for column, rows in columns.items():
            values = np.stack(list(rows)).astype(float)
            count, total, squares = sums.get(column, (0, 0, 0))
            sums[column] = (count + len(values), total + values.sum(0), squares + (values**2).sum(0))
    curves = {}
    for column, (count, total, squares) in sums.items():
        mean = total / count
        width = 1.96 * np.sqrt(np.maximum(squares / count - mean**2, 0) / count)
        ends = {"mean": mean, "low": mean - width, "high": mean + width}
        curves[column.removesuffix("/curve")] = {key: end.tolist() for key, end in ends.items()}
    return curves
