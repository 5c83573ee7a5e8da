"""Maps of a whole data set, as a data set: written part by part, gone on with after any stop.

    output_dir/README.md                        what is in it, and how it was made
    output_dir/data/train-<first row>.parquet   a block of pictures, there as a whole or not at all
    output_dir/overlays/                        maps over their pictures, if they are wanted

Blocks are dealt to the processes by their number; what a block gives does not depend on who explains it. No more of
the pictures is in memory than a batch, of a stream a block as its files are, and of the maps about `FLUSH` bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.parquet

from ..data.picture_table import PictureBlock, PictureTable
from ..faithfulness.protocols import read_protocol
from ..jobs.folders import clean, settle, whole
from ..modeling.errors import ExplainerError
from .pictures import slug
from .rows import COMPRESSION, as_row, as_table, columns_of

FLUSH = 32 * 2**20  # bytes of maps that are written together


@dataclass(frozen=True)
class Settings:
    """What decides about the rows; a folder holds those of one.

    Args:
        classifier, explainer: names, revision and fingerprints.
        method: of a plain classifier.
        targets: the classes that are explained; None for the most probable ones.
        options: of the pipeline: top_k, refine_steps, measure, seed, output_size.
        dataset: its name, configuration, split, columns and seed.
        pictures: how many of it; None of a stream without an end that is known.
        block: pictures per part.
        maps, images, overlays: what is kept.
    """

    classifier: dict
    explainer: dict | None
    method: str | None
    targets: list[int] | None
    options: dict
    dataset: dict
    pictures: int | None
    block: int = 256
    maps: bool = True
    images: bool = True
    overlays: bool = False

    @property
    def measured(self) -> list[str]:
        """The names of the areas that are measured of each map."""
        preset = self.options.get("measure")
        return [curve.name for curve in read_protocol(preset, {}).curves] if preset else []


class Explaining:
    """The parts of a folder: which are there, and how a missing one is made.

    Args:
        explain: the pipeline.
        batch_size: pictures per forward.
        num_workers: processes that read pictures.
    """

    def __init__(
        self, folder, source: PictureTable, explain: Callable, settings: Settings, batch_size=8, num_workers=0
    ):
        self.folder, self.source, self.explain, self.settings = Path(folder), source, explain, settings
        self.batch_size, self.num_workers = batch_size, num_workers
        self.columns = columns_of(source, settings.images, settings.measured)

    def open(self) -> None:
        """Writes down the settings, or refuses those of others."""
        settle(self.folder, asdict(self.settings), "maps")
        for name in ("data", *(["overlays"] if self.settings.overlays else [])):
            (self.folder / name).mkdir(exist_ok=True)
            clean(self.folder / name)

    def path(self, first: int) -> Path:
        return self.folder / "data" / f"train-{first:09d}.parquet"

    def run(self, rank: int = 0, world: int = 1, done: Callable[[int], object] = lambda pictures: None) -> None:
        """This process' share of what is missing; `done` is told of every picture."""

        def wanted(first: int) -> bool:
            return first // self.settings.block % world == rank and not self.path(first).exists()

        for block in self.source.blocks(self.settings.block, wanted):
            self.write(block, done)

    def write(self, block: PictureBlock, done: Callable[[int], object] = lambda pictures: None) -> None:
        """One part."""
        writer = None
        with whole(self.path(block.first)) as unfinished:
            try:
                for rows in together(self.rows(block, done)):
                    table = as_table(rows, self.columns, self.settings.maps)
                    writer = writer or pyarrow.parquet.ParquetWriter(unfinished, table.schema, **COMPRESSION)
                    writer.write_table(table)
            finally:
                if writer is not None:
                    writer.close()

    def rows(self, block: PictureBlock, done: Callable[[int], object]) -> Iterator[dict]:
        """The rows of the block, in order; overlays are drawn on the way."""
        targets = None if self.settings.targets is None else [self.settings.targets] * len(block)
        results = self.explain(block, target=targets, batch_size=self.batch_size, num_workers=self.num_workers)
        try:
            for index, entries in enumerate(results):
                number, row = block.first + index, block.row(index)
                for entry in entries:
                    if self.settings.overlays:
                        entry["heatmap"].save(self.folder / "overlays" / overlay_name(number, row, entry, self.source))
                    yield as_row(number, row, entry, self.source)
                done(1)
        except ExplainerError as error:
            if isinstance(error.__cause__, ExplainerError):  # a picture that cannot be read says which row it is
                raise error.__cause__ from None
            last = block.first + len(block) - 1
            raise ExplainerError(f"rows {block.first} to {last} of {self.source.name}: {error}") from error


def overlay_name(number: int, row: dict, entry: dict, source: PictureTable) -> str:
    cell = row[source.column]
    path = cell.get("path") if isinstance(cell, dict) else None
    file = [slug(os.path.splitext(os.path.basename(path))[0])] if path else []
    return "-".join([f"{number:09d}", *file, str(entry["index"]), slug(entry["label"])]) + ".png"


def together(rows: Iterator[dict]) -> Iterator[list[dict]]:
    """Lists of rows that are written together."""
    found: list[dict] = []
    for row in rows:
        found.append(row)
        if sum(one["attribution"].nbytes for one in found) >= FLUSH:
            yield found
            found = []
    if found:
        yield found
