"""Any collection of pictures, without labels, as the rows that training reads: {"pixel_values": (3, H, W)}.

dataset = open_pictures("food101", image_processor, split="train")     # a data set of the Hub
dataset = open_pictures("my-pictures/", image_processor)               # a folder, in class folders or not
train_rows, eval_rows = hold_out(dataset, None, seed=0)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch.utils.data import Dataset, Subset

from ..jobs.randomness import keyed
from ..modeling.errors import ExplainerError
from .opening import open_columns, read_cell

HELD_OUT = 64  # pictures, or a tenth if that is less
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


def prepare(cell, image_processor, name: str) -> dict[str, torch.Tensor]:
    picture = read_cell(cell, name)
    return {"pixel_values": torch.as_tensor(image_processor(images=picture, return_tensors="pt")["pixel_values"])[0]}


def open_pictures(
    name: str, image_processor, config_name: str | None = None, split: str | None = None,
    image_column: str | None = None, streaming: bool = False, size: int | None = None, image_size: int = 64,
    seed: int = 0, buffer_size: int = 1000,
):  # fmt: skip
    """`Pictures`, or a `PictureStream` if `streaming`; the data set is named as `opening.open_columns` says.

    Args:
        split: default train.
        image_size: of the scenes.
        seed: of the scenes, and of the order of a stream.
        buffer_size: pictures among which a stream is shuffled.
    """
    if image_processor is None:
        raise ExplainerError(
            "the classifier has no image processor, so pictures cannot be read for it; save one beside the classifier, "
            "or give it with image_processor=."
        )
    if name == "scenes" and streaming:
        raise ExplainerError("the scenes are drawn when they are read, so there is no stream; leave streaming out.")
    rows, column, called = open_columns(
        name, config_name, [split], image_column, size, seed=seed, side=image_size, streaming=streaming
    )
    if not streaming:
        return Pictures(rows, column, image_processor, called)
    return PictureStream(rows.shuffle(seed=seed, buffer_size=buffer_size), column, image_processor, called)


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
