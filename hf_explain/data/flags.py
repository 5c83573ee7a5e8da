"""The flags that name a data set, the same for every command that reads one."""

from __future__ import annotations

from dataclasses import dataclass

from ..jobs.flags import flag


@dataclass
class DataSet:
    """What `opening.open_columns` is told."""

    dataset: str | None = flag(
        None, "Hub id, folder of pictures, folder of save_to_disk, parquet files, or scenes: drawn on the spot"
    )
    dataset_config: str | None = flag(None, "configuration of a Hub data set that has several")
    split: str | None = flag(None, "default: train")
    dataset_size: int | None = flag(None, "the first so many pictures only; the scenes: how many there are")
    image_column: str | None = flag(None, "column with the pictures (default: the only one that has some)")
