"""What --explainer and --classifier name: loaded, or refused in the words of the command line."""

from __future__ import annotations

import argparse

from transformers import PreTrainedConfig

from ..modeling.classifier import Classifier, pin
from ..modeling.errors import ExplainerError
from ..modeling.modeling_explainer import ExplainerForImageClassification
from ..modeling.schemes import find_scheme


def load(arguments: argparse.Namespace, device, with_method: bool = False):
    """(explainer or None, classifier); `with_method`: the command takes a classifier with --method only."""
    name = arguments.explainer or arguments.classifier
    try:
        hub = check_kind(arguments, with_method)
        if arguments.classifier:
            return None, Classifier.from_pretrained(name, **hub).to(device)
        explainer = ExplainerForImageClassification.from_pretrained(name, **hub).to(device).eval()
    except OSError as error:
        raise OSError(f"{name} could not be loaded: {error}") from error
    return explainer, explainer.require_classifier()


def check_kind(arguments: argparse.Namespace, with_method: bool = False) -> dict:
    """Refuses an explainer that was given as --classifier, and a classifier that was given as --explainer.

    Returns the revision that was looked at, to load it.
    """
    name = arguments.explainer or arguments.classifier
    revision = getattr(arguments, "classifier_revision", None) if arguments.classifier else None
    hub = pin(name, {"revision": revision} if revision else {})
    if named := find_scheme(name):
        kind = named.config(name).model_type
    else:
        values, _ = PreTrainedConfig.get_config_dict(name, **hub)
        kind = values.get("model_type") or ""  # of timm's own configs there is none
    of_explainer = kind.startswith("hf_explainer")
    if of_explainer and arguments.classifier:
        alone = ", without --method" if with_method else ""
        raise ExplainerError(f"{name} holds an explainer, not a classifier; give it as --explainer{alone}.")
    if arguments.explainer and not of_explainer:
        what, how = f"a {kind!r} model" if kind else "another model", " with --method" if with_method else ""
        raise ExplainerError(
            f"{name} holds {what}, not an explainer; give it as --classifier{how}, or make an explainer of it with "
            "hf-explain train."
        )
    return hub
