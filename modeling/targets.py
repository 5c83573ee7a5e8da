"""Which class is meant: from a label or a number to an index, and from what a call gives to a tensor."""

from __future__ import annotations

import difflib
import itertools
import operator
from collections.abc import Iterable

import torch

from .errors import ExplainerError


def target_index(target, id2label: dict[int, str], num_labels: int) -> int:
    if isinstance(target, str):
        exact = [i for i, label in id2label.items() if label == target]
        found = exact or [i for i, label in id2label.items() if target in map(str.strip, label.split(","))]
        if len(found) == 1:
            return target_index(found[0], id2label, num_labels)
        if found:
            several = ", ".join(f"{i} ({id2label[i]!r})" for i in found[:8])
            raise ExplainerError(f"target {target!r} names {len(found)} classes, {several}; give one of these indices.")
        nearest = nearest_labels(target, id2label)
        raise ExplainerError(
            f"unknown target {target!r}; nearest labels: {nearest}; or give an index below {num_labels}."
        )
    target = target.item() if getattr(target, "ndim", None) == 0 else target
    try:
        index = int(operator.index(target))
        if isinstance(target, bool) or not 0 <= index < num_labels:
            raise TypeError
    except TypeError:
        raise ExplainerError(
            f"target {target!r} is no class; give a label, or an integer from 0 to {num_labels - 1}."
        ) from None
    return index


def nearest_labels(target: str, id2label: dict[int, str]) -> str:
    names = {part.strip().lower(): label for label in id2label.values() for part in [label, *label.split(",")]}
    close = difflib.get_close_matches(target.lower(), names, n=3, cutoff=0.3) or list(names)[:3]
    return ", ".join(repr(label) for label in dict.fromkeys(names[c] for c in close))


def read_targets(targets, logits: torch.Tensor) -> torch.Tensor:
    """Classes of a call as (B,) or (B, T) on the logits' device: None is the prediction, one integer serves all."""
    batch, labels = logits.shape
    if targets is None:
        return logits.argmax(-1)
    expected = f"give None, one integer, {batch} of them, or ({batch}, T) for several per image"
    try:
        found = torch.as_tensor(targets, device=logits.device)
    except (TypeError, ValueError, RuntimeError):
        raise ExplainerError(f"targets {targets!r:.80} are no classes; {expected}.") from None
    if torch.compiler.is_compiling():
        return found.expand(batch) if found.ndim == 0 else found
    if found.is_floating_point() or found.dtype == torch.bool:
        raise ExplainerError(f"targets of type {found.dtype} are no classes; {expected}.")
    found = found.long().expand(batch) if found.ndim == 0 else found.long()
    if found.ndim not in (1, 2) or len(found) != batch or not found.numel():
        raise ExplainerError(f"targets of shape {tuple(found.shape)} for {batch} images; {expected}.")
    outside = found[(found < 0) | (found >= labels)]
    if len(outside):
        raise ExplainerError(f"target {int(outside[0])} is no class; give integers from 0 to {labels - 1}.")
    return found


# ---- targets and numbers ----


def targets_of(target, count: int | None, classifier):
    """The class indices of each picture, an iterator, or None for the prediction; `count` pictures, if known."""
    if target is None:
        return None
    if not is_list(target):
        return itertools.repeat(several(target, classifier))  # one for all, however many
    targets = [several(one, classifier) for one in as_list(target)]
    if count is not None and len(targets) != count:
        raise ExplainerError(
            f"{len(targets)} targets for {count} images; give one target for all, one per image, or a list of lists."
        )
    return iter(targets)


def several(target, classifier) -> list[int]:
    """The class indices of one picture's target or list of targets."""
    targets = as_list(target) if is_list(target) else [target]
    if any(is_list(t) for t in targets):
        raise ExplainerError(f"target {target!r:.60} is nested too deep; for one picture give a flat list of classes.")
    if not targets:
        raise ExplainerError("an empty list of targets was given; give at least one class, or leave target out.")
    return [classifier.target_index(t.item() if getattr(t, "ndim", None) == 0 else t) for t in targets]


def is_list(target) -> bool:
    """A list, tuple, range, array or tensor of targets; not one label, and not an array of no dimensions."""
    return isinstance(target, Iterable) and not isinstance(target, (str, bytes)) and getattr(target, "ndim", 1) > 0


def as_list(targets) -> list:
    return targets.tolist() if hasattr(targets, "tolist") else list(targets)


def check_predicted(targets: torch.Tensor, logits: torch.Tensor, explainer: str) -> None:
    """Refuses other classes than the prediction, for an explainer that knows no others."""
    prediction = logits.argmax(-1)
    if not (targets.view(len(targets), -1) == prediction[:, None]).all():
        raise ExplainerError(
            f"{explainer} explains the prediction only ({prediction.tolist()}), but was asked for {targets.tolist()}; "
            "leave targets out."
        )


def of_target(values: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """What `values` (B, num_labels) hold of each picture's class: (B,)."""
    return values.gather(1, targets[:, None])[:, 0]
