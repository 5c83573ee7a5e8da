"""Does a map depend on what it should? On the class asked for, and on the classifier's weights.

A method that gives nearly the same map for the likeliest and the least likely class, or for a classifier whose weights
were replaced by noise, shows edges of the picture, not reasons of the classifier (Adebayo et al., arXiv 1810.03292).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from ..faithfulness.case import all_logits
from ..faithfulness.similarity import spearman
from ..methods.calling import attribute, attribute_with
from ..methods.naming import find_method
from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from ..modeling.hooks import hooked, watched
from ..modeling.model_call import unchanged
from ..modeling.modeling_explainer import ExplainerForImageClassification
from ..modeling.targets import read_targets

Method = str | Callable[..., torch.Tensor] | ExplainerForImageClassification


# ---- correlation of maps ----


def correlation(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Spearman's rank correlation of each pair of maps (B, H, W): (B,), NaN where one of them is constant.

    >>> correlation(torch.arange(4.0).view(1, 2, 2), -torch.arange(4.0).view(1, 2, 2) ** 3).tolist()
    [-1.0]
    """
    if one.ndim != 3 or one.shape != other.shape:
        raise ExplainerError(f"maps {tuple(one.shape)} and {tuple(other.shape)}; give (B, H, W) of one shape each.")
    return spearman(*(maps.detach().cpu().double().flatten(1) for maps in (one, other)))


def summary(values: torch.Tensor) -> dict[str, float]:
    """Mean and median of the correlations, of how many, and how many had none because a map was constant.

    >>> sorted(summary(torch.tensor([0.1, 0.3])))
    ['constant', 'mean', 'median', 'n']
    """
    known = values[values.isfinite()]
    mean, median = (float(known.mean()), float(known.quantile(0.5))) if len(known) else (float("nan"),) * 2
    return {"mean": mean, "median": median, "n": len(values), "constant": len(values) - len(known)}


# ---- the class ----


@torch.no_grad()
def class_sensitivity(
    classifier: Classifier, pixel_values: torch.Tensor, method: Method, batch_size: int = 32, **options
) -> torch.Tensor:
    """Rank correlation (B,) of the maps of the likeliest and of the least likely class; the lower, the better.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> class_sensitivity(random_classifier(), torch.rand(2, 3, 32, 32), "input_x_gradient").shape
    torch.Size([2])

    Args:
        method: a name of `METHODS`, a function in their calling form, or a learned explainer.
        batch_size: pictures per forward.
        options: of the method.
    """
    explain = in_calling_form(method, batch_size, options)
    pixels = pixel_values.to(classifier.device)
    logits = all_logits(classifier, pixels, batch_size)
    if logits.shape[1] < 2:
        raise ExplainerError("the classifier has one logit, so there is no other class; give one of several classes.")
    return correlation(*(explain(classifier, pixels, t) for t in (logits.argmax(1), logits.argmin(1))))


# ---- the weights ----


@dataclass(frozen=True)
class Randomized:
    """One step of a cascade: up to which module the weights are noise, which share of them, and (B,) correlations."""

    module: str
    share: float
    correlation: torch.Tensor


@torch.no_grad()
def parameter_randomization(
    classifier: Classifier,
    pixel_values: torch.Tensor,
    method: Method,
    targets=None,
    steps: int = 5,
    seed: int = 0,
    batch_size: int = 32,
    **options,
) -> list[Randomized]:
    """Rank correlation with the true map while the weights become noise from the head down, in `steps` steps.

    The classes stay those of the unharmed classifier. Its weights are the same afterwards, to the last bit.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> steps = parameter_randomization(random_classifier(), torch.rand(2, 3, 32, 32), "gradient", steps=2)
    >>> [round(step.share, 2) for step in steps][-1]
    1.0

    Args:
        method: a name of `METHODS`, a function in their calling form, or a learned explainer of this classifier.
        steps: into which the modules with weights are divided, in the order in which they are called.
        batch_size: pictures per forward.
        options: of the method.
    """
    if (
        isinstance(method, ExplainerForImageClassification)
        and getattr(method.classifier, "model", None) is not classifier.model
    ):
        raise ExplainerError(f"this {type(method).__name__} has another classifier; give explainer.classifier.")
    explain, pixels = in_calling_form(method, batch_size, options), pixel_values.to(classifier.device)
    targets = read_targets(targets, all_logits(classifier, pixels, batch_size))
    if targets.ndim != 1:
        raise ExplainerError(f"targets of shape {tuple(targets.shape)}; give one class per picture.")
    original = explain(classifier, pixels, targets)
    modules = modules_in_order(classifier, pixels[:1])[::-1]
    if not 1 <= steps <= len(modules):
        raise ExplainerError(f"steps={steps} for {len(modules)} modules with weights; give from 1 to as many.")
    everything = sum(p.numel() for p in classifier.model.parameters())
    random, found, done, changed = torch.Generator().manual_seed(seed), [], 0, 0
    with restored(classifier.model):
        for step in range(1, steps + 1):
            stop = round(step * len(modules) / steps)
            for _, module in modules[done:stop]:
                changed += randomize(module, random)
            done = stop
            maps = explain(classifier, pixels, targets)
            found.append(Randomized(modules[stop - 1][0], changed / everything, correlation(original, maps)))
    return found


def modules_in_order(classifier: Classifier, pixel_values: torch.Tensor) -> list[tuple[str, nn.Module]]:
    """The modules with weights of their own in the order in which they are done; those never called come first."""
    own = {path: m for path, m in classifier.model.named_modules() if list(m.parameters(recurse=False))}
    called: dict[str, nn.Module] = {}

    with hooked(*watched(own.items(), lambda path, inputs, output: called.setdefault(path, own[path]))):
        classifier(pixel_values)
    return [*((path, module) for path, module in own.items() if path not in called), *called.items()]


def randomize(module: nn.Module, random: torch.Generator) -> int:
    """Replaces a module's own weights by normal noise of each tensor's mean and spread; how many there were.

    What is constant, such as the scale of a fresh norm, stays so, as in a new initialization.
    """
    count = 0
    for weight in module.parameters(recurse=False):
        noise = torch.randn(weight.shape, generator=random, dtype=torch.float32)
        values = weight.detach().float()
        spread = values.std(correction=0)
        weight.copy_(values.mean() + spread * noise.to(weight.device))
        count += weight.numel()
    return count


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """`model` with its weights and buffers as they were, after whatever happened inside."""
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    with unchanged(model):
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in model.state_dict().items():
                    value.copy_(before[name])


# ---- any method, any explainer ----


def in_calling_form(method: Method, batch_size: int, options: dict) -> Callable[..., torch.Tensor]:
    """`(classifier, pixel_values, targets) -> (B, H, W)` of a name, a function or an explainer, in batches."""
    if isinstance(method, ExplainerForImageClassification):
        return attribute_with(method, batch_size)
    function = find_method(method) if isinstance(method, str) else method
    return partial(attribute, function, batch_size=batch_size, options=options)
