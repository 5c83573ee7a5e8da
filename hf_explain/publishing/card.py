"""What the card of a published explainer says beyond its first one: how it was trained, licenses, papers, pictures."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from transformers.utils.hub import cached_file

from ..evaluating.card import with_section, write_card
from ..modeling.frozen_models import REPO_ID, is_local
from ..modeling.model_card import card_to_push, in_code, model_card
from ..photos.classifiers import CLASSIFIERS, LICENSE
from ..reports.findings import spelled
from ..training.checkpoints import checkpoints
from ..training.kinds import KINDS, kind_of


@dataclass(frozen=True)
class Statement:
    """What the author says of the explainer, and whether its card may ask the Hub for more.

    Args:
        license, trained_on: of the head, and the pictures it saw.
        untrained: why an explainer is published that has not been trained.
        ask_hub: for the repository's card and the classifier's license; else as if there were none, and from the cache.
    """

    license: str | None = None
    trained_on: str | None = None
    untrained: str | None = None
    ask_hub: bool = True


def write_published_card(
    goal: Path, explainer, repo_id: str, source: Path, said: Statement, results: dict | None, pictures: dict[str, str]
) -> None:
    """README.md in `goal`: the card the author has, or a first one, with our sections written anew.

    Args:
        source: the explainer's own folder, with its card and the checkpoints of its training, if they are there.
        results: of `hf-explain evaluate`.
        pictures: file in `goal` -> what it shows.
    """
    card = own_card(explainer, repo_id, source, (goal / "classifier").is_dir(), said.ask_hub)
    data: Any = card.data
    data.model_name = data.model_name or repo_id.rpartition("/")[2]
    data.license = said.license or data.license
    trained_on = said.trained_on
    if trained_on and REPO_ID.fullmatch(trained_on) and not is_local(trained_on) and "/" in trained_on:
        data.datasets = [trained_on]
    config = explainer.config
    theirs = classifier_license(config.classifier_name_or_path, config.classifier_revision, said.ask_hub)
    sections = [training(explainer, source, said), show(pictures)]
    for section in filter(None, [*sections, licenses(config, data.license, theirs), paper(explainer)]):
        card.text = with_section(card.text, section)
    card.save(goal / "README.md")
    if results is not None:
        write_card(goal, results, explainer)


def own_card(explainer, repo_id: str, source: Path, included: bool, ask_hub: bool) -> ModelCard:
    """The one beside the explainer, else the repository's, else a first one."""
    first = ModelCard(model_card(explainer, repo_id, included))
    if not (source / "README.md").exists():
        if not ask_hub:
            return first
        try:
            return card_to_push(explainer, repo_id, included, (), None, None)
        except OSError:  # there is no such repository yet
            return first
    card = ModelCard.load(source / "README.md")
    for quoted in ('"{}"', "# {}\n"):  # it may call the explainer by the name of its folder
        card.text = card.text.replace(quoted.format(source.name), quoted.format(repo_id))
    for key in ("base_model", "base_model_relation"):
        setattr(card.data, key, first.data.get(key))
    explains = next(line for line in first.text.splitlines() if line.startswith("- explains: "))
    card.text = re.sub("^- explains: .*$", lambda _: explains, card.text, flags=re.M)
    return card


def training(explainer, source: Path, said: Statement) -> str:
    """From the newest checkpoint of `hf-explain train`, where there is one."""
    steps = explainer.config.trained_steps
    lines = [f"optimizer steps: {steps:,}" if steps else f"**none: its maps mean nothing.** {said.untrained}"]
    lines += [f"pictures: {said.trained_on}, as its author states"] if said.trained_on else []
    found = checkpoints(source)
    if found:
        state = json.loads((found[-1] / "training_state.json").read_text())
        if state.get("best_score") is not None:
            score = f"held-out score {state['best_score']:.4f} at step {state['best_step']}"
            how = spelled(state["judged_by"])
            lines.append(f"{score} ({how}); the head was chosen by it, so it is a little too good")
        hidden = ("classifier", "backbone")  # their fingerprints are in config.json
        lines += [f"{key}: {spelled(value)}" for key, value in state["settings"].items() if key not in hidden]
        lines.append(f"versions: {spelled(state['versions'])}")
    elif steps:
        lines.append("the settings were not kept beside the explainer")
    return "## Training\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"


def licenses(config, ours: str | None, theirs: str | None) -> str:
    """Of the head, as its author states it, and of the classifier, as its repository does."""
    head = f"The explainer comes under `{ours}`." if ours else "The author of the explainer states no license."
    name = config.classifier_name_or_path
    source = "package" if name in CLASSIFIERS else "repository"
    classifier = f"The classifier, {in_code(name)}, comes under {in_code(theirs)}, says its {source}."
    classifier = classifier if theirs else "The license of the classifier is not known."
    return f"## License\n\n{head} {classifier} A repository that carries its classifier carries that license too.\n"


def classifier_license(name: str | None, revision: str | None, ask_hub: bool) -> str | None:
    """None if it is not stated, or cannot be asked for."""
    if not name or is_local(name):
        return None
    if name in CLASSIFIERS:
        return LICENSE
    try:
        quiet = {"_raise_exceptions_for_missing_entries": False, "local_files_only": not ask_hub}
        path = cached_file(name, "README.md", revision=revision, **quiet)
    except OSError:  # no network, or no permission
        return None
    found: Any = ModelCard.load(path, ignore_metadata_errors=True).data.get("license") if path else None
    return None if found is None else spelled(found)


def paper(explainer) -> str:
    text, number = KINDS[kind_of(explainer)].paper
    return (
        f"## Papers to cite\n\n- {text}. [arXiv:{number}](https://arxiv.org/abs/{number}). This explainer was made by "
        "hf-explain, an independent implementation.\n"
    )


def show(pictures: dict[str, str]) -> str | None:
    shown = "\n\n".join(f"![{text}]({name})\n\n*{text}*" for name, text in pictures.items())
    return f"## Pictures\n\n{shown}\n" if shown else None
