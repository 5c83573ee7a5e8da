"""How faithful is a map? Curves of a class's score while pixels are removed, per picture, with their protocol.

Deletion removes the most important pixels first: the faster the class's probability falls, the smaller the area under
the curve, the better. Insertion starts from the reference and brings the most important pixels back first: larger is
better.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import overload

import torch

from .intervals import interval, paired
from .modeling.classifier import Classifier, as_classifier
from .modeling.perturbation import ExplainerError, order_each, reference_image
from .modeling.targets import read_targets
from .protocols import PRESETS, Curve, Protocol, is_suite, read_protocol

__all__ = ["PRESETS", "Curve", "Protocol", "Report", "better_by", "check_maps", "measure", "read_protocol"]

PER_PICTURE = ("blur", "rise_blur", "minimum")  # references that depend on the picture


@dataclass(frozen=True)
class Report:
    """What was measured, and how.

    Args:
        areas: name -> area under the curve of each picture, (B,).
        curves: name -> (B, points).
        targets: the classes, (B,).
        protocol: as plain values.
    """

    areas: dict[str, torch.Tensor]
    curves: dict[str, torch.Tensor]
    targets: torch.Tensor
    protocol: dict

    @property
    def deletion(self) -> torch.Tensor:
        return self.area("deletion")

    @property
    def insertion(self) -> torch.Tensor:
        return self.area("insertion")

    def area(self, name: str) -> torch.Tensor:
        if name not in self.areas:
            raise ExplainerError(
                f"preset {self.protocol['name']!r} measures no {name}; it has {', '.join(self.areas)}."
            )
        return self.areas[name]

    def mean(self) -> dict[str, float]:
        return {name: float(area.mean()) for name, area in self.areas.items()}

    def intervals(self, seed: int = 0) -> dict[str, dict[str, float]]:
        """name -> {"mean", "low", "high"}: 95 % by a bootstrap over the pictures."""
        return {name: interval(area.numpy(), seed) for name, area in self.areas.items()}


def better_by(ours: Report, theirs: Report, seed: int = 0) -> dict[str, dict[str, float]]:
    """name -> mean difference ours - theirs, picture by picture, with its 95 % interval."""
    same = ours.protocol == theirs.protocol and torch.equal(ours.targets, theirs.targets)
    if not same:
        raise ExplainerError(
            "the two reports are not of one protocol, of the same pictures and classes; measure both maps in the "
            "same way."
        )
    return {name: paired(ours.areas[name].numpy(), theirs.areas[name].numpy(), seed) for name in ours.areas}


@overload
def measure(
    classifier, pixel_values: torch.Tensor, attributions: torch.Tensor, targets=..., preset: str | Protocol = ..., *,
    image_processor=..., batch_size: int = ..., dtype: torch.dtype | None = ..., **changes,
) -> Report: ...  # fmt: skip


@overload
def measure(
    classifier, pixel_values: torch.Tensor, attributions: Mapping[str, torch.Tensor], targets=...,
    preset: str | Protocol = ..., *, image_processor=..., batch_size: int = ..., dtype: torch.dtype | None = ...,
    **changes,
) -> dict[str, Report]: ...  # fmt: skip


@torch.no_grad()
def measure(
    classifier,
    pixel_values: torch.Tensor,
    attributions: torch.Tensor | Mapping[str, torch.Tensor],
    targets=None,
    preset: str | Protocol = "aha",
    *,
    image_processor=None,
    batch_size: int = 32,
    dtype: torch.dtype | None = None,
    **changes,
) -> Report | dict[str, Report]:
    """Deletion, insertion and the like, of maps (B, H, W) of pictures (B, 3, H, W).

    Args:
        classifier: a `Classifier`, or a model together with image_processor=.
        attributions: maps, or {name: maps} of several methods, which share what does not depend on the map; then the
            result is {name: report}.
        targets: the classes the maps are of; default the prediction. Some presets score the true class, which must be
            given.
        preset: a name of `PRESETS` or a `Protocol` of one's own; `changes` (reference=, budgets=, seed=, ...) alter
            single values and are reported.
        batch_size: pictures per forward.
        dtype: the classifier's forwards are autocast to it: faster, and off by up to some thousandths.
    """
    protocol = read_protocol(preset, changes)
    classifier = as_classifier(classifier, image_processor)
    kind: type[Engine] = Engine
    if protocol.reference == "drop":
        from .dropping import DroppingEngine, by_patches

        kind, protocol = DroppingEngine, by_patches(protocol, classifier)
    maps = dict(attributions) if isinstance(attributions, Mapping) else {"": attributions}
    for one in maps.values():
        check_maps(pixel_values, one)
    if protocol.label == "given" and targets is None:
        raise ExplainerError(
            f"preset {protocol.name!r} scores the true class; give targets=, one label per picture, or "
            "label='explained' for the prediction."
        )
    count = len(pixel_values)
    if targets is not None:
        targets = read_targets(targets, torch.empty(count, classifier.num_labels, device=classifier.device))
        if targets.ndim != 1:
            raise ExplainerError(f"targets of shape {tuple(targets.shape)}; give one class per map, {count} of them.")
    if is_suite(protocol):
        from .suite import measure_metrics

        if targets is None:
            targets = torch.cat([classifier(x.to(classifier.device)) for x in pixel_values.split(batch_size)]).argmax(
                -1
            )
        found = measure_metrics(classifier, pixel_values, maps, targets, protocol, batch_size)
        return found if isinstance(attributions, Mapping) else found[""]
    engine = kind(classifier, protocol, batch_size, dtype)
    blocks: dict[str, list[dict[str, torch.Tensor]]] = {name: [] for name in maps}
    seen = []
    for at in torch.arange(count).split(batch_size):
        given = None if targets is None else targets[at.to(targets.device)]
        found, classes = engine.block(pixel_values[at], {name: one[at] for name, one in maps.items()}, given)
        seen.append(classes)
        for name, curves in found.items():
            blocks[name].append(curves)
    description = protocol.describe() | {"size": list(pixel_values.shape[-2:]), "pictures": count}
    if dtype is not None:
        description["dtype"] = str(dtype).removeprefix("torch.")
    cuts = protocol.cuts(*pixel_values.shape[-2:])
    reports = {}
    for name, parts in blocks.items():
        curves = {curve.name: torch.cat([part[curve.name] for part in parts]) for curve in protocol.curves}
        areas = {key: area_under(protocol, cuts, curve) for key, curve in curves.items()}
        reports[name] = Report(areas, curves, torch.cat(seen), description)
    return reports if isinstance(attributions, Mapping) else reports[""]


def area_under(protocol: Protocol, cuts: list[int], curve: torch.Tensor) -> torch.Tensor:
    points = protocol.spacing(cuts)[len(cuts) - curve.shape[1] :]  # without the clean point if it has none
    area = torch.trapezoid(curve.double(), torch.tensor(points, dtype=torch.float64)).float()
    return 100 * area if protocol.area == "percent" else area


class Engine:
    """The forwards of a protocol, block by block; what no map changes is forwarded once."""

    def __init__(self, classifier: Classifier, protocol: Protocol, batch_size: int, dtype: torch.dtype | None = None):
        self.classifier, self.protocol, self.batch_size, self.dtype = classifier, protocol, batch_size, dtype
        self.constant: dict = {}  # reference -> logits (1, labels) of the picture that is nothing but it

    def block(self, pictures: torch.Tensor, maps: Mapping[str, torch.Tensor], targets: torch.Tensor | None):
        """{name: {curve: (n, points)}} on the CPU, and the classes, of at most `batch_size` pictures."""
        protocol, (height, width) = self.protocol, pictures.shape[-2:]
        pictures = pictures.to(self.classifier.device, self.classifier.dtype)
        total = protocol.units(height, width)
        needed = visited(protocol, protocol.cuts(height, width), total)
        ends = {count for states in needed.values() for _, _, count in states}
        clean: torch.Tensor | None = None
        if targets is None or 0 in ends:
            clean = self.forward(pictures)
            targets = clean.argmax(-1) if targets is None else targets
        blanks = {key: self.reference(pictures, key) for key in {key for s in needed.values() for key, _, _ in s}}
        results = {}
        empty = {key: self.blank(blank, key) for key, blank in blanks.items()} if total in ends else {}
        for name, one in maps.items():
            order = removal_order(one.to(pictures.device), protocol)
            logits: dict[tuple[str, str, int], torch.Tensor] = {}
            for key, side in dict.fromkeys((key, side) for states in needed.values() for key, side, _ in states):
                counts = {c for states in needed.values() for k, s, c in states if (k, s) == (key, side)}
                first = order if side == "most" else order.flip(1)
                between = sorted(counts - {0, total})
                for cut, found in self.walk(pictures, blanks[key], first, between, total):
                    logits[key, side, cut] = found
                if clean is not None:
                    logits[key, side, 0] = clean
                if key in empty:
                    logits[key, side, total] = empty[key]
            results[name] = {
                curve.name: torch.stack(
                    [self.score(logits[state], targets, curve.score) for state in needed[curve.name]], 1
                ).cpu()
                for curve in protocol.curves
            }
        return results, targets.cpu()

    def walk(self, pictures, blank, order, counts: list[int], total: int) -> Iterator[tuple[int, torch.Tensor]]:
        """(count, logits) with the first `count` units of `order` gone, for rising counts.

        From point to point only what goes is written. Where the pictures are fewer than a batch, several points share
        a forward.
        """
        current = pictures.clone()
        rows = order.shape[1] if order.shape[1] == pictures[0].numel() else pictures[0, 0].numel()
        flat, other = current.view(len(current), -1, rows), blank.reshape(len(current), -1, rows)
        per_unit, done = order.shape[1] // total, 0
        together = max(1, self.batch_size // len(pictures))
        for group in (counts[i : i + together] for i in range(0, len(counts), together)):
            states = []
            for count in group:
                index = order[:, None, done : count * per_unit].expand(-1, flat.shape[1], -1)
                flat.scatter_(2, index, other.gather(2, index))
                done = count * per_unit
                states.append(current.clone() if len(group) > 1 else current)
            logits = self.forward(torch.cat(states) if len(group) > 1 else current)
            yield from zip(group, logits.split(len(pictures)), strict=True)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        lower = torch.autocast(pictures.device.type, self.dtype) if self.dtype else nullcontext()
        with lower:
            return self.classifier(pictures)

    def reference(self, pictures: torch.Tensor, key: str) -> torch.Tensor:
        """What removed pixels become; random ones are the same for every picture."""
        name = self.protocol.start if key == "start" else self.protocol.reference
        assert name is not None
        alike = pictures if name in PER_PICTURE else pictures[:1]
        generator = torch.Generator().manual_seed(self.protocol.seed)
        return reference_image(alike, self.classifier.pixel_space, name, generator).expand_as(pictures)

    def blank(self, blank: torch.Tensor, key: str) -> torch.Tensor:
        """Logits of the reference alone."""
        name = self.protocol.start if key == "start" else self.protocol.reference
        if name in PER_PICTURE:
            return self.forward(blank)
        size = tuple(blank.shape[-2:])
        if (name, size) not in self.constant:
            self.constant[name, size] = self.forward(blank[:1].contiguous())
        return self.constant[name, size].expand(len(blank), -1)

    def score(self, logits: torch.Tensor, targets: torch.Tensor, score: str) -> torch.Tensor:
        if score == "indicator":
            return (logits.argmax(-1) == targets).float()
        if score == "logit":
            return logits.float().gather(1, targets[:, None])[:, 0]
        probability = self.classifier.scores(logits).gather(1, targets[:, None])[:, 0]
        return -probability.clamp(min=torch.finfo(torch.float32).tiny).log() if score == "surprise" else probability


def visited(protocol: Protocol, cuts: list[int], total: int) -> dict[str, list[tuple[str, str, int]]]:
    """curve -> its points as (reference, which end of the order is gone, how many units).

    So curves that show the classifier the same pictures share them: what insertion has brought back is what the
    removal of the least important has left.
    """
    states = {}
    for curve in protocol.curves:
        if curve.kind == "insertion":
            key = "reference" if protocol.start is None else "start"
            points = [(key, "least", total - cut) for cut in cuts]
            states[curve.name] = points if protocol.clean else points[:-1]
        else:
            points = [("reference", "most" if curve.kind == "deletion" else "least", cut) for cut in cuts]
            states[curve.name] = points if protocol.clean else points[1:]
    return states


def removal_order(attributions: torch.Tensor, protocol: Protocol) -> torch.Tensor:
    """Indices of pixels, or of channel entries, from the most to the least important: (n, P) or (n, 3 P)."""
    if protocol.level == "pixel":
        return order_each(attributions.flatten(1), protocol.seed)
    if protocol.level == "entry":
        return order_each(attributions[:, None].expand(-1, 3, -1, -1).flatten(1), protocol.seed)
    (height, width), side = attributions.shape[1:], protocol.patch or 1
    patches = torch.nn.functional.avg_pool2d(attributions[:, None].float(), side).flatten(1)
    order = order_each(patches, protocol.seed)
    pixels = torch.arange(height * width, device=order.device).view(height // side, side, width // side, side)
    inside = pixels.transpose(1, 2).reshape(-1, side * side)  # of each patch
    return inside[order].flatten(1)


def check_maps(pixel_values: torch.Tensor, attributions: torch.Tensor) -> None:
    if attributions.shape != (len(pixel_values), *pixel_values.shape[-2:]):
        raise ExplainerError(
            f"attributions of shape {tuple(attributions.shape)} for pixel_values {tuple(pixel_values.shape)}; give one "
            "map (H, W) per picture, of its size."
        )
    for index, one in enumerate(attributions):
        if not torch.isfinite(one).all():
            raise ExplainerError(
                f"the attribution of image {index} holds NaN or infinite values, so it ranks nothing; mend it first."
            )
        if one.min() == one.max():
            raise ExplainerError(
                f"the attribution of image {index} is constant, so it ranks nothing; was the explainer trained?"
            )
