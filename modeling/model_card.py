"""The card of a pushed explainer: the one its repository has, with our tags, or a first one."""

from __future__ import annotations

import json
import re

from transformers.utils.hub import ModelCard, cached_file

from .frozen_models import REPO_ID, is_local
from .schemes import scheme_of


def card_to_push(explainer, repo_id: str, included: bool, tags, revision: str | None, token) -> ModelCard:
    """Of the branch if it exists, else of main, else new."""
    found = None
    for branch in dict.fromkeys([revision, None]):
        try:
            quiet = {"_raise_exceptions_for_missing_entries": False}
            found = found or cached_file(repo_id, "README.md", revision=branch, token=token, **quiet)
        except OSError:
            if branch is None:  # any other may be new
                raise
    card = ModelCard.load(found) if found else ModelCard(model_card(explainer, repo_id, included))
    known = card.data.tags or []
    if missing := [tag for tag in ("image-attribution", "hf-explain", *tags) if tag not in known]:
        card.data.tags = [*known, *dict.fromkeys(missing)]
    return card


def in_markdown(name) -> str:
    """A name from outside as one piece of text: no markup, no cell of a table, no line of its own.

    >>> in_markdown("<b>a|b\\n# c")
    '&lt;b>a\\\\|b # c'
    """
    return " ".join(re.sub(r"([\\`*|\[\]])", r"\\\1", str(name)).replace("<", "&lt;").split())


def in_code(name) -> str:
    """A name from outside as a span of code."""
    return "`" + " ".join(str(name).replace("`", "'").split()) + "`"


def model_card(explainer, repo_id: str, included: bool) -> str:
    """What it explains, how to use it, and what is not known about it."""
    config = explainer.config
    name, revision = config.classifier_name_or_path, config.classifier_revision
    relation = (
        f"base_model: {name}\nbase_model_relation: adapter\n"
        if name and REPO_ID.fullmatch(name) and not is_local(name)
        else ""
    )
    where = (
        "saved in `classifier/` of this repository"
        if included
        else in_code(name) + (f" at {in_code(revision)}" if revision else "")
    )
    kind = type(explainer.classifier.model).__name__ if explainer.classifier is not None else "classifier"
    labels = list(config.id2label.values())
    shown = ", ".join(map(in_markdown, labels[:8])) + (f", ... ({len(labels)} classes)" if len(labels) > 8 else "")
    parameters = sum(p.numel() for n, p in explainer.named_parameters() if not n.startswith(("classifier", "backbone")))
    which = "any class" if config.class_conditional else "the predicted class only"
    slopes = (
        " and, for the classifier's slopes, another one with a backward" if getattr(config, "hybrid", False) else ""
    )
    code_id = json.dumps(repo_id, ensure_ascii=False)
    alone = in_code(f"AutoModel.from_pretrained({code_id}, trust_remote_code=True)")
    without = f"Without hf-explain, the model alone: {alone}."
    if not included and (extra := scheme_of(name)):
        needed = f"hf-explain[{extra}]"
        without = f"The classifier comes with {in_code(f'pip install {json.dumps(needed)}')}."
    trained = "" if config.trained_steps else "**This explainer has not been trained: its maps mean nothing.** "
    return CARD.format(
        model_type=config.model_type, relation=relation, title=in_markdown(repo_id), which=which, slopes=slopes,
        kind=kind, where=where, shown=shown, size=" x ".join(map(str, config.image_size)),
        explainer=type(explainer).__name__, parameters=parameters, code_id=code_id, without=without, trained=trained,
    )  # fmt: skip


CARD = """---
library_name: transformers
tags:
- image-attribution
- hf-explain
- {model_type}
{relation}---

# {title}

Which pixels made the classifier say that? This explainer returns a map of every pixel's importance for {which}, in one
forward pass{slopes}.

- explains: {kind}, {where}
- classes: {shown}
- pictures: {size} pixels, as the image processor here returns them
- head: `{explainer}`, {parameters:,} parameters

```python
import hf_explain
from transformers import pipeline

explain = pipeline("image-attribution", model={code_id})
explain("picture.jpg")[0]["heatmap"].save("heatmap.png")
```

{without}

## Faithfulness

{trained}Not measured yet: no number is given here. Do not rely on these maps before measuring deletion and insertion.

## Limits

A map ranks pixels by how much this classifier relies on them. It says nothing about other classifiers, and nothing
about whether the classifier is right. Only the order within one map has a meaning; values of different maps are not
comparable.
"""
