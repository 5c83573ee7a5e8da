"""Pictures to explain, with the columns that stay beside them: read block by block, never all at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import PIL.Image

from ..modeling.errors import ExplainerError
from .opening import open_columns, read_cell


class PictureTable:
    """Rows of a data set with a picture and other columns, those of a stream in its order.

    Args:
        rows: a `datasets` object whose pictures are not decoded, or `SceneRows`.
        column: the one with the pictures.
        kept: other columns that are wanted.
        pictures: how many, None if that is not known before the end.
    """

    def __init__(self, rows, column: str, name: str, kept: Sequence[str] = (), pictures: int | None = None):
        self.rows, self.column, self.name, self.kept, self.pictures = rows, column, name, list(kept), pictures

    def blocks(self, size: int, wanted: Callable[[int], bool]) -> Iterator[PictureBlock]:
        """The blocks of `size` rows whose first row is wanted."""
        if self.pictures is not None:
            for first in filter(wanted, range(0, self.pictures, size)):
                yield PictureBlock(self, first, range(first, min(first + size, self.pictures)))
            return
        rows = iter(self.rows)
        for first in itertools.count(step=size):
            found = list(itertools.islice(rows, size))
            if found and wanted(first):
                yield PictureBlock(self, first, found)
            if len(found) < size:
                return


class PictureBlock:
    """A few rows that follow one another: their pictures by index, upright and RGB."""

    def __init__(self, table: PictureTable, first: int, rows: range | list[dict]):
        self.table, self.first, self.rows = table, first, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> PIL.Image.Image:
        return read_cell(self.row(index)[self.table.column], f"row {self.first + index} of {self.table.name}")

    def row(self, index: int) -> dict:
        """All its columns, the picture as it is stored."""
        return self.rows[index] if isinstance(self.rows, list) else self.table.rows[self.rows[index]]


def open_table(
    name: str, config_name: str | None = None, split: str | None = None, image_column: str | None = None,
    kept: Sequence[str] = (), size: int | None = None, streaming: bool = False, image_size: int = 64, seed: int = 0,
) -> PictureTable:  # fmt: skip
    """The data set `name`, as `opening.open_columns` names them.

    Args:
        kept: columns that are wanted beside the pictures.
        image_size, seed: of the scenes.
    """
    known = ("label", "mask")
    if name == "scenes" and (streaming or set(kept) - set(known)):
        raise ExplainerError(f"the scenes have the columns {', '.join(known)} beside the pictures, and no stream.")
    rows, column, called = open_columns(
        name, config_name, [split], image_column, size,
        seed=seed, side=image_size, kept=kept, labels=bool(kept), streaming=streaming,
    )  # fmt: skip
    if streaming:
        return PictureTable(rows, column, called, kept)
    if not len(rows):
        raise ExplainerError(f"{name} holds no picture; give a data set that does.")
    return PictureTable(rows, column, called, kept, len(rows))
