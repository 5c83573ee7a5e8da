"""DiFull of the methods of a survey: the share of a map that stays in the one cell of a grid that can matter.

A classifier that looks at one cell of 2 x 2 pictures only is explained on the whole grid (arXiv 2205.10435), so what a
map says of the other cells is provably wrong. Grids are made of the survey's pictures that the classifier is sure of.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..localization.grid_scores import localization_score
from ..localization.grids import Grids, confident_pictures, explain_grids, make_grids
from ..methods.naming import read_method
from .methods import OF_EXPLAINERS
from .survey import file_of, write_part

FOLDER, SURE = "grids", (0.99, 0.9, 0.0)  # the least probability of a grid's pictures, as high as there are enough
AT_FINAL = ("grad_cam", "grad_cam_plus_plus", "layer_cam")  # as the paper has them; all others at the pixels
BY_NAME = (*AT_FINAL, "random")  # in the form of `inner_methods`
UNDEFINED = {
    **dict.fromkeys(OF_EXPLAINERS, "an explainer reads all hidden states at once, and no cell has those of a grid."),
    "attention_rollout": "attention does not reach from cell to cell.",
    "transformer_attribution": "attention does not reach from cell to cell.",
    "score_cam": "it shows the picture through maps of the whole grid.",
    "guided_grad_cam": "its factors are of different layers.",
}


def measure_grids(
    folder, classifier, rows, methods: dict[str, Callable], count: int, *, pictures: int, batch_size: int = 32,
    rank: int = 0, world: int = 1, progress=iter,
) -> None:  # fmt: skip
    """This process' share of the methods whose scores are not there yet, a part each.

    Args:
        count: of grids at most; fewer where the pictures are not enough.
        pictures: how many of `rows` grids are made of.
    """
    place = Path(folder) / FOLDER
    place.mkdir(exist_ok=True)
    defined = {name: read_method(name)[0] for name in methods if read_method(name)[0] not in UNDEFINED}
    missing = [name for name in defined if not (place / file_of(name)).exists()]
    if not missing[rank::world]:
        return
    grids = make_survey_grids(classifier, rows, count, pictures, batch_size)
    for name in progress(missing[rank::world]):
        base = defined[name]
        method, layer = base if base in BY_NAME else methods[name], "final" if base in AT_FINAL else "input"
        maps = explain_grids(classifier, grids, method, layer, batch_size=batch_size)
        scores = localization_score(maps, grids.cells, grids.n, grids.size)
        write_part(place / file_of(name), {"score": scores.values.numpy(), "empty": scores.empty.numpy()})


def make_survey_grids(classifier, rows, count: int, pictures: int, batch_size: int) -> Grids:
    x = torch.stack([rows[i]["pixel_values"] for i in range(pictures)])
    sure = confident_pictures(classifier, x, needed=4 * count, thresholds=SURE, batch_size=batch_size)
    return make_grids(x[sure.indices], sure.classes, count, kind="difull", fewer=True)


def read_grids(folder, methods) -> dict[str, dict[str, np.ndarray]]:
    """method -> "score" and "empty" of its maps."""
    import pyarrow.parquet

    found = {}
    for name in methods:
        path = Path(folder) / FOLDER / file_of(name)
        if path.exists():
            table = pyarrow.parquet.read_table(path)
            found[name] = {column: table[column].to_numpy() for column in table.column_names}
    return found
