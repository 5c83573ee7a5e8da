"""`hf-explain publish`: an explainer with card, and if wanted remote code and a Space, to the Hub."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from ..modeling.errors import ExplainerError
from ..modeling.frozen_models import REPO_ID
from ..modeling.modeling_explainer import ExplainerForImageClassification
from .card import Statement
from .folders import check, lay_out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what is published")
    what.add_argument("--explainer", required=True, help="folder of the explainer")
    what.add_argument(
        "--include_classifier", action="store_true", default=None, help="put the classifier inside the repository"
    )
    what.add_argument(
        "--remote_code", action="store_true", help="also the branch remote-code, for people without hf-explain"
    )
    what.add_argument("--space", action="store_true", help="also a Space with the app and this explainer")
    card = parser.add_argument_group("what its card says")
    card.add_argument("--results", help="folder or results.json of hf-explain evaluate, of this explainer's weights")
    card.add_argument("--pictures", nargs="+", default=[], help="pictures whose maps the card shows")
    card.add_argument("--license", help="of the explainer: apache-2.0, mit, ...")
    card.add_argument("--trained_on", help="the pictures it was trained on: a data set of the Hub, or words")
    card.add_argument(
        "--untrained", metavar="REASON", help="publish an explainer that has not been trained, and say why"
    )
    where = parser.add_argument_group("where")
    where.add_argument("--hub_model_id", required=True, help="repository: owner/name")
    where.add_argument("--hub_space_id", help="repository of the Space (default: that of the explainer)")
    where.add_argument("--hub_private", action="store_true", help="make new repositories private ones")
    where.add_argument("--dry_run", action="store_true", help="only print which file would go where")


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
    said = Statement(arguments.license, arguments.trained_on, arguments.untrained, ask_hub=not arguments.dry_run)
    with tempfile.TemporaryDirectory() as scratch:
        uploads = lay_out(
            Path(scratch), explainer, folder, repo_id, said, include=include,
            results=Path(arguments.results) if arguments.results else None, pictures=arguments.pictures,
            remote_code=arguments.remote_code, space_id=space_id,
        )  # fmt: skip
        for upload in uploads:
            if arguments.dry_run:
                print(upload, end="\n\n")
            else:
                print(f"{upload.repo_id}, branch {upload.branch}: {upload.push(arguments.hub_private)}")
    if arguments.dry_run:
        print("nothing was sent")
    return 0
