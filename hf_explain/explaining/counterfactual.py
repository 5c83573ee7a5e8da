"""What would have to change for the classifier to say another class? The picture, moved along that class's pullback."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..methods.semantic_pullback import Once, need_space, signed_colors, stride
from ..methods.soft_backward import Rules
from ..modeling.classifier import as_classifier
from ..modeling.errors import ExplainerError
from ..modeling.targets import of_target, read_targets

HALVINGS = 8  # of a step that does not raise the logit, before the picture is left where it is


@dataclass(frozen=True)
class Counterfactual:
    """Pictures on their way to a class.

    Args:
        pixel_values: the moved pictures, (B, 3, H, W).
        displacement: how far each color moved, of -1 to 1, (B, 3, H, W).
        logits: of the class, at the start and after each step, (B, steps + 1). They never fall.
        probabilities: the same of its score.
        targets: the classes, (B,).
        reached: where the class is the prediction at the end, (B,) bool.
    """

    pixel_values: torch.Tensor
    displacement: torch.Tensor
    logits: torch.Tensor
    probabilities: torch.Tensor
    targets: torch.Tensor
    reached: torch.Tensor


def counterfactual(
    classifier,
    pixel_values: torch.Tensor,
    targets,
    *,
    steps: int = 5,
    length: float = 20.0,
    clip: bool = True,
    rules: Rules | None = None,
    image_processor=None,
    batch_size: int = 32,
) -> Counterfactual:
    """Moves pictures in `steps` steps along the semantic pullback of a class, taken anew at every step.

    A step that would not raise the class's logit is halved until it does; if none does, the picture stays.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> moved = counterfactual(random_classifier(), torch.rand(2, 3, 32, 32), targets=3, steps=2)
    >>> moved.pixel_values.shape, moved.logits.shape, bool((moved.logits.diff(dim=1) >= 0).all())
    (torch.Size([2, 3, 32, 32]), torch.Size([2, 3]), True)

    Args:
        classifier: a `Classifier`, a Hub id, or a model together with image_processor=.
        targets: the classes wanted, an index or one per picture.
        steps, length: the length is that of each step for 3 x 224 x 224 values, and is scaled by the picture's size.
        clip: colors stay colors, from -1 to 1.
        rules: temperatures of the backward pass.
        batch_size: pictures per forward and backward.
    """
    if steps < 1 or not length > 0:
        raise ExplainerError(f"steps={steps} and length={length}; give at least 1 step of a positive length.")
    if targets is None:
        raise ExplainerError("targets is None; give the class each picture is to move to.")
    classifier = as_classifier(classifier, image_processor)
    space, once = need_space(classifier), Once(classifier, rules)
    parts = []
    with torch.inference_mode(False):
        pixels = pixel_values.detach().clone().to(classifier.device, classifier.dtype)
        like = torch.empty(len(pixels), classifier.num_labels, device=pixels.device)
        targets = read_targets(targets, like).clone()
        if targets.ndim != 1:
            raise ExplainerError(f"targets of shape {tuple(targets.shape)}; give one class per picture.")
        for x, t in zip(pixels.split(batch_size), targets.split(batch_size), strict=True):
            parts.append(move(once, signed_colors(space, x.float()), t, steps, length, clip))
    once.tell()
    moved, way, logits, probabilities, reached = (torch.cat(part) for part in zip(*parts, strict=True))
    return Counterfactual(moved, way, logits, probabilities, targets, reached)


def move(once: Once, start: torch.Tensor, targets: torch.Tensor, steps: int, length: float, clip: bool):
    here, path = start, [outcome(once, start, targets)]
    for _ in range(steps):
        here, found = climb(once, here, targets, path[-1], stride(once(here, targets), length), clip)
        path.append(found)
    logits, probabilities, predicted = (torch.stack(values, 1) for values in zip(*path, strict=True))
    moved = once.space.from_rgb((here + 1) / 2)
    return moved, here - start, logits, probabilities, predicted[:, -1] == targets


@torch.no_grad()
def climb(once, here, targets, before: tuple, step, clip: bool) -> tuple[torch.Tensor, tuple]:
    """The pictures a step further, as long a one as raises the logit, and what they are; unmoved where none does.

    Args:
        before: what the pictures are `here`.
    """
    share = torch.ones(len(here), 1, 1, 1, device=here.device)
    for _ in range(HALVINGS):
        there = here + share * step
        there = there.clamp(-1, 1) if clip else there
        after = outcome(once, there, targets)
        falls = after[0] <= before[0]
        if not falls.any():
            return there, after
        share = torch.where(falls.view(-1, 1, 1, 1), share / 2, share)
    kept = tuple(torch.where(falls, old, new) for old, new in zip(before, after, strict=True))
    return torch.where(falls.view(-1, 1, 1, 1), here, there), kept


@torch.no_grad()
def outcome(once, colors, targets) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(logit, probability, prediction) of each picture."""
    classifier = once.classifier
    logits = classifier(once.space.from_rgb((colors + 1) / 2))
    picked = (of_target(values.float(), targets) for values in (logits, classifier.scores(logits)))
    return (*picked, logits.argmax(-1))
