"""Any collection of pictures, without labels, as the rows that training reads: {"pixel_values": (3, H, W)}.

dataset = open_pictures("food101", image_processor, split="train")     # a data set of the Hub
dataset = open_pictures("my-pictures/", image_processor)               # a folder, in class folders or not
train_rows, eval_rows = hold_out(dataset, None, seed=0)
"""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterator, Sequence

import PIL.Image
import torch
from torch.utils.data import Dataset, Subset

from .draws import keyed
from .modeling.classifier import is_path
from .modeling.perturbation import ExplainerError
from .modeling.pictures import one_line, open_picture
from .modeling.reading import whole_number
from .scenes import CLASSES, draw_scene

HELD_OUT = 64  # pictures, or a tenth if that is less
SCENES = 8000
HOLD_OUT = 101  # what is drawn, apart from `batches.ORDER`


class Pictures(Dataset):
    """Rows of a picture column, upright and RGB, as `image_processor` returns them."""

    def __init__(self, rows, column: str, image_processor, name: str):
        self.rows, self.column, self.image_processor, self.name = rows, column, image_processor, name

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return self.read(self.rows[int(row)], f"row {row} of {self.name}")

    def read(self, row: dict, where: str) -> dict:
        return prepare(row[self.column], self.image_processor, where)


class PictureStream:
    """The same of a stream, which knows its place: `state_dict`, `load_state_dict`."""

    def __init__(self, rows, column: str, image_processor, name: str):
        self.rows, self.column, self.image_processor, self.name = rows, column, image_processor, name

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for row in self.rows:
            yield prepare(row[self.column], self.image_processor, f"a picture of {self.name}")

    def share(self, rank: int, world: int) -> PictureStream:
        """One process' part: its own files where there are enough of them, else every `world`-th picture."""
        from datasets.distributed import split_dataset_by_node

        rows = split_dataset_by_node(self.rows, rank, world)
        return PictureStream(rows, self.column, self.image_processor, self.name)

    def set_epoch(self, epoch: int) -> None:
        self.rows.set_epoch(epoch)

    def state_dict(self) -> dict:
        return self.rows.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.rows.load_state_dict(state)


class SceneRows:
    """Scenes with label and evidence, drawn when they are read."""

    def __init__(self, count: int, seed: int, size: int):
        self.count, self.seed, self.size = count, seed, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> dict:
        scene = draw_scene(self.seed, row, self.size)
        return {"image": scene.image, "label": CLASSES[scene.label], "mask": scene.evidence}


def prepare(cell, image_processor, name: str) -> dict[str, torch.Tensor]:
    picture = read_cell(cell, name)
    return {"pixel_values": torch.as_tensor(image_processor(images=picture, return_tensors="pt")["pixel_values"])[0]}


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


def open_pictures(
    name: str, image_processor, config_name: str | None = None, split: str | None = None,
    image_column: str | None = None, streaming: bool = False, size: int | None = None, image_size: int = 64,
    seed: int = 0, buffer_size: int = 1000,
):  # fmt: skip
    """`Pictures`, or a `PictureStream` if `streaming`.

    Args:
        name: id of a data set of the Hub; a folder of pictures; a folder of `save_to_disk`; parquet files (a file, a
            folder or a pattern); or "scenes".
        config_name: of a Hub data set that has several.
        split: default train; files are told apart by names such as train-0.parquet and test-0.parquet.
        image_column: default the only one with pictures.
        size: uses this many pictures only; of the scenes, how many there are.
        image_size: of the scenes.
        seed: of the scenes, and of the order of a stream.
        buffer_size: pictures among which a stream is shuffled.
    """
    if image_processor is None:
        raise ExplainerError(
            "the classifier has no image processor, so pictures cannot be read for it; save one beside the classifier, "
            "or give it with image_processor=."
        )
    whole_number("dataset_size", size, 1)
    if name == "scenes":
        if streaming:
            raise ExplainerError("the scenes are drawn when they are read, so there is no stream; leave streaming out.")
        return Pictures(SceneRows(size or SCENES, seed, image_size), "image", image_processor, "the scenes")
    rows = open_rows(name, config_name, split, streaming)
    rows, column = as_pictures(rows, image_column, name)
    if not streaming:
        rows = rows.select(range(min(size, len(rows)))) if size else rows
        return Pictures(rows, column, image_processor, name)
    rows = rows.take(size) if size else rows
    return PictureStream(rows.shuffle(seed=seed, buffer_size=buffer_size), column, image_processor, name)


def open_rows(name: str, config_name: str | None, split: str | None, streaming: bool, labels: bool = False):
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


def as_pictures(rows, asked: str | None, name: str, keep: Sequence[str] = ()):
    """(rows of the column with the pictures, not decoded yet, and of those to keep; its name)."""
    import datasets

    if rows.features is None:  # a stream that has to be looked into
        rows = rows._resolve_features()
    features = rows.features
    found = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
    for wanted in filter(None, [asked, *keep]):
        if wanted not in features:
            raise ExplainerError(f"{name} has no column {wanted!r}; it has {', '.join(features)}.")
    if asked is None and len(found) != 1:
        what = f"several columns of pictures, {', '.join(found)}" if found else "no column of pictures"
        raise ExplainerError(f"{name} has {what}; name the one to use with image_column, out of {', '.join(features)}.")
    column = asked or found[0]
    try:
        return rows.select_columns([column, *keep]).cast_column(column, datasets.Image(decode=False)), column
    except Exception as error:
        kind = getattr(features[column], "dtype", None) or type(features[column]).__name__
        raise ExplainerError(
            f"column {column!r} of {name} holds {kind}, not pictures; name another with image_column, out of "
            f"{', '.join(features)}."
        ) from error


def hold_out(dataset, count: int | None, seed: int) -> tuple[Subset, Subset | None]:
    """(rows to train on, rows to judge by), chosen by the seed; by default 64, or a tenth if that is less."""
    total = len(dataset)
    count = min(HELD_OUT, total // 10) if count is None else count
    if not 0 <= count < max(1, total):
        raise ExplainerError(f"eval_size={count} of {total} pictures leaves none to train on; give less.")
    order = torch.randperm(total, generator=keyed(seed, 0, 0, HOLD_OUT)).tolist()
    kept = Subset(dataset, sorted(order[count:]))
    return kept, Subset(dataset, sorted(order[:count])) if count else None


def choose(dataset, count: int | None, seed: int):
    """`count` rows of a data set that is for evaluation only, chosen by the seed; of a stream the first ones."""
    count = HELD_OUT if count is None else count
    if count < 0:
        raise ExplainerError(f"eval_size={count}; give 0 or more.")
    if not count:
        return None
    if not hasattr(dataset, "__len__"):
        return list(itertools.islice(dataset, count))
    order = torch.randperm(len(dataset), generator=keyed(seed, 0, 0, HOLD_OUT)).tolist()
    return Subset(dataset, sorted(order[:count]))
