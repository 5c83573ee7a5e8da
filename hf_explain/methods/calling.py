"""How a method is called on any number of pictures."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

import torch

from .forwards import together


def attribute(
    method: Callable[..., torch.Tensor], classifier, pixel_values: torch.Tensor, targets: torch.Tensor, *,
    batch_size: int = 32, seed: int | None = None, options: Mapping | None = None,
) -> torch.Tensor:  # fmt: skip
    """Maps (B, H, W) of a method in the calling form of `METHODS`, float32 on the CPU.

    Args:
        batch_size: pictures per call, and per forward of a method that takes a batch size.
        seed: of a method that takes one, for its first batch; the batch that begins with picture i gets seed + i.
        options: of the method.
    """
    takes, device, made = inspect.signature(method).parameters, classifier.device, []
    given = ({"batch_size": batch_size} if "batch_size" in takes else {}) | dict(options or {})
    with together(max(1, len(pixel_values) / batch_size)):
        for first in range(0, len(pixel_values), batch_size):
            if seed is not None and "seed" in takes:
                given["seed"] = seed + first
            x, t = (values[first : first + batch_size].to(device) for values in (pixel_values, targets))
            made.append(method(classifier, x, t, **given).detach().float().cpu())
    return torch.cat(made)


def attribute_with(explainer, batch_size: int = 128) -> Callable[..., torch.Tensor]:
    """A learned explainer in the calling form of `METHODS`."""

    @torch.no_grad()
    def explain(_, pixel_values, targets):
        return explainer(pixel_values, targets=targets).attributions

    def learned(classifier, pixel_values, targets):
        return attribute(explain, explainer, pixel_values, targets, batch_size=batch_size)

    return learned
