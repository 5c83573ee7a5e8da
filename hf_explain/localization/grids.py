"""Grids of n x n pictures: does the map of one cell's class keep to that cell (arXiv 2205.10435)?

Which pictures, how they are put together, and the maps of all of them. What the classifier sees of a grid is in
`grid_classifier`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..methods.calling import attribute_with
from ..methods.inner import SEEDED, attribute_at
from ..methods.layers import find_layers
from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from ..modeling.modeling_explainer import ExplainerForImageClassification
from .grid_classifier import KINDS, GridClassifier
from .grid_scores import stitch

PER_CELL = "difull_per_cell"  # our variant for learned explainers, see `explain_cells`
REPEATED = ("difull", "dipart")  # kinds whose last cell repeats the class of the first


# ---- which pictures ----


@dataclass(frozen=True)
class Confident:
    """Pictures a classifier is sure of: their `indices`, their `classes`, the least probability, and how many had any.

    Args:
        counts: pictures per threshold that was looked at.
    """

    indices: torch.Tensor
    classes: torch.Tensor
    threshold: float
    counts: dict[float, int]


@torch.no_grad()
def confident_pictures(
    classifier, pixel_values: torch.Tensor, labels=None, needed: int = 1, thresholds=(0.99, 0.9), batch_size: int = 32
) -> Confident:
    """The pictures whose predicted class, which must be the label if labels are given, is at least 0.99 probable.

    Where fewer than `needed` are, the next of `thresholds` is taken, and if there are none left, that is an error.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> confident_pictures(random_classifier(), torch.rand(4, 3, 32, 32), needed=2, thresholds=(0.1,)).indices
    tensor([0, 1, 2, 3])
    """
    device = classifier.device
    scores = torch.cat([classifier.scores(classifier(x.to(device))).cpu() for x in pixel_values.split(batch_size)])
    best, classes = scores.max(1)
    right = torch.ones_like(classes, dtype=torch.bool) if labels is None else classes == torch.as_tensor(labels)
    counts: dict[float, int] = {}
    for threshold in thresholds:
        indices = (right & (best >= threshold)).nonzero().flatten()
        counts[threshold] = len(indices)
        if len(indices) >= needed:
            return Confident(indices, classes[indices], threshold, counts)
    found = ", ".join(f"{count} with {threshold}" for threshold, count in counts.items())
    raise ExplainerError(
        f"of {len(pixel_values)} pictures the classifier is sure of {found}, but {needed} are needed; give more "
        "pictures, or lower thresholds."
    )


# ---- how they are put together ----


@dataclass(frozen=True)
class Grids:
    """G grids of pictures. What is scored, S maps, is one cell of all grids, then the next: `cells` and `targets`.

    Args:
        pixel_values: (N, 3, H, W), of which the grids are made when they are asked for.
        rows, classes: (G, n * n), whose picture and which class is in each cell, row by row.
    """

    pixel_values: torch.Tensor
    rows: torch.Tensor
    classes: torch.Tensor
    n: int
    kind: str

    def __len__(self) -> int:
        return len(self.rows)

    def pictures(self, which=slice(None)) -> torch.Tensor:
        """(B, 3, nH, nW) of the grids `which`."""
        return stitch(self.pixel_values[self.rows[which].flatten()], self.n)

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.pixel_values.shape[-2:]
        return self.n * height, self.n * width

    @property
    def scored(self) -> list[int]:
        """The cells whose maps are scored: all, or the two corners of one class."""
        last = self.n**2 - 1
        return [0, last] if self.kind in REPEATED else list(range(last + 1))

    @property
    def cells(self) -> torch.Tensor:
        return torch.tensor(self.scored).repeat_interleave(len(self))

    @property
    def targets(self) -> torch.Tensor:
        return self.classes[:, self.scored].T.flatten()


def make_grids(
    pixel_values: torch.Tensor,
    classes,
    count: int,
    n: int = 2,
    kind: str = "gridpg",
    seed: int = 0,
    fewer: bool = False,
) -> Grids:
    """`count` grids of pictures (N, 3, H, W) with their predicted classes (N,), each picture used once.

    The classes of a grid are all different; of "difull" and "dipart" the last cell repeats the class of the first.
    Where the pictures are not enough, that is an error, or with `fewer` there are fewer grids.

    >>> grids = make_grids(torch.rand(12, 3, 8, 8), torch.arange(12) % 6, count=2)
    >>> grids.pictures().shape, len(grids.targets)
    (torch.Size([2, 3, 16, 16]), 8)
    """
    classes = torch.as_tensor(classes)
    if kind not in (*KINDS, PER_CELL) or n < 2 or count < 1:
        kinds = ", ".join((*KINDS, PER_CELL))
        raise ExplainerError(f"kind={kind!r}, n={n}, count={count}; choose a kind from {kinds}, n >= 2 and count >= 1.")
    if pixel_values.ndim != 4 or classes.shape != pixel_values.shape[:1]:
        raise ExplainerError(
            f"pixel_values {tuple(pixel_values.shape)} and classes {tuple(classes.shape)}; give (N, 3, H, W) and (N,)."
        )
    random = torch.Generator().manual_seed(seed)
    left = {c: (classes == c).nonzero().flatten() for c in classes.unique().tolist()}
    left = {c: rows[torch.randperm(len(rows), generator=random)].tolist() for c, rows in left.items()}
    drawn: list[list[int]] = []
    for _ in range(count):
        chosen = draw_classes(left, n * n, kind in REPEATED, random)
        if chosen is None and fewer and drawn:
            break
        if chosen is None:
            or_fewer = f", or count={len(drawn)}" if drawn else " of more classes"
            raise ExplainerError(
                f"{len(classes)} pictures of {len(left)} classes are enough for {len(drawn)} {n} x {n} grids, each "
                f"picture used once, but {count} were asked for; give more pictures{or_fewer}."
            )
        drawn.append([left[c].pop() for c in chosen])
    rows = torch.tensor(drawn, dtype=torch.long).view(len(drawn), n * n)
    return Grids(pixel_values, rows, classes[rows], n, kind)


def draw_classes(left: dict[int, list], count: int, repeated: bool, random: torch.Generator) -> list[int] | None:
    """Classes of one grid, those with more pictures left being likelier; None if too few are left."""
    chosen: list[int] = []
    while len(chosen) < count - repeated:
        least = 2 if repeated and not chosen else 1  # the first class comes twice
        weights = {c: len(rows) for c, rows in left.items() if len(rows) >= least and c not in chosen}
        if not weights:
            return None
        at = int(torch.multinomial(torch.tensor(list(weights.values()), dtype=torch.double), 1, generator=random))
        chosen.append(list(weights)[at])
    return [*chosen, chosen[0]] if repeated else chosen


# ---- maps of all grids ----


def explain_grids(
    classifier: Classifier,
    grids: Grids,
    method="input_x_gradient",
    layer="input",
    cells: Sequence[int] | None = None,
    batch_size: int = 32,
    **options,
) -> torch.Tensor:
    """Signed maps (S, h, w) of a method at a layer ("input", "middle", "final") of all that is scored.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> grids = make_grids(torch.rand(12, 3, 32, 32), torch.arange(12) % 6, count=2, n=2, kind="gridpg")
    >>> explain_grids(random_classifier("resnet"), grids, "grad_cam", "final").shape
    torch.Size([8, 4, 4])

    Args:
        method: a name or a function as of `attribute_at`, or a learned explainer (GridPG only; see `explain_cells`).
        cells: some of `grids.scored`, one after the other; all by default.
        batch_size: pictures per forward: whole grids, or in DiFull cells.
    """
    if isinstance(method, ExplainerForImageClassification):
        if grids.kind != "gridpg" or layer != "input":
            raise ExplainerError(
                f"{grids.kind} at layer {layer!r} is not defined for {type(method).__name__}, which reads all hidden "
                "states at once; make grids of kind='gridpg', or of kind='difull_per_cell' for explain_cells(...)."
            )
        method = attribute_with(method, batch_size)
    grid_classifier = GridClassifier(classifier, grids.kind, grids.n)
    where = find_layers(classifier)[layer] if layer in ("middle", "final") else layer  # not once for every batch
    maps: list[torch.Tensor] = []
    settings = dict(options)
    for cell in grids.scored if cells is None else cells:
        for rows in torch.arange(len(grids)).split(max(1, batch_size)):
            x, t = grids.pictures(rows), grids.classes[rows, cell]
            if method in SEEDED:
                settings["seed"] = options.get("seed", 0) + len(maps)
            found = attribute_at(grid_classifier.at_cell(cell), x, t, method, where, batch_size=batch_size, **settings)
            maps.append(found.cpu())
    return torch.cat(maps)


@torch.no_grad()
def explain_cells(explainer, grids: Grids, batch_size: int = 32) -> torch.Tensor:
    """`difull_per_cell`, our variant for learned explainers: maps (S, H, W) of grids whose cells were explained alone.

    Every cell's picture is explained for the one class that is asked for, and the stitched map is standardized as a
    whole. So this says whether an explainer's values, compared between pictures, are higher where the class is; the
    paper's DiFull asks what a method does with impossible pixels, and the two have no number in common.

    >>> from hf_explain import RankingExplainerForImageClassification
    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> explainer = RankingExplainerForImageClassification.from_classifier(random_classifier(), preset="tiny")
    >>> grids = make_grids(torch.rand(12, 3, 32, 32), torch.arange(12) % 6, count=2, n=2, kind="difull_per_cell")
    >>> explain_cells(explainer, grids).shape
    torch.Size([8, 64, 64])
    """
    if grids.kind != PER_CELL:
        raise ExplainerError(f"the grids are of kind {grids.kind!r}; make them with kind='difull_per_cell'.")
    explain, maps = attribute_with(explainer, batch_size), []
    for cell in grids.scored:
        for rows in torch.arange(len(grids)).split(max(1, batch_size // grids.n**2)):
            x = grids.pixel_values[grids.rows[rows].flatten()]
            t = grids.classes[rows, cell].repeat_interleave(grids.n**2)
            whole = stitch(explain(None, x, t)[:, None].float(), grids.n)[:, 0]
            flat = whole.flatten(1)
            scale = flat.std(1).clamp(min=torch.finfo(torch.float32).tiny)
            maps.append((whole - flat.mean(1)[:, None, None]) / scale[:, None, None])
    return torch.cat(maps)
