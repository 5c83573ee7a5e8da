"""`hf-explain publish`: an explainer with card, and if wanted remote code and a Space, to the Hub."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..jobs.flags import add_flags, flag
from ..modeling.errors import ExplainerError
from ..modeling.frozen_models import REPO_ID
from ..modeling.modeling_explainer import ExplainerForImageClassification
from .folders import check, lay_out


@dataclass
class Published:
    """What is published."""

    explainer: str = flag(None, "folder of the explainer", required=True)
    include_classifier: bool | None = flag(None, "put the classifier inside the repository")
    remote_code: bool = flag(False, "also the branch remote-code, for people without hf-explain")
    space: bool = flag(False, "also a Space with the app and this explainer")


@dataclass
class Card:
    """What its card says."""

    results: str | None = flag(None, "folder or results.json of hf-explain evaluate, of this explainer's weights")
    pictures: tuple[str, ...] = flag((), "pictures whose maps the card shows")
    license: str | None = flag(None, "of the explainer: apache-2.0, mit, ...")
    trained_on: str | None = flag(None, "the pictures it was trained on: a data set of the Hub, or words")
    untrained: str | None = flag(None, "publish an explainer that has not been trained, and say why", metavar="REASON")


@dataclass
class Place:
    """Where it goes."""

    hub_model_id: str = flag(None, "repository: owner/name", required=True)
    hub_space_id: str | None = flag(None, "repository of the Space (default: that of the explainer)")
    hub_private: bool = flag(False, "make new repositories private ones")
    dry_run: bool = flag(False, "only print which file would go where")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for title, settings in (("what is published", Published), ("what its card says", Card), ("where", Place)):
        add_flags(parser.add_argument_group(title), settings)


def run(arguments: argparse.Namespace) -> int:
    folder = Path(arguments.explainer)
    if not folder.is_dir():
        raise ExplainerError(f"there is no folder {arguments.explainer!r}; give one that hf-explain train has made.")
    repo_id = arguments.hub_model_id
    space_id = (arguments.hub_space_id or repo_id) if arguments.space or arguments.hub_space_id else None
    for name in filter(None, [repo_id, space_id]):
        if not REPO_ID.fullmatch(name) or "/" not in name:
            raise ExplainerError(f"{name!r} is no name of a repository; give owner/name.")
    explainer = ExplainerForImageClassification.from_pretrained(str(folder)).eval()
    include = check(explainer, arguments.include_classifier, arguments.untrained)
    with tempfile.TemporaryDirectory() as scratch:
        uploads = lay_out(
            Path(scratch), explainer, folder, repo_id, include=include,
            results=Path(arguments.results) if arguments.results else None, pictures=arguments.pictures,
            license=arguments.license, trained_on=arguments.trained_on, untrained=arguments.untrained,
            remote_code=arguments.remote_code, space_id=space_id, ask_hub=not arguments.dry_run,
        )  # fmt: skip
        for upload in uploads:
            if arguments.dry_run:
                print(upload, end="\n\n")
            else:
                print(f"{upload.repo_id}, branch {upload.branch}: {upload.push(arguments.hub_private)}")
    if arguments.dry_run:
        print("nothing was sent")
    return 0
