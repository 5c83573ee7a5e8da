"""LTX's second stage: the explainer fine-tuned on one picture, and then forgotten.

A copy of the head learns, picture by picture, from the pretrained weights. The mask that is returned is the one of the
lowest loss among all steps, the first of which is the pretrained one; the preset of the release chooses by the metric
instead, which is then partly a choice on what is measured.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from transformers.utils import logging

from ..faithfulness.measurement import measure
from ..modeling.errors import ExplainerError
from ..modeling.model_call import COPY_OF
from ..modeling.modeling_ltx import LtxExplainerForImageClassification
from ..modeling.targets import read_targets
from .objectives import LTX_OBJECTIVES, LtxObjective

SELECTIONS = ("loss", "positive", "last")


@dataclass(frozen=True)
class Tuned:
    """Maps and how they came about.

    Args:
        maps: (B, H, W).
        losses: of the masks of every step, (B, steps + 1); the first is that of the pretrained explainer.
        chosen: the step whose mask is returned, (B,).
        targets: the classes, (B,).
    """

    maps: torch.Tensor
    losses: torch.Tensor
    chosen: torch.Tensor
    targets: torch.Tensor


def tune(
    explainer: LtxExplainerForImageClassification, pixel_values: torch.Tensor, targets=None, *, steps: int = 25,
    learning_rate: float = 1e-5, objective: str | LtxObjective = "default", select: str = "loss",
) -> Tuned:  # fmt: skip
    """Maps (B, H, W) of a copy of the explainer that is tuned on each picture by itself; the explainer stays as it is.

    >>> from hf_explain import LtxExplainerForImageClassification
    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> explainer = LtxExplainerForImageClassification.from_classifier(random_classifier())
    >>> tune(explainer, torch.rand(1, 3, 32, 32), steps=1).losses.shape
    torch.Size([1, 2])

    Args:
        targets: the classes explained; the prediction by default, never the truth.
        steps: of Adam.
        objective: a name of `LTX_OBJECTIVES`, or one's own.
        select: "loss", the lowest; "positive", the lowest area of the preset ltx under the explained class, as the
            release does with the true one; "last".
    """
    if not isinstance(explainer, LtxExplainerForImageClassification):
        raise ExplainerError(
            f"{type(explainer).__name__} is not tuned per picture, only LtxExplainerForImageClassification is; refine "
            "its maps with hf_explain.training.refinement."
        )
    if steps < 0 or not learning_rate > 0 or select not in SELECTIONS:
        raise ExplainerError(
            f"steps={steps}, learning_rate={learning_rate}, select={select!r}; give 0 or more steps, a positive rate "
            f"and one of {', '.join(SELECTIONS)}."
        )
    chosen = LTX_OBJECTIVES[objective] if isinstance(objective, str) else objective
    student = copy.copy(explainer)  # shares the classifier, not the head
    student._modules = dict(explainer._modules) | {"head": copy.deepcopy(explainer.head)}
    COPY_OF[student.head.trunk] = explainer.head.trunk
    pixel_values = pixel_values.detach().to(explainer.device)
    with torch.no_grad():
        targets = read_targets(targets, torch.cat([explainer.read(x)[0] for x in pixel_values.split(32)]))
    if targets.ndim != 1:
        raise ExplainerError(f"targets of shape {tuple(targets.shape)}; give one class per picture.")
    if not explainer.config.class_conditional:
        explainer(pixel_values[:1], targets=targets[:1])  # refuses another class than the prediction
    start = {name: value.detach().clone() for name, value in explainer.head.state_dict().items()}
    maps, losses, best = [], [], []
    with torch.inference_mode(False), torch.enable_grad():
        pairs = list(zip(pixel_values.split(1), targets.split(1), strict=True))
        for picture, target in logging.tqdm(
            pairs, desc="tuning", leave=False, disable=None if len(pairs) > 1 else True
        ):
            student.head.load_state_dict(start)
            found, mask, step = tune_one(student, picture.clone(), target.clone(), steps, learning_rate, chosen, select)
            maps.append(mask)
            losses.append(found)
            best.append(step)
    return Tuned(torch.cat(maps), torch.stack(losses), torch.tensor(best), targets)


def tune_one(student, picture, target, steps: int, learning_rate: float, objective: LtxObjective, select: str):
    """(losses (steps + 1,), the chosen mask (1, H, W), its step)."""
    trained = [p for p in student.head.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, learning_rate)
    losses, masks = [], []
    for step in range(steps + 1):
        loss = objective.of(student, picture, target)[0].mean()
        with torch.no_grad():
            masks.append(student.map_of(picture, [], target[:, None])[:, 0])
        losses.append(float(loss.detach()))
        if step < steps:
            gradients = torch.autograd.grad(loss, trained, allow_unused=True)
            for parameter, gradient in zip(trained, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
    found = torch.tensor(losses)
    best = steps if select == "last" else int(found.argmin())
    if select == "positive":
        areas = [measure(student.classifier, picture, mask.float(), target, "ltx").areas["positive"] for mask in masks]
        best = int(torch.cat(areas).argmin())
    return found, masks[best].float(), best
