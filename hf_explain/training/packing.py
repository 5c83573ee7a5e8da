"""Scores of altered pictures, a pack at a time, each with its gradient at once.

What a picture scores depends on that picture alone. So its slope can be taken as soon as it was seen, and the graph of
the classifier is never larger than that of one pack: less memory, and on processors, whose caches are small, less time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..modeling.packing import fastest_batch

Score = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # some of the inputs (n, ...), their indices -> (n,)


def score_in_packs(score: Score, inputs: torch.Tensor, classifier, pixel_values: torch.Tensor) -> torch.Tensor:
    """`score(inputs, indices)`, one number per input, differentiable once by the inputs alone.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> x = torch.ones(5, 2, requires_grad=True)
    >>> found = score_in_packs(lambda x, at: (x * at[:, None]).sum(1), x, random_classifier(), torch.rand(1, 3, 32, 32))
    >>> torch.autograd.grad(found.sum(), x)[0][:, 0].tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0]

    Args:
        score: of inputs, each by itself, through `classifier`.
        pixel_values: some of the pictures that it will see.
    """
    learns = torch.is_grad_enabled() and inputs.requires_grad
    size = fastest_batch(classifier.model, pixel_values, gradient=learns) or len(inputs)
    if learns:
        return InPacks.apply(inputs, score, min(size, len(inputs)))
    every = torch.arange(len(inputs), device=inputs.device)
    return torch.cat([score(inputs[at], at) for at in every.split(size)])


class InPacks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs: torch.Tensor, score: Score, size: int) -> torch.Tensor:
        values, slopes = [], []
        every = torch.arange(len(inputs), device=inputs.device)
        for part, at in zip(inputs.split(size), every.split(size), strict=True):
            with torch.enable_grad():
                part = part.detach().requires_grad_()
                value = score(part, at)
                (slope,) = torch.autograd.grad(value.sum(), part)
            values.append(value.detach())
            slopes.append(slope)
        ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: torch.Tensor):
        (slopes,) = ctx.saved_tensors
        return slopes * grad.view(-1, *[1] * (slopes.ndim - 1)), None, None
