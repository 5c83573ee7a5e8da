"""A learned explainer beside other methods, on pictures whose evidence is known: values and their summary."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
import torch

from ..data.scenes import to_pixels
from ..faithfulness.case import order_at_random, predict
from ..faithfulness.intervals import interval, paired
from ..faithfulness.measurement import measure
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
        reports = [score(classifier, tune, box(maps, size), reference, budgets=11).mean() for reference in references]
        return sum(r["deletion"] - r["insertion"] for r in reports)

    return min(SMOOTHINGS, key=loss)


def methods_to_compare(explainer, tune: Scenes, references, refinement: dict) -> dict[str, Callable[..., torch.Tensor]]:
    """Name -> function (classifier, pixel_values, targets) -> maps, each in its fair setting."""
    size = choose_smoothing(tune.classifier, tune, references)
    batch_size = tune.batch_size

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
        "occlusion": plain("occlusion", batch_size),
        "gradient": plain("gradient", batch_size),
        "random": METHODS["random"],  # of all pictures at once, so that no two of them share their noise
    }


def plain(name: str, batch_size: int) -> Callable[..., torch.Tensor]:
    """A method of `METHODS` as it is, in batches."""
    return partial(attribute, METHODS[name], batch_size=batch_size)


def score(classifier, scenes: Scenes, maps: torch.Tensor, reference, budgets: int = 21):
    return measure(
        classifier, scenes.pixel_values, maps, scenes.targets,
        reference=reference, budgets=budgets, batch_size=scenes.batch_size,
    )  # fmt: skip


def compare(explainer, scenes: Scenes, tune: Scenes, references, *, budgets: int = 21, refinement=None, progress=iter):
    """name -> {"ms", "references": {name: {"deletion", "insertion", "curves"}}, and the localization scores}.

    Args:
        references: removed pixels become these, one measurement each.
        progress: wraps the iterator over the methods, as tqdm.
    """
    classifier = scenes.classifier
    methods = methods_to_compare(explainer, tune, references, refinement or {})
    chosen, second = scenes.second()
    crowded = scenes.pixel_values[chosen]  # pictures with a second class
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
            others = methods[name](classifier, crowded, second) if several else None
        maps, constant = order_at_random(maps)
        entry: dict = {"label": LABELS[name], "ms": took, "constant": constant, "references": {}}
        for reference in references:
            report = score(classifier, scenes, maps, reference, budgets)
            entry["references"][str(reference)] = {
                "deletion": report.deletion.tolist(),
                "insertion": report.insertion.tolist(),
                "curves": {key: curve.tolist() for key, curve in report.curves.items()},
                "protocol": report.protocol,
            }
        found = scenes.found
        entry["average_precision"] = average_precision(maps[found], scenes.evidence[found]).tolist()
        entry["pointing_game"] = pointing_game(maps[found], scenes.evidence[found]).tolist()
        if others is not None:
            masks = scenes.segments[chosen] == second[:, None, None]
            values = class_discrimination(maps[chosen], others, scenes.evidence[chosen], masks)
            entry["class_discrimination"] = values.tolist()
        results[name], maps_of[name] = entry, maps
    return results, maps_of


# ---- summaries: of one run, or of several runs of one backbone ----


def summarize(runs: list[dict]) -> tuple[dict, list[dict]]:
    """Means with intervals of every method, and paired differences of the learned maps against the others."""
    first = runs[0]
    methods = {name: summarize_method([run[name] for run in runs]) for name in first}
    comparisons = []
    for ours in ("learned", "learned_refined"):
        for other in first:
            if ours not in first or other in ("learned", "learned_refined"):
                continue
            for reference in first[ours]["references"]:
                for curve, sign in (("deletion", -1), ("insertion", 1)):
                    a, b = ([run[m]["references"][reference][curve] for run in runs] for m in (ours, other))
                    signed = [[sign * np.asarray(v) for v in values] for values in (a, b)]
                    difference = paired(signed[0], signed[1])
                    comparisons.append(
                        {
                            "method": ours,
                            "against": other,
                            "reference": reference,
                            "curve": curve,
                            "difference": difference,
                        }
                    )
    return methods, comparisons


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
        entry["references"][reference] = {key: interval([h[key] for h in here]) for key in ("deletion", "insertion")}
        if all("curves" in h for h in here):
            curves = {key: np.concatenate([h["curves"][key] for h in here]) for key in ("deletion", "insertion")}
            entry["references"][reference]["curves"] = summarize_curves(curves)
    for key in SCORES:
        if all(run.get(key) for run in runs):
            entry[key] = interval([run[key] for run in runs])
    return entry


def summarize_curves(curves: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Mean curve and its 95 % band by the normal approximation, point by point."""
    out: dict[str, list[float]] = {}
    for key, curve in curves.items():
        mean, width = curve.mean(0), 1.96 * curve.std(0) / len(curve) ** 0.5
        out |= {key: mean.tolist(), f"{key}_low": (mean - width).tolist(), f"{key}_high": (mean + width).tolist()}
    return out
