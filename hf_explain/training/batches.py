"""Which pictures a step gets: a pure function of seed and step for rows, a place in the stream for streams."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterable, Iterator

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..jobs.randomness import keyed
from ..modeling.errors import ExplainerError

ORDER = 100  # apart from what `objectives` draws with the same seed


def share(count: int, rank: int, world: int) -> range:
    """The contiguous part of range(count) that is process `rank`'s."""
    return range(rank * count // world, (rank + 1) * count // world)


class Order(Sampler):
    """The rows of each step: places step * batch, ... in an endless chain of permutations, one per epoch.

    So restarts, accumulation and the number of processes change nothing.

    >>> order = Order(count=5, seed=0, batch=4, steps=range(0, 5))
    >>> sorted(row for step in range(5) for row in order.rows(step)) == sorted([*range(5)] * 4)
    True

    Args:
        places: this process' places in the global batch; default all.
    """

    def __init__(self, count: int, seed: int, batch: int, steps: range, places: range | None = None):
        self.count, self.seed, self.batch, self.steps = count, seed, batch, steps
        self.places = range(batch) if places is None else places
        self.epochs: dict[int, list[int]] = {}

    def rows(self, step: int) -> list[int]:
        return [self.row(step, place) for place in self.places]

    def row(self, step: int, place: int) -> int:
        epoch, at = divmod(step * self.batch + place, self.count)
        if epoch not in self.epochs:
            shuffled = torch.randperm(self.count, generator=keyed(self.seed, epoch, 0, ORDER)).tolist()
            self.epochs = {epoch: shuffled}
        return self.epochs[epoch][at]

    def __iter__(self) -> Iterator[list[int]]:
        return map(self.rows, self.steps)

    def __len__(self) -> int:
        return len(self.steps)


class Shielded(Dataset):
    """A data set whose errors come as values: raised in a worker, their one sentence would arrive as a traceback."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __getitem__(self, row: int):
        try:
            return pixels_of(self.dataset[row])
        except ExplainerError as error:
            return error

    def __len__(self) -> int:
        return len(self.dataset)


def load(dataset, batches: Iterable[list[int]], num_workers: int) -> Iterator[torch.Tensor]:
    """(B, 3, H, W) of each list of rows."""
    loader = DataLoader(
        Shielded(dataset),
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=list,
        worker_init_fn=leave_signals_to_the_main_process,
        generator=torch.Generator(),  # else making an iterator would draw from everybody's
    )
    return stacked(iter(loader))


def stacked(read) -> Iterator[torch.Tensor]:
    """The workers end with the last batch, or with what breaks off: at exit they would ignore the signal to end."""
    try:
        yield from map(stack, read)
    finally:
        if end := getattr(read, "_shutdown_workers", None):  # torch has no public name for it
            end()


def leave_signals_to_the_main_process(worker: int) -> None:
    """Ctrl-C and job schedulers reach all processes of a group, but the step is finished with what the workers read."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def pixels_of(item) -> torch.Tensor:
    try:
        return item["pixel_values"]
    except (TypeError, KeyError, IndexError):
        raise ExplainerError(
            f"the data set holds a {type(item).__name__} without 'pixel_values'; each row must be a dict with what the "
            "classifier's image processor returns for one picture, (3, height, width)."
        ) from None


def stack(pictures: list) -> torch.Tensor:
    for picture in pictures:
        if isinstance(picture, ExplainerError):
            raise picture
    pictures = [torch.as_tensor(picture) for picture in pictures]
    shapes = {tuple(picture.shape) for picture in pictures}
    if len(shapes) > 1 or len(next(iter(shapes))) != 3:
        raise ExplainerError(
            f"pixel_values of one batch have the shapes {', '.join(map(str, sorted(shapes)))}, but (3, height, width), "
            "equal for all, is needed; use an image processor that resizes or crops to one size."
        )
    return torch.stack(pictures)


class Rows:
    """The batches of a data set with a length: `batch` pictures a step over all processes."""

    def __init__(self, dataset, seed: int, batch: int, steps: range, rank: int, world: int, num_workers: int):
        if not len(dataset):
            raise ExplainerError("the data set is empty; give one with pictures.")
        self.order = Order(len(dataset), seed, batch, steps, share(batch, rank, world))
        self.indices = getattr(dataset, "indices", None)  # of torch's Subset
        self.batches = load(dataset, self.order, num_workers)

    def __next__(self) -> torch.Tensor:
        return next(self.batches)

    def name(self, step: int, place: int) -> str:
        row = self.order.row(step, place)
        return f"row {self.indices[row] if self.indices else row} of the data set"

    def state(self):
        return None


class Stream:
    """This process' share of an iterable data set, `count` pictures a step, over and over.

    Args:
        state: of `state()`, to go on from.
        skip: pictures to pass over where the stream has no state of its own.
    """

    def __init__(self, stream, count: int, rank: int, world: int, state: dict | None = None, skip: int = 0):
        self.stream, self.every = share_stream(stream, rank, world)
        self.count, self.epoch = count, 0
        if state is not None:
            self.epoch = state["epoch"]
            self.stream.load_state_dict(state["stream"])
            skip = 0
        self.pictures = self.endless()
        for _ in range(skip):
            next(self.pictures)

    def endless(self) -> Iterator[torch.Tensor]:
        empty = 0
        while empty < 2:  # of the first epoch nothing may be left
            if hasattr(self.stream, "set_epoch"):
                self.stream.set_epoch(self.epoch)
            empty += 1
            for item in itertools.islice(iter(self.stream), *self.every):
                empty = 0
                yield pixels_of(item)
            self.epoch += 1
        raise ExplainerError(
            "the stream has no pictures for every process; give a data set with more, or fewer processes."
        )

    def __next__(self) -> torch.Tensor:
        return stack([next(self.pictures) for _ in range(self.count)])

    def name(self, step: int, place: int) -> str:
        return "of the stream"

    def state(self) -> dict | None:
        if not hasattr(self.stream, "state_dict"):
            return None
        return {"epoch": self.epoch, "stream": self.stream.state_dict()}


def share_stream(stream, rank: int, world: int):
    """(stream, slice of it) of one process; by shards where the stream can."""
    import datasets
    from datasets.distributed import split_dataset_by_node

    if isinstance(stream, datasets.IterableDataset):
        return split_dataset_by_node(stream, rank, world), (0, None, 1)
    if hasattr(stream, "share"):
        return stream.share(rank, world), (0, None, 1)
    return stream, (rank, None, world)
