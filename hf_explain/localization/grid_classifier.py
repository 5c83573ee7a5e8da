"""What a classifier sees of a grid of n x n pictures: the three settings of arXiv 2205.10435.

GridPG: the whole grid, so a map may be right outside the cell that is asked for. DiFull: that cell alone, so nothing
outside can matter, and attributions there are provably wrong. DiPart: the whole grid, but the head sees only that part
of the last map that lies over the cell.
"""

from __future__ import annotations

import copy
from functools import partial

import torch

from ..methods.layers import Layer, LayerClassifier, at_layer, find_layers, first_tensor, noise_picture, put, record
from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from ..modeling.feature_maps import to_map
from .grid_scores import cut, cut_all, stitch

KINDS = ("gridpg", "difull", "dipart")


class GridClassifier:
    """A classifier of grids in one of the settings `KINDS`, called like a `Classifier` by any method.

    >>> GridClassifier.__call__.__doc__
    'Logits (B, num_labels) of the head that looks at `cell`.'

    Args:
        kind: "gridpg", "difull" or "dipart".
        cell: that is asked for, counted row by row; in GridPG there is one head for all.
    """

    def __init__(self, classifier: Classifier, kind: str, n: int = 2, cell: int = 0):
        if kind not in KINDS:
            raise ExplainerError(f"no classifier sees grids as {kind!r}; choose from {', '.join(KINDS)}.")
        self.classifier, self.kind, self.n, self.cell = classifier, kind, n, cell
        self.model, self.pixel_space, self.config = classifier.model, classifier.pixel_space, classifier.config
        self.scores, self.num_labels, self.id2label = classifier.scores, classifier.num_labels, classifier.id2label
        self.dtype, self.device = classifier.dtype, classifier.device
        self.pooled = find_pooled(classifier) if kind == "dipart" else None

    def at_cell(self, cell: int) -> GridClassifier:
        """The same for another cell."""
        other = copy.copy(self)
        other.cell = cell
        return other

    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Logits (B, num_labels) of the head that looks at `cell`."""
        if self.kind == "difull":
            return self.classifier(cut(pixel_values, self.n, self.cell))
        try:
            if self.pooled is None:
                return self.classifier(pixel_values)
            with at_layer(self.model, self.pooled, partial(self.keep_cell, self.pooled, pixel_values.shape[-2:])):
                return self.classifier(pixel_values)
        except ExplainerError as error:
            height, width = pixel_values.shape[-2:]
            raise ExplainerError(
                f"{self.kind} shows {type(self.model).__name__} whole grids of {height} x {width}, which it does not "
                f"take; make grids of kind='difull', which shows every cell alone ({str(error).rstrip('.')})."
            ) from error

    def keep_cell(self, layer: Layer, size, module, inputs, output):
        """The last map with the cell's part in the place of every part: what pools to the same, and fits what follows.

        A map of half the size would not: PVT-v2 has noted the size before.
        """
        maps = to_map(None, [first_tensor(output)], 0, layer.feature, size)
        if maps.shape[2] % self.n or maps.shape[3] % self.n:
            raise ExplainerError(
                f"its last map is {maps.shape[2]} x {maps.shape[3]}, which {self.n} x {self.n} cells do not divide"
            )
        return put(output, cut(maps, self.n, self.cell).repeat(1, 1, self.n, self.n), layer.feature)

    def at_layer(self, layer: Layer, pixel_values: torch.Tensor, batch_size: int) -> LayerClassifier:
        """The rest of it after a layer, whose map is of the whole grid in every setting."""
        if self.kind != "difull":
            return LayerClassifier(self, layer, pixel_values)
        cells = cut_all(pixel_values, self.n).split(batch_size)
        maps = stitch(torch.cat([record(self.classifier, layer, some) for some in cells]), self.n)
        return CellLayerClassifier(self, layer, pixel_values, maps)


class CellLayerClassifier(LayerClassifier):
    """After a layer of DiFull: cells went there alone, and of the whole grid's map only one cell's part goes on."""

    def __init__(self, grid: GridClassifier, layer: Layer, pixel_values: torch.Tensor, maps: torch.Tensor):
        super().__init__(grid.classifier, layer, cut(pixel_values, grid.n, grid.cell), maps)
        self.n, self.cell = grid.n, grid.cell

    def __call__(self, maps: torch.Tensor) -> torch.Tensor:
        return super().__call__(cut(maps, self.n, self.cell))


@torch.no_grad()
def find_pooled(classifier: Classifier) -> Layer:
    """The final layer, if the head pools it: neither moving its cells nor other special tokens change the logits."""
    layer, noise = find_layers(classifier)["final"], noise_picture(classifier, classifier.size)
    assert layer is not None
    rest, maps = LayerClassifier(classifier, layer, noise), record(classifier, layer, noise)
    given, moved = rest(maps), rest(maps.flip(2, 3).roll(1, 3))
    beside = LayerClassifier(classifier, layer, noise.flip(3), maps)(maps)  # another picture's special tokens
    effect = (rest(torch.zeros_like(maps)) - given).abs().max()
    if max((moved - given).abs().max(), (beside - given).abs().max()) > 1e-3 * effect:
        raise ExplainerError(
            f"dipart needs a head that pools the last map, cell by cell alike, which that of "
            f"{type(classifier.model).__name__} does not; make grids of kind='difull'."
        )
    return layer
