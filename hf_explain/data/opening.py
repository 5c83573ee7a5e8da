"""A data set opened by its name: where its rows are, which column holds the pictures."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence

import PIL.Image

from ..modeling.classifier import is_path
from ..modeling.errors import ExplainerError, whole_number
from ..modeling.pictures import one_line, open_picture
from .scenes import SCENES, SceneRows


def read_cell(cell, name: str) -> PIL.Image.Image:
    """The picture of a cell; `name` says where it is from, should it be unreadable."""
    if isinstance(cell, dict) and cell.get("path"):
        name = f"{name} ({cell['path']})"
    if cell is None:
        raise ExplainerError(f"{name} is empty; remove the row.")
    try:
        return open_picture(cell)
    except ExplainerError as error:
        raise ExplainerError(f"{name}: {error}") from error


def open_rows(name: str, config_name: str | None, split: str | None, streaming: bool, labels: bool):
    """The `datasets` object `name` means; of a folder of pictures with the folders as labels if `labels`."""
    import datasets

    wanted = split or "train"
    saved = [os.path.join(name, file) for file in ("state.json", "dataset_dict.json")]
    try:
        if any(map(os.path.isfile, saved)):
            rows = datasets.load_from_disk(name)
            if isinstance(rows, datasets.DatasetDict):
                if wanted not in rows:
                    raise ValueError(f"it has no split {wanted!r}, but {', '.join(rows)}")
                rows = rows[wanted]
            elif split not in (None, "train", str(rows.split)):
                raise ValueError(f"it is one data set without splits, so there is no {split!r}")
            return rows.to_iterable_dataset() if streaming else rows
        inside = [os.path.join(glob.escape(name), where) for where in ("*.parquet", os.path.join("data", "*.parquet"))]
        if os.path.isdir(name) and any(map(glob.glob, inside)):
            return datasets.load_dataset(os.path.abspath(name), config_name, split=wanted, streaming=streaming)
        files = [] if os.path.isdir(name) else sorted(glob.glob(name))
        if files and all(file.endswith(".parquet") for file in files):
            return datasets.load_dataset("parquet", data_files=files, split=wanted, streaming=streaming)
        if os.path.isdir(name):
            options = {"data_dir": os.path.abspath(name), "drop_labels": not labels, "drop_metadata": not labels}
            return datasets.load_dataset("imagefolder", split=wanted, streaming=streaming, **options)
        if files:
            raise ValueError(f"{next(f for f in files if not f.endswith('.parquet'))} is a file, and not a parquet one")
        if is_path(name):
            raise ValueError("there is no such folder or file")
        return datasets.load_dataset(name, config_name, split=wanted, streaming=streaming)
    except Exception as error:
        raise ExplainerError(
            f"{name!r} could not be opened as a data set ({one_line(error)}); give the id of one on the Hub, a folder "
            "of pictures, parquet files, or scenes."
        ) from error


def open_columns(
    name: str, config_name: str | None, splits: Sequence[str | None], image_column: str | None, size: int | None,
    *, seed: int, side: int, kept: Sequence[str] = (), other: str | None = None, labels: bool = False,
    streaming: bool = False,
):  # fmt: skip
    """(rows of the column with the pictures, not decoded, and of those to keep; its name; what the rows are called).

    Args:
        name: id of a data set of the Hub; a folder of pictures; a folder of `save_to_disk`; parquet files (a file, a
            folder or a pattern); or "scenes".
        config_name: of a Hub data set that has several.
        splits: the first of them that there is, None is train; files are told apart by names such as train-0.parquet
            and test-0.parquet.
        image_column: default the only one with pictures, apart from `other`.
        size: the first so many rows only; of the scenes, how many there are.
        seed, side: of the scenes.
        kept: columns that are wanted beside the pictures.
        labels: of a folder of pictures, the folders are a column too.
    """
    whole_number("dataset_size", size, 1)
    if name == "scenes":
        return SceneRows(size or SCENES, seed, side), "image", "the scenes"
    rows = open_first(name, config_name, splits, streaming, labels)
    rows, column = as_pictures(rows, image_column, name, kept, other)
    if size:
        rows = rows.take(size) if streaming else rows.select(range(min(size, len(rows))))
    return rows, column, name


def open_first(name: str, config_name: str | None, splits: Sequence[str | None], streaming: bool, labels: bool):
    """`open_rows` of the first of the splits that there is."""
    for split in splits[:-1]:
        try:
            return open_rows(name, config_name, split, streaming, labels)
        except ExplainerError:
            continue
    return open_rows(name, config_name, splits[-1], streaming, labels)


def as_pictures(rows, asked: str | None, name: str, kept: Sequence[str], other: str | None):
    """(rows of the column with the pictures, not decoded yet, and of those to keep; its name)."""
    import datasets

    if rows.features is None:  # a stream that has to be looked into
        rows = rows._resolve_features()
    features = rows.features
    found = [column for column, kind in features.items() if isinstance(kind, datasets.Image) and column != other]
    for wanted in filter(None, [asked, *kept]):
        if wanted not in features:
            raise ExplainerError(f"{name} has no column {wanted!r}; it has {', '.join(features)}.")
    if asked is None and len(found) != 1:
        what = f"several columns of pictures, {', '.join(found)}" if found else "no column of pictures"
        raise ExplainerError(f"{name} has {what}; name the one to use with image_column, out of {', '.join(features)}.")
    column = asked or found[0]
    columns = list(dict.fromkeys([column, *kept]))
    try:
        return rows.select_columns(columns).cast_column(column, datasets.Image(decode=False)), column
    except Exception as error:
        kind = getattr(features[column], "dtype", None) or type(features[column]).__name__
        raise ExplainerError(
            f"column {column!r} of {name} holds {kind}, not pictures; name another with image_column, out of "
            f"{', '.join(features)}."
        ) from error
