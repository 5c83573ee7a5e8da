"""A learned explainer beside other methods, on pictures whose evidence is known."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import product

import numpy as np
import torch

from ..data.scenes import to_pixels
from ..faithfulness.case import order_at_random, predict
from ..faithfulness.intervals import interval, paired
from ..faithfulness.measurement import measure
from ..faithfulness.report import Report
from ..localization.evidence import average_precision, class_discrimination, pointing_game
from ..methods import METHODS
from ..methods.calling import attribute, attribute_with
from ..methods.smoothing import box
from ..training.refinement import refine

LABELS = {
    "learned": "learned",
    "learned_refined": "learned + refinement",
    "integrated_gradients": "integrated gradients",
    "integrated_gradients_smoothed": "smoothed integrated gradients",
    "integrated_gradients_refined": "smoothed integrated gradients + refinement",
    "occlusion": "occlusion",
    "gradient": "gradient",
    "exact_mask": "exact mask",
    "random": "random",
}
STARTS = {  # which method's maps another one begins with, and has not to make again
    "learned_refined": "learned",
    "integrated_gradients_smoothed": "integrated_gradients",
    "integrated_gradients_refined": "integrated_gradients_smoothed",
}
SMOOTHINGS = (3, 5, 9)
LEARNED, CURVES = ("learned", "learned_refined"), ("deletion", "insertion")
SCORES = ("average_precision", "pointing_game", "class_discrimination")  # of a map alone, without a reference


class Scenes:
    """Pictures of one seed as the classifier sees them, with the predicted class and where that class's texture is."""

    def __init__(self, classifier, images: np.ndarray, labels: np.ndarray, segments: np.ndarray, batch_size=128):
        self.classifier, self.batch_size = classifier, batch_size
        self.images, self.labels, self.segments = images, torch.as_tensor(labels), torch.as_tensor(segments)
        self.pixel_values = to_pixels(classifier, images)
        self.targets = predict(classifier, self.pixel_values, batch_size)
        evidence = self.segments == self.targets[:, None, None]
        self.found = evidence.flatten(1).any(1)  # a wrong prediction may be of a texture that is not there
        label = self.segments == self.labels[:, None, None]
        self.evidence = torch.where(self.found[:, None, None], evidence, label)

    def __len__(self):
        return len(self.labels)

    def second(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices of the pictures with a second texture beside the predicted one, and each's largest such class."""
        areas = torch.stack([(self.segments == c).flatten(1).sum(1) for c in range(self.classifier.num_labels)], 1)
        areas[torch.arange(len(self)), self.targets] = 0
        chosen = ((areas.amax(1) > 0) & self.found).nonzero().flatten()
        return chosen, areas[chosen].argmax(1)


def choose_smoothing(classifier, tune: Scenes, references) -> int:
    """The box of `SMOOTHINGS` whose integrated gradients score best on pictures that are for tuning."""
    maps = plain("integrated_gradients", tune.batch_size)(classifier, tune.pixel_values, tune.targets)

    def loss(size):
        reports = [score(tune, box(maps, size), reference, budgets=11).mean() for reference in references]
        return sum(r["deletion"] - r["insertion"] for r in reports)

    return min(SMOOTHINGS, key=loss)


def methods_to_compare(explainer, tune: Scenes, references, refinement: dict) -> dict[str, Callable[..., torch.Tensor]]:
    """Name -> function (classifier, pixel_values, targets) -> maps, each in its fair setting."""
    size = choose_smoothing(tune.classifier, tune, references)
    batch_size, side = tune.batch_size, min(tune.pixel_values.shape[-2:])

    def refined(start):
        return lambda c, x, t: refine(c, x, start(c, x, t), t, batch_size=batch_size, **refinement).cpu()

    remember = lru_cache(maxsize=2)  # of all pictures, and of those with a second class; tensors are keys by identity
    learned, integrated = remember(attribute_with(explainer)), remember(plain("integrated_gradients", batch_size))
    smoothed = remember(lambda c, x, t: box(integrated(c, x, t), size))

    return {
        "learned": learned,
        "learned_refined": refined(learned),
        "integrated_gradients": integrated,
        "integrated_gradients_smoothed": smoothed,
        "integrated_gradients_refined": refined(smoothed),
        "occlusion": plain("occlusion", batch_size, window=max(2, side // 8), stride=max(1, side // 16)),
        "gradient": plain("gradient", batch_size),
        "random": METHODS["random"],  # of all pictures at once, so that no two of them share their noise
    }


def plain(name: str, batch_size: int, **options) -> Callable[..., torch.Tensor]:
    """A method of `METHODS` in batches."""
    return partial(attribute, METHODS[name], batch_size=batch_size, options=options)


def score(scenes: Scenes, maps: torch.Tensor, reference, budgets: int) -> Report:
    return measure(
        scenes.classifier, scenes.pixel_values, maps, scenes.targets,
        reference=reference, budgets=budgets, batch_size=scenes.batch_size,
    )  # fmt: skip


def compare(explainer, scenes: Scenes, tune: Scenes, references, *, budgets: int = 21, refinement=None, progress=iter):
    """name -> {"ms", "references": {name: {"deletion", "insertion", "curves"}}, and the localization scores}.

    Args:
        references: removed pixels become these, one measurement each.
        progress: wraps the iterator over the methods, as tqdm.
    """
    classifier, found = scenes.classifier, scenes.found
    methods = methods_to_compare(explainer, tune, references, refinement or {})
    chosen, second = scenes.second()  # pictures with a second class
    masks = scenes.segments[chosen] == second[:, None, None]
    results: dict[str, dict] = {}
    maps_of: dict[str, torch.Tensor] = {}
    for name in progress([*methods, "exact_mask"]):
        if name == "exact_mask":
            maps, others, took = scenes.evidence.float(), None, None
        else:
            started = time.perf_counter()
            maps = methods[name](classifier, scenes.pixel_values, scenes.targets)
            took = 1000 * (time.perf_counter() - started) / len(scenes)
            took += results[STARTS[name]]["ms"] if name in STARTS else 0
            several = len(chosen) and not name.endswith("refined")  # refining the maps of two classes is dear
            others = methods[name](classifier, scenes.pixel_values[chosen], second) if several else None
        maps, constant = order_at_random(maps)
        entry: dict = {"label": LABELS[name], "ms": took, "constant": constant, "references": {}}
        for reference in references:
            report = score(scenes, maps, reference, budgets)
            areas = {key: area.tolist() for key, area in report.areas.items()}
            curves = {key: curve.tolist() for key, curve in report.curves.items()}
            entry["references"][str(reference)] = areas | {"curves": curves, "protocol": report.protocol}
        for key, localized in (("average_precision", average_precision), ("pointing_game", pointing_game)):
            entry[key] = localized(maps[found], scenes.evidence[found]).tolist()
        if others is not None:
            told = class_discrimination(maps[chosen], others, scenes.evidence[chosen], masks)
            entry["class_discrimination"] = told.tolist()
        results[name], maps_of[name] = entry, maps
    return results, maps_of


# ---- summaries: of one run, or of several runs of one backbone ----


def summarize(runs: list[dict]) -> tuple[dict, list[dict]]:
    """Means with intervals of every method, and paired differences of the learned maps against the others."""
    methods = {name: summarize_method([run[name] for run in runs]) for name in runs[0]}
    references = next(iter(methods.values()))["references"]
    ours, others = [m for m in LEARNED if m in methods], [m for m in methods if m not in LEARNED]
    comparisons = [
        {"method": one, "against": other, "reference": r, "curve": c, "difference": difference(runs, one, other, r, c)}
        for one, other, r, c in product(ours, others, references, CURVES)
    ]
    return methods, comparisons


def difference(runs: list[dict], method: str, against: str, reference: str, curve: str) -> dict[str, float]:
    """By how much a method is better than another, picture by picture, with its interval."""
    own, other = ([run[name]["references"][reference][curve] for run in runs] for name in (method, against))
    return paired(other, own) if curve == "deletion" else paired(own, other)


def summarize_method(runs: list[dict]) -> dict:
    first, times = runs[0], [run["ms"] for run in runs]
    entry: dict = {
        "label": first["label"],
        "ms": None if times[0] is None else float(np.median(times)),
        "constant": sum(run.get("constant", 0) for run in runs),
        "references": {},
    }
    for reference in first["references"]:
        here = [run["references"][reference] for run in runs]
        entry["references"][reference] = {key: interval([h[key] for h in here]) for key in CURVES}
        if all("curves" in h for h in here):
            entry["references"][reference]["curves"] = summarize_curves([h["curves"] for h in here])
    return entry | {key: interval([run[key] for run in runs]) for key in SCORES if all(run.get(key) for run in runs)}


def summarize_curves(runs: list[dict]) -> dict[str, list[float]]:
    """Mean curve and its 95 % band by the normal approximation, point by point."""
    out: dict[str, list[float]] = {}
    for key in CURVES:
        curve = np.concatenate([run[key] for run in runs])
        mean, width = curve.mean(0), 1.96 * curve.std(0) / len(curve) ** 0.5
        out |= {key: mean.tolist(), f"{key}_low": (mean - width).tolist(), f"{key}_high": (mean + width).tolist()}
    return out
