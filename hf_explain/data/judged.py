"""Pictures to judge methods by: as training reads them, with the true class and the evidence where they are known."""

from __future__ import annotations

import os

import numpy as np
import PIL.Image
import torch

from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from ..modeling.pictures import open_picture
from ..modeling.targets import target_index
from .opening import open_columns
from .scenes import CLASSES
from .unlabeled import Pictures

REPORTED = 10_000  # the seed of scenes that no training and no tuning sees


class Judged(Pictures):
    """Rows {"pixel_values": (3, H, W), "label": int or None, "mask": (H, W) bool or None}."""

    def __init__(self, rows, columns: dict[str, str], classifier: Classifier, name: str):
        super().__init__(rows, columns["image"], classifier.image_processor, name)
        self.columns, self.classes = columns, class_indices(rows, columns.get("label"), classifier, name)

    def read(self, row: dict, where: str) -> dict:
        found = super().read(row, where)
        label = self.classes(row[self.columns["label"]], where) if "label" in self.columns else None
        mask = self.as_seen(row[self.columns["mask"]]) if "mask" in self.columns else None
        size = found["pixel_values"].shape[-2:]
        if mask is not None and mask.shape != size:
            raise ExplainerError(
                f"the mask of {where} becomes {tuple(mask.shape)}, its picture {tuple(size)}; give masks of the "
                "pictures' own size."
            )
        return {**found, "label": label, "mask": mask}

    def as_seen(self, cell) -> torch.Tensor:
        """A mask where the image processor puts the picture: resized and cropped alike, without in-between values."""
        mask = np.asarray(cell) if not isinstance(cell, dict) else np.asarray(open_picture(cell).convert("L"))
        gray = PIL.Image.fromarray((mask.reshape(mask.shape[:2]) > 0).astype(np.uint8) * 255)
        plain = {"do_normalize": False, "do_rescale": False, "resample": PIL.Image.Resampling.NEAREST}
        seen = self.image_processor(images=gray.convert("RGB"), return_tensors="np", **plain)["pixel_values"][0]
        return torch.as_tensor(np.asarray(seen)[0] > 127)


def open_judged(
    name: str, classifier: Classifier, config_name: str | None = None, split: str | None = None,
    image_column: str | None = None, label_column: str | None = None, mask_column: str | None = None,
    size: int | None = None, seed: int = REPORTED,
) -> Judged:  # fmt: skip
    """The data set `name`, as `opening.open_columns` names them.

    Args:
        split: default test, and of a folder without one validation, and then what there is.
        label_column: true classes, as indices, labels of the classifier, or class labels of the data set.
        mask_column: pictures or arrays that are not 0 where the evidence is.
        seed: of the scenes, which are drawn in the size that the classifier sees; labels and evidence are known.
    """
    import datasets

    if classifier.image_processor is None:
        raise ExplainerError("the classifier has no image processor, so pictures cannot be read; save one beside it.")
    scenes = name == "scenes"
    if scenes:
        known = set(CLASSES) <= set(classifier.config.id2label.values())
        label_column, mask_column = "label" if known else None, "mask"  # else it is of something else: texture alone
    columns = {key: column for key, column in (("label", label_column), ("mask", mask_column)) if column}
    splits = [split or "test"] if split or not os.path.exists(name) else ["test", "validation", "train"]
    rows, columns["image"], called = open_columns(
        name, config_name, splits, image_column, size, seed=seed, side=side_seen(classifier) if scenes else 0,
        kept=list(columns.values()), other=mask_column, labels=True,
    )  # fmt: skip
    if not scenes and mask_column and isinstance(rows.features[mask_column], datasets.Image):
        rows = rows.cast_column(mask_column, datasets.Image(decode=False))
    return Judged(rows, columns, classifier, called)


def side_seen(classifier: Classifier) -> int:
    """The longer side of what the image processor makes of a picture."""
    blank = classifier.image_processor(images=np.zeros((64, 64, 3), np.uint8), return_tensors="np")
    return max(blank["pixel_values"].shape[-2:])


def class_indices(rows, column: str | None, classifier: Classifier, name: str):
    """A function from what the label column holds to the classifier's index."""
    id2label, count = classifier.config.id2label, classifier.num_labels
    names = getattr(getattr(rows, "features", {}).get(column), "names", None) if column else None
    if names is not None:
        try:
            known = [target_index(one, id2label, count) for one in names]
        except ExplainerError as error:
            if len(names) != count:
                raise ExplainerError(
                    f"the classes of {name} ({', '.join(names[:3])}, ...) are not those of the classifier "
                    f"({', '.join(list(id2label.values())[:3])}, ...); give a column with its labels."
                ) from error
            known = list(range(count))
        return lambda value, where: known[int(value)]

    def read(value, where):
        try:
            return target_index(value, id2label, count)
        except ExplainerError as error:
            raise ExplainerError(f"{where}: {error}") from error

    return read
