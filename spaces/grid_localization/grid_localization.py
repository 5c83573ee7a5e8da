"""Localization in grids of pictures as a metric of `evaluate`: does the map of one cell's class keep to that cell?

All measuring is done by `hf_explain.localization`; this file only brings it into the form of `evaluate`.
"""

import datasets
import evaluate
import torch

from hf_explain import ExplainerError
from hf_explain.faithfulness.intervals import interval
from hf_explain.localization import average_precision, localization_score, pointing_game
from hf_explain.localization.grid_scores import cell_masks

_DESCRIPTION = """\
Pictures of different classes are put together to grids of n x n, and a map is made of the class of one cell. The
localization score is the share of the map's positive mass that lies in that cell; the pointing game and the average
precision look at the order of the pixels only.
"""

_KWARGS_DESCRIPTION = """
Args:
    attributions: signed maps of whole grids (B, H, W), higher = more important.
    targets: the cell each map is asked to find, (B,), counted row by row from 0; with labels=, the class instead.
    labels: the classes of the cells, (B, n * n); the class in targets must be in one of them exactly.
    masks: which pixels are the evidence, (B, H, W), for the pointing game and the average precision; by default the
        cell's.
    n: of `compute`: cells per side, 2 by default.
    smooth: of `compute`: side of a Gaussian (odd) that smooths the maps for the localization score; by default none.
    seed: of `compute`: of the order among equal pixels.
    per_picture: of `compute`: also the scores of single maps.
Returns:
    "localization", "pointing_game" and "average_precision": means over the maps, and as NAME_low and NAME_high a 95 %
    interval by a bootstrap over the maps; with per_picture NAME_per_picture; "empty", how many maps had no positive
    mass and so scored 0; and "protocol", how it was measured, with what is to be expected by chance.
Examples:
    >>> metric = evaluate.load("./spaces/grid_localization")
    >>> metric.compute(attributions=maps, targets=cells, n=2)["localization"]
"""

_CITATION = """\
@inproceedings{rao2022towards,
  title={Towards Better Understanding Attribution Methods},
  author={Rao, Sukrut and B{\\"o}hle, Moritz and Schiele, Bernt},
  booktitle={IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year={2022}
}
"""

NOT_GIVEN = -1  # stands for labels that are not needed, since a column cannot be left out once the writer exists
INPUTS = ("attributions", "targets", "labels", "masks")
OPTIONS = ("n", "smooth", "seed", "per_picture")


class GridLocalization(evaluate.Metric):
    """Mean localization scores of maps of grids, with intervals and the protocol they were measured by."""

    def _info(self):
        info = evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=features(448, 448, masked=False),
            reference_urls=["https://arxiv.org/abs/2205.10435"],
            license="apache-2.0",
        )
        info.format = "torch"  # as lists it would take ten times as long; the constructor refuses it beside arrays
        return info

    def add(self, *, attributions=None, targets=None, labels=None, masks=None):
        """Adds one map (H, W), its cell or class, and, if given, the cells' classes (n * n,) and a mask (H, W)."""
        one = {"attributions": attributions, "targets": targets, "labels": labels, "masks": masks}
        self.add_batch(**{name: None if value is None else torch.as_tensor(value)[None] for name, value in one.items()})

    def add_batch(self, *, attributions=None, targets=None, labels=None, masks=None):
        """Adds maps (B, H, W) of one size, their cells or classes (B,) and, if given, labels and masks."""
        if attributions is None or targets is None:
            missing = "attributions" if attributions is None else "targets"
            raise ExplainerError(f"{missing} is missing; give maps (B, H, W) together with their cells (B,).")
        maps = torch.as_tensor(attributions).detach().float().cpu()
        if maps.ndim != 3:
            raise ExplainerError(f"attributions of shape {tuple(maps.shape)}; give one map (H, W) per grid, (B, H, W).")
        cells, labels = find_cells(targets, labels, len(maps))
        evidence = torch.zeros(len(maps), 1, 1) if masks is None else torch.as_tensor(masks).cpu()
        if masks is not None and (evidence.shape != maps.shape or not evidence.flatten(1).any(1).all()):
            raise ExplainerError(
                f"masks of shape {tuple(evidence.shape)} for maps {tuple(maps.shape)}; give one of its map's size for "
                "each, with at least one pixel in it, or none at all."
            )
        wanted = features(*maps.shape[1:], masked=masks is not None)
        if self.writer is None:
            self.info.features = wanted
        elif self.info.features != wanted:
            raise ExplainerError(
                f"maps of {maps.shape[1]} x {maps.shape[2]} with{'out' if masks is None else ''} masks after others of "
                f"{' x '.join(map(str, self.info.features['attributions'].shape))} or with other inputs; compute those "
                "first."
            )
        columns = {"attributions": maps, "targets": cells, "labels": labels, "masks": (evidence > 0).byte()}
        super().add_batch(**{name: column.numpy() for name, column in columns.items()})

    def compute(self, **given):
        """The scores of what was added before, or of what is given here."""
        if "predictions" in given:  # by evaluate.combine, which hands the arguments of all metrics to each
            given = {name: value for name, value in given.items() if name in (*INPUTS, *OPTIONS)}
        unknown = set(given) - {*INPUTS, *OPTIONS}
        if unknown:  # said before everything that was added is used up
            raise ExplainerError(
                f"unknown argument {', '.join(sorted(unknown))}; give {', '.join((*INPUTS, *OPTIONS))}."
            )
        return super().compute(**{**dict.fromkeys(INPUTS), **given})

    def _compute(self, attributions, targets, labels, masks, n=2, smooth=None, seed=0, per_picture=False):
        named = labels[:, 0] != NOT_GIVEN
        if named.any() and labels.shape[1] != n * n:
            raise ExplainerError(f"labels of {labels.shape[1]} cells for n={n}; give n * n of them, row by row.")
        found = localization_score(attributions, targets, n, smooth=smooth)
        given = masks.shape == attributions.shape
        evidence = masks.bool() if given else cell_masks(targets, n, attributions.shape[1:])
        scores = {
            "localization": found.values,
            "pointing_game": pointing_game(attributions, evidence, seed),
            "average_precision": average_precision(attributions, evidence, seed),
        }
        result = {}
        for name, values in scores.items():
            ends = interval(values.numpy())
            result |= {name: ends["mean"], f"{name}_low": ends["low"], f"{name}_high": ends["high"]}
            if per_picture:
                result[f"{name}_per_picture"] = values.tolist()
        protocol = {
            "n": n,
            "size": list(attributions.shape[1:]),
            "maps": len(attributions),
            "smooth": smooth,
            "seed": seed,
            "evidence": "masks" if given else "cells",
            "chance": {"localization": 1 / n**2, "pointing_game": float(evidence.float().mean())},
        }
        return result | {"empty": int(found.empty.sum()), "protocol": protocol}


def features(height, width, masked):
    """What is stored of maps of this size; a single pixel stands for a mask that is not given."""
    return datasets.Features(
        {
            "attributions": datasets.Array2D((height, width), "float32"),
            "targets": datasets.Value("int64"),
            "labels": datasets.List(datasets.Value("int64")),
            "masks": datasets.Array2D((height, width) if masked else (1, 1), "uint8"),
        }
    )


def find_cells(targets, labels, count):
    """(cells (count,), labels (count, n * n)) of what a call gives."""
    targets = torch.as_tensor(targets).cpu()
    if targets.is_floating_point() or targets.dtype == torch.bool or targets.shape != (count,):
        raise ExplainerError(
            f"targets {targets.dtype} of shape {tuple(targets.shape)} for {count} maps; give one cell (with labels=, "
            "one class) per map, as integers."
        )
    if labels is None:
        return targets.long(), torch.full((count, 1), NOT_GIVEN)
    labels = torch.as_tensor(labels).cpu().long()
    if labels.ndim != 2 or len(labels) != count:
        raise ExplainerError(f"labels of shape {tuple(labels.shape)} for {count} maps; give (B, n * n), row by row.")
    same = labels == targets[:, None]
    wrong = (same.sum(1) != 1).nonzero().flatten().tolist()
    if wrong:
        at = wrong[0]
        raise ExplainerError(
            f"class {int(targets[at])} of map {at} is in {int(same[at].sum())} of its cells {labels[at].tolist()}, but "
            "it must be in one; give the cell as target, and no labels."
        )
    return same.long().argmax(1), labels
