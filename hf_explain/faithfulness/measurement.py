"""How faithful is a map? Curves of a class's score while pixels are removed, per picture, with their protocol.

Deletion removes the most important pixels first: the faster the class's probability falls, the smaller the area under
the curve, the better. Insertion starts from the reference and brings the most important pixels back first: larger is
better.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import overload

import torch

from ..modeling.classifier import Classifier, as_classifier
from ..modeling.errors import ExplainerError
from ..modeling.targets import read_targets
from .case import check_maps
from .curves import Engine, area_under
from .protocols import Protocol, read_protocol
from .report import Report


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

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> classifier, pictures, maps = random_classifier(), torch.rand(2, 3, 32, 32), torch.rand(2, 32, 32)
    >>> report = measure(classifier, pictures, maps, preset="aha", reference="blur", budgets=5)
    >>> report.deletion.shape, report.curves["insertion"].shape, report.protocol["reference"]
    (torch.Size([2]), torch.Size([2, 5]), 'blur')

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
    maps = dict(attributions) if isinstance(attributions, Mapping) else {"": attributions}
    for one in maps.values():
        check_maps(pixel_values, one)
    targets = known_targets(classifier, protocol, targets, len(pixel_values))
    if protocol.is_suite:
        from .suite import measure_metrics

        reports = measure_metrics(classifier, pixel_values, maps, targets, protocol, batch_size)
    else:
        reports = measure_curves(classifier, pixel_values, maps, targets, protocol, batch_size, dtype)
    return reports if isinstance(attributions, Mapping) else reports[""]


def known_targets(classifier: Classifier, protocol: Protocol, targets, count: int) -> torch.Tensor | None:
    """The classes of `count` pictures, (count,), or None where the prediction is meant."""
    if targets is None:
        if protocol.label == "given":
            raise ExplainerError(
                f"preset {protocol.name!r} scores the true class; give targets=, one label per picture, or "
                "label='explained' for the prediction."
            )
        return None
    targets = read_targets(targets, torch.empty(count, classifier.num_labels, device=classifier.device))
    if targets.ndim != 1:
        raise ExplainerError(f"targets of shape {tuple(targets.shape)}; give one class per map, {count} of them.")
    return targets


def measure_curves(
    classifier: Classifier, pixel_values: torch.Tensor, maps: Mapping[str, torch.Tensor],
    targets: torch.Tensor | None, protocol: Protocol, batch_size: int, dtype: torch.dtype | None,
) -> dict[str, Report]:  # fmt: skip
    """A report of every method's maps, one batch of pictures after the other."""
    engine = find_engine(classifier, protocol, batch_size, dtype)
    protocol, blocks, seen = engine.protocol, [], []
    for at in torch.arange(len(pixel_values)).split(batch_size):
        given = None if targets is None else targets[at.to(targets.device)]
        found, classes = engine.block(pixel_values[at], {name: one[at] for name, one in maps.items()}, given)
        blocks.append(found)
        seen.append(classes)
    description = protocol.describe() | {"size": list(pixel_values.shape[-2:]), "pictures": len(pixel_values)}
    if dtype is not None:
        description["dtype"] = str(dtype).removeprefix("torch.")
    cuts = protocol.cuts(*pixel_values.shape[-2:])
    reports = {}
    for name in maps:
        curves = {curve.name: torch.cat([block[name][curve.name] for block in blocks]) for curve in protocol.curves}
        areas = {key: area_under(protocol, cuts, curve) for key, curve in curves.items()}
        reports[name] = Report(areas, curves, torch.cat(seen), description)
    return reports


def find_engine(classifier: Classifier, protocol: Protocol, batch_size: int, dtype: torch.dtype | None) -> Engine:
    if protocol.reference != "drop":
        return Engine(classifier, protocol, batch_size, dtype)
    from .dropping import DroppingEngine, by_patches

    return DroppingEngine(classifier, by_patches(protocol, classifier), batch_size, dtype)
