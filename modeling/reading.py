"""What a person gives the pipeline, one picture or many, read in batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import PIL.Image
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from .errors import ExplainerError
from .pictures import open_picture

SINGLE = (str, bytes, bytearray, Mapping, np.ndarray, torch.Tensor, PIL.Image.Image)


def is_single(inputs) -> bool:
    if callable(getattr(inputs, "read", None)):  # an open file, which also iterates over lines
        return True
    return isinstance(inputs, SINGLE) or not (isinstance(inputs, Iterable) or hasattr(inputs, "__getitem__"))


def is_sized(inputs) -> bool:
    """Whether its pictures can be counted and read in any order."""
    indexed = hasattr(inputs, "__len__") and hasattr(inputs, "__getitem__")
    return indexed and not isinstance(inputs, IterableDataset)  # of which torch says that it has both


def pictures_of(inputs):
    """`inputs`, or the pictures in it if it is a data set with columns."""
    if not hasattr(inputs, "column_names"):
        return inputs
    if inputs.column_names is None:  # streamed, and not known before the first row
        return (row[image_column(list(row))] for row in inputs)
    name = image_column(inputs.column_names, getattr(inputs, "features", None) or {})
    return inputs[name] if is_sized(inputs) else (row[name] for row in inputs)


def image_column(names, features=()) -> str:
    of_type = [name for name in features if type(features[name]).__name__ == "Image"]
    known = [name for name in ("image", "img", "picture") if name in names]
    found = known or of_type
    if not found or (not known and len(of_type) > 1):
        came = f"columns {', '.join(map(str, names))}" if names else "no columns"
        which = "several pictures" if of_type else "no 'image'"
        raise ExplainerError(f"the data set has {came} and so {which}; give one column: ds['its name'].")
    return found[0]


def read_picture(source, image_processor) -> dict:
    """The picture, and the pixel values (1, 3, H, W) its processor makes of it."""
    picture = open_picture(source)
    pixel_values = image_processor(images=picture, return_tensors="pt")["pixel_values"]
    return {"pixel_values": torch.as_tensor(pixel_values).float(), "picture": picture}


def read_batches(inputs, image_processor, batch_size: int, num_workers: int):
    """Lists of up to `batch_size` read pictures, in order; an iterator is read no further than needed."""
    sized = is_sized(inputs)
    reader = (ReadItems if sized else ReadStream)(inputs, image_processor)
    loader = DataLoader(
        reader,
        batch_size=batch_size,
        num_workers=num_workers if sized else 0,  # an iterator cannot be divided among processes
        collate_fn=list,
        generator=torch.Generator(),  # else it draws from the global one
    )
    count = 0
    for items in loader:
        for index, item in enumerate(items, start=count):
            if isinstance(item, ExplainerError):
                raise ExplainerError(f"picture {index} of the input: {item}") from item
        count += len(items)
        yield items


def try_to_read(source, image_processor):
    """An error is raised by the reader of the batch: one that crosses from a process loses its sentence."""
    try:
        return read_picture(source, image_processor)
    except ExplainerError as error:
        return error


class ReadItems(Dataset):
    def __init__(self, items, image_processor):
        self.items, self.image_processor = items, image_processor

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        try:
            item = self.items[index]
        except ExplainerError as error:  # of items that open their pictures themselves
            return error
        return try_to_read(item, self.image_processor)


class ReadStream(IterableDataset):
    def __init__(self, items, image_processor):
        self.items, self.image_processor = items, image_processor

    def __iter__(self):
        return (try_to_read(item, self.image_processor) for item in self.items)
