"""The slope of a class's logit: how the classifier itself, linearized, would rank the pixels."""

from __future__ import annotations

import torch

from .classifier import Classifier
from .references import reference_image

BASELINES: tuple[str | float, ...] = ("blur", "black", 1.0)


def slopes(
    classifier: Classifier, pixel_values: torch.Tensor, targets: torch.Tensor, references=BASELINES
) -> torch.Tensor:
    """(picture - baseline) times the gradient of the logits of `targets` (B, T) half-way between: (B, T, R, H, W).

    Summed over the channels, of mean square 1, with outliers bent down; one for each reference. Half-way, because at
    the picture itself the classifier is sure and its slope mostly noise. A forward shows at most max(B, R)
    pictures, so that a batch that fits needs no R-fold memory; for one picture, one forward is faster than R.
    """
    with torch.inference_mode(False), torch.enable_grad():
        pictures = pixel_values.detach().clone().to(classifier.dtype)
        space = classifier.pixel_space
        baselines = torch.stack([reference_image(pictures, space, name) for name in references], 1)  # (B, R, 3, H, W)
        way = pictures[:, None] - baselines
        same = 1e-6 * pictures[:, None].abs().amax((2, 3, 4), keepdim=True)  # but for rounding
        way = torch.where(way.abs() > same, way, 0)
        half_way = (baselines + way / 2).flatten(0, 1)  # (B R, 3, H, W)
        targets = targets.clone().to(pictures.device).repeat_interleave(len(references), 0)
        most, rises = max(way.shape[:2]), []
        for seen, ways, classes in zip(*(v.split(most) for v in (half_way, way.flatten(0, 1), targets)), strict=True):
            seen = seen.detach().requires_grad_()
            rows, logits = [], classifier(seen).gather(1, classes)
            for t, column in enumerate(logits.unbind(1)):
                (row,) = torch.autograd.grad(column.sum(), seen, retain_graph=t + 1 < logits.shape[1])
                rows.append((row.float() * ways.float()).sum(1))  # (most, H, W)
            rises.append(torch.stack(rows, 1))
        rise = torch.cat(rises).unflatten(0, way.shape[:2]).transpose(1, 2)  # (B, T, R, H, W)
        size = rise.square().mean((3, 4), keepdim=True).sqrt().clamp(min=torch.finfo(rise.dtype).tiny)
        return 3 * torch.tanh(rise / size / 3)
