"""Explained pictures as rows of a data set: a row per class of a picture, maps in float16."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
from datasets.table import embed_table_storage

from ..data.picture_table import PictureTable
from ..modeling.errors import ExplainerError

MAPS = datasets.Features(attribution=datasets.List(datasets.List(datasets.Value("float16"))))
# Measured on maps of small classifiers: two thirds of the bytes of plain zstd at 224 pixels, and faster to write.
COMPRESSION = {
    "compression": "zstd", "use_dictionary": False,
    "column_encoding": {"attribution.list.element.list.element": "BYTE_STREAM_SPLIT"},
}  # fmt: skip
LEAST, MOST = 2.0**-6, 2.0**15  # between them, the largest value of a map leaves enough of float16 to the others


def columns_of(source: PictureTable, images: bool, measured: list[str]) -> datasets.Features:
    """Names and types of all columns but the map.

    Args:
        images: whether the pictures are among them.
        measured: names of the areas that were measured of each map.
    """
    found = {"row": datasets.Value("int64")}
    if images:
        found["image"] = datasets.Image()
    found |= {"label": datasets.Value("string"), "target": datasets.Value("int32"), "score": datasets.Value("float32")}
    found |= {"scale": datasets.Value("float32"), "box": datasets.List(datasets.Value("int32"))}
    found |= {name: datasets.Value("float32") for name in measured}
    features = getattr(source.rows, "features", SCENE_FEATURES)
    return datasets.Features(found | {f"source_{name}": features[name] for name in source.kept})


SCENE_FEATURES = {"label": datasets.Value("string"), "mask": datasets.List(datasets.List(datasets.Value("bool")))}


def as_row(number: int, row: Mapping, entry: Mapping, source: PictureTable) -> dict:
    """A picture and one class, with what the pipeline said; the map under "attribution", scaled."""
    values, scale = scaled(entry["attribution"])
    return {
        "row": number, "image": row[source.column], "label": entry["label"], "target": entry["index"],
        "score": entry["score"], "attribution": values, "scale": scale, "box": list(entry["box"]),
        **{name: value for name, value in entry.get("faithfulness", {}).items() if np.isscalar(value)},
        **{f"source_{name}": row[name] for name in source.kept},
    }  # fmt: skip


def scaled(attribution: np.ndarray) -> tuple[np.ndarray, float]:
    """The map in float16, and the power of two to multiply it by: 1 unless float16 would lose its values.

    >>> values, scale = scaled(np.float32([[1e-9, 3e-9]]))
    >>> bool(abs(values * np.float64(scale) / [[1e-9, 3e-9]] - 1).max() < 1e-3)
    True
    """
    largest = float(np.nanmax(np.abs(attribution), initial=0))
    fits = largest == 0 or LEAST <= largest <= MOST
    scale = 1.0 if fits else float(2.0 ** np.floor(np.log2(largest)))
    return (attribution / np.float32(scale)).astype(np.float16), scale


def as_table(rows: list[dict], columns: datasets.Features, maps: bool) -> pyarrow.Table:
    """What is written of a few rows; pictures that lay in files are inside."""
    plain = {name: [row[name] for row in rows] for name in columns}
    table = embed_table_storage(datasets.Dataset.from_dict(plain, features=columns).data.table)
    if maps:
        table = table.append_column("attribution", nested([row["attribution"] for row in rows]))
    features = datasets.Features({**columns, **(MAPS if maps else {})})
    return table.replace_schema_metadata(features.arrow_schema.metadata)


def nested(maps: list[np.ndarray]) -> pyarrow.ListArray:
    """Maps of any sizes as lists of lists."""
    widths = np.concatenate([np.full(len(one), one.shape[1]) for one in maps])
    ends = [np.concatenate([[0], np.cumsum(lengths)]) for lengths in (widths, [len(one) for one in maps])]
    values = pyarrow.array(np.concatenate([one.ravel() for one in maps]))
    inner = pyarrow.ListArray.from_arrays(pyarrow.array(ends[0], pyarrow.int32()), values)
    return pyarrow.ListArray.from_arrays(pyarrow.array(ends[1], pyarrow.int32()), inner)


# ---- what is there ----


def parts_of(folder: Path) -> Iterator[tuple[int, Path]]:
    """(first row, path) of the parts that are there, in order."""
    for path in sorted((folder / "data").glob("train-*.parquet")):
        yield int(path.stem.partition("-")[2]), path


def count(folder: Path, block: int, pictures: int | None) -> tuple[int, int]:
    """(pictures, maps) of a finished folder, after looking that no picture is missing and none is there twice."""
    total = maps = 0
    for first, path in parts_of(folder):
        rows = pyarrow.parquet.read_table(path, columns=["row"])["row"].to_numpy()
        numbers, times = np.unique(rows, return_counts=True)
        whole = np.array_equal(numbers, np.arange(first, first + len(numbers))) and len(set(times.tolist())) == 1
        if first != total or total % block or not whole:
            raise ExplainerError(
                f"{path} does not follow the parts before it; remove it, and give the same command again."
            )
        total, maps = total + len(numbers), maps + len(rows)
    if not total:
        raise ExplainerError("the data set holds no picture; give one that does.")
    if pictures is not None and total != pictures:
        raise ExplainerError(f"{folder} holds {total} of {pictures} pictures; give the same command again to go on.")
    return total, maps


def column(folder: Path, name: str) -> np.ndarray:
    """A column of numbers, of all parts."""
    tables = [pyarrow.parquet.read_table(path, columns=[name]) for _, path in parts_of(folder)]
    return pyarrow.concat_tables(tables)[name].to_numpy()
