"""Which methods a survey compares: training-free ones by name, beside what a learned explainer can do."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..methods import METHODS, naming
from ..methods.calling import attribute, attribute_with
from ..modeling.errors import ExplainerError, unknown_name
from ..training.kinds import KINDS, kind_of
from ..training.refinement import refine

REFINE_STEPS, TUNE_STEPS = 8, 25
OF_EXPLAINERS = ("learned", "refined", "tuned")
DEFAULT = "integrated_gradients,occlusion,gradient,random"


def read_names(names: str | None, with_explainer: bool) -> list[str]:
    """Names with commas, with - or _ between words, also with options: "rise(masks=8000)".

    "all" stands for those of `METHODS` that are not named with options beside it.
    """
    known = [*(OF_EXPLAINERS if with_explainer else ()), *METHODS]
    given = names or ("learned," if with_explainer else "") + DEFAULT
    wanted = [naming.spelled(name) for name in naming.split_names(given)]
    plain = [naming.read_method(name)[0] for name in wanted]
    found: list[str] = []
    for name, base in zip(wanted, plain, strict=True):
        if base in OF_EXPLAINERS and not with_explainer:
            raise ExplainerError(f"method {base!r} needs --explainer.")
        if base not in (*known, "all"):
            raise ExplainerError(f"{unknown_name('method', base, [*known, 'all'])}.")
        if base in METHODS:
            naming.find_method(name)  # which refuses wrong options
        elif name != base:
            raise ExplainerError(f"{name!r:.60}: {base} takes no options here; leave them out.")
        found += [one for one in METHODS if one not in plain] if name == "all" else [name]
    if not found or len(set(found)) < len(found):
        raise ExplainerError(f"--methods {given!r}; give names with commas, each once.")
    return found


def find_method(name: str, explainer) -> Callable[..., torch.Tensor]:
    """A function in the calling form of `METHODS`."""
    if name not in OF_EXPLAINERS:
        return naming.find_method(name)
    second_stage = KINDS[kind_of(explainer)].second_stage
    if name == "tuned" and second_stage is None:
        raise ExplainerError(
            f"'tuned' is LTX's second stage, and the explainer is a {type(explainer).__name__}; take 'refined'."
        )

    def learned(classifier, pixel_values, targets, *, batch_size=32):
        return attribute_with(explainer, batch_size)(classifier, pixel_values, targets)

    def refined(classifier, pixel_values, targets, *, batch_size=32):
        maps = learned(classifier, pixel_values, targets, batch_size=batch_size)
        return refine(classifier, pixel_values, maps, targets, batch_size=batch_size, steps=REFINE_STEPS)

    def tuned(classifier, pixel_values, targets):
        return second_stage(explainer, pixel_values, targets, steps=TUNE_STEPS).maps

    return {"learned": learned, "refined": refined, "tuned": tuned}[name]


def find_refusals(methods: dict[str, Callable], classifier, pixel_values: torch.Tensor) -> dict[str, str]:
    """Method -> its sentence, of those that are not defined for the classifier; they are tried on one picture."""
    refused = {}
    with torch.no_grad():
        target = classifier(pixel_values.to(classifier.device)).argmax(-1).cpu()
    for name, method in methods.items():
        try:
            attribute(method, classifier, pixel_values, target, seed=0)
        except ExplainerError as error:
            refused[name] = str(error)
    return refused
