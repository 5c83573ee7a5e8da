"""What explaining a data set will cost, from a few pictures that are really explained and then forgotten."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ..data.picture_table import PictureBlock
from .dataset import Explaining


@dataclass(frozen=True)
class Estimate:
    """Costs of a run.

    Args:
        pictures: of the data set; None if it is a stream.
        measured: pictures that were explained to know the rest.
        seconds: per picture, of one process; reading, explaining and writing.
        stored: bytes per picture in the data set.
        overlays: bytes per picture of the overlays.
    """

    pictures: int | None
    measured: int
    seconds: float
    stored: float
    overlays: float

    def __str__(self) -> str:
        many = self.pictures or 1000
        said = f"{many:,}" if self.pictures else "a stream; per 1,000"
        lines = [
            f"pictures: {said}",
            f"time: {1000 * self.seconds:.1f} ms per picture, about {spell(self.seconds * many)} with one process",
            f"disk: {self.stored / 1000:.1f} kB per picture, about {self.stored * many / 1e9:.3g} GB of data",
        ]
        if self.overlays:
            lines.append(f"overlays: {self.overlays / 1000:.1f} kB, about {self.overlays * many / 1e9:.3g} GB")
        return "\n".join([*lines, f"measured on {self.measured} pictures, in a folder that is gone again"])


def spell(seconds: float) -> str:
    for length, unit in ((3600, "hours"), (60, "minutes")):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def estimate(explaining: Explaining) -> Estimate:
    """One batch to warm up, then up to four to measure."""
    source, size = explaining.source, explaining.batch_size
    block = next(source.blocks(5 * size, lambda first: True))
    sizes, seconds = [0, 0], 0.0
    warm = part(block, 0, size)
    measured = part(block, size, len(block)) if len(block) > size else warm
    for one in (warm, measured):
        with tempfile.TemporaryDirectory() as folder:
            trial = Explaining(folder, source, explaining.explain, explaining.settings, size, explaining.num_workers)
            trial.open()
            began = time.perf_counter()
            trial.write(one)
            seconds = time.perf_counter() - began
            sizes = [bytes_in(trial.folder / name) for name in ("data", "overlays")]
    return Estimate(source.pictures, len(measured), seconds / len(measured), *(one / len(measured) for one in sizes))


def part(block: PictureBlock, first: int, last: int) -> PictureBlock:
    return PictureBlock(block.table, block.first + first, block.rows[first:last])


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*"))
