"""`hf-explain publish`: an explainer with its card to the Hub, if wanted with remote code or a Space."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from ..jobs.flags import flag
from ..modeling.errors import ExplainerError
from ..modeling.frozen_models import REPO_ID
from ..modeling.modeling_explainer import ExplainerForImageClassification
from .card import Statement
from .folders import check, lay_out

FLAGS = {
    "what is published": {
        "--explainer": flag("folder of the explainer", required=True),
        "--include_classifier": flag("put the classifier inside the repository", False) | {"default": None},
        "--remote_code": flag("also the branch remote-code, for people without hf-explain", False),
        "--space": flag("also a Space with the app and this explainer", False),
    },
    "what its card says": {
        "--results": flag("folder or results.json of hf-explain evaluate, of this explainer's weights"),
        "--pictures": flag("pictures whose maps the card shows", ()),
        "--license": flag("of the explainer: apache-2.0, mit, ..."),
        "--trained_on": flag("the pictures it was trained on: a data set of the Hub, or words"),
        "--untrained": flag("publish an explainer that has not been trained, and say why", metavar="REASON"),
    },
    "where": {
        "--hub_model_id": flag("repository: owner/name", required=True),
        "--hub_space_id": flag("repository of the Space (default: that of the explainer)"),
        "--hub_private": flag("make new repositories private ones", False),
        "--dry_run": flag("only print which file would go where", False),
    },
}


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
    include = check(explainer, arguments.include_classifier, arguments.untrained, arguments.remote_code)
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
