"""The flags that name a data set, the same for every command that reads one."""

from __future__ import annotations

from ..jobs.flags import flag

DATA_SET = {
    "--dataset": flag(
        "Hub id, folder of pictures, folder of save_to_disk, parquet files, or scenes: drawn on the spot"
    ),
    "--dataset_config": flag("configuration of a Hub data set that has several"),
    "--split": flag("default: train"),
    "--dataset_size": flag("the first so many pictures only; the scenes: how many there are", type=int),
    "--image_column": flag("column with the pictures (default: the only one that has some)"),
}
STREAMING = {"--streaming": flag("read the data set meanwhile instead of downloading it first", False)}
SCENES_SEED = {"--scenes_seed": flag("of the scenes; 10000 and up were never trained on", 10_000)}
