"""Everything of an explainer that is published, laid out in folders first: what is shown is what is pushed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers.utils.hub import hf_api

from ..evaluating.card import check_results
from ..explaining.pipeline import ImageAttributionPipeline
from ..modeling.errors import ExplainerError
from ..modeling.frozen_models import is_local
from ..modeling.saving import decide_inclusion, refuse_local_reference
from ..modeling.schemes import scheme_of
from ..photos.pictures import picture_file
from ..reports.sheet import Row, sheet
from .card import Statement, write_published_card
from .space import space_files

REMOTE_CODE = "remote-code"


@dataclass(frozen=True)
class Upload:
    """A folder, and the branch of a repository that is to hold its files."""

    folder: Path
    repo_id: str
    repo_type: str = "model"
    branch: str = "main"

    def files(self) -> list[tuple[str, int]]:
        """(path in the repository, bytes)."""
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return [(path.relative_to(self.folder).as_posix(), path.stat().st_size) for path in paths]

    def __str__(self) -> str:
        kind = "" if self.repo_type == "model" else f"{self.repo_type} "
        lines = [f"{size:>12,}  {name}" for name, size in self.files()]
        total = sum(size for _, size in self.files())
        return "\n".join([f"{kind}{self.repo_id}, branch {self.branch}:", *lines, f"{total:>12,}  bytes in all"])

    def push(self, private: bool) -> str:
        """Makes repository and branch where they are not there yet; returns the commit's address."""
        api, kind = hf_api(), {"repo_type": self.repo_type}
        sdk = {"space_sdk": "gradio"} if self.repo_type == "space" else {}
        api.create_repo(self.repo_id, private=private or None, exist_ok=True, **kind, **sdk)
        if self.branch != "main":
            api.create_branch(self.repo_id, branch=self.branch, exist_ok=True, **kind)
        message = {"commit_message": "Upload explainer" if self.repo_type == "model" else "Upload app"}
        return api.upload_folder(repo_id=self.repo_id, folder_path=self.folder, revision=self.branch, **kind, **message)


def check(explainer, include_classifier: bool | None, untrained: str | None, remote_code: bool = False) -> bool:
    """Whether the classifier goes along; refuses what would mislead others, or could not be loaded by them."""
    if not explainer.config.trained_steps and not untrained:
        raise ExplainerError(
            "this explainer has not been trained (config.trained_steps is 0), so its maps mean nothing; train it, or "
            "say in --untrained why it is to be published, which its card will repeat."
        )
    include = decide_inclusion(explainer, include_classifier)
    refuse_local_reference(explainer, include)
    name = explainer.config.classifier_name_or_path
    if remote_code and not include and scheme_of(name):
        raise ExplainerError(
            f"--remote_code is for people without hf-explain, who cannot load {name}; add --include_classifier, or "
            "leave it out."
        )
    return include


def read_results(path: Path, explainer, source: Path) -> dict:
    """results.json of `hf-explain evaluate` of this explainer, without the folders of this machine."""
    path = path / "results.json" if path.is_dir() else path
    try:
        results = json.loads(path.read_text())
        name = results["settings"]["dataset"]["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExplainerError(f"{path} holds no results; give a folder of hf-explain evaluate --output_dir.") from error
    check_results(results, explainer, source)
    if is_local(name):
        results["settings"]["dataset"]["name"] = Path(name).name
    return results


def lay_out(
    scratch: Path, explainer, source: Path, repo_id: str, said: Statement, *, include: bool,
    results: Path | None = None, pictures: Sequence[str] = (), remote_code: bool = False, space_id: str | None = None,
) -> list[Upload]:  # fmt: skip
    """The uploads: explainer and card, the same with the pipeline's code on a branch, and a Space.

    Args:
        scratch: an empty folder to write to.
        source: the explainer's own folder.
        include: whether its classifier goes along.
        results: folder or results.json of `hf-explain evaluate`.
        pictures: files or addresses of pictures whose maps the card shows.
    """
    main, found = scratch / "main", read_results(results, explainer, source) if results else None
    pipe = ImageAttributionPipeline(model=explainer)
    explainer.save_pretrained(main, include_classifier=include)
    shown = draw(pipe, pictures, main) | copy_figures(results, main)
    write_published_card(main, explainer, repo_id, source, said, found, shown)
    uploads = [Upload(main, repo_id)]
    if remote_code:
        branch = scratch / REMOTE_CODE
        pipe.save_pretrained(branch, remote_code=True, include_classifier=include)
        for name in ("README.md", *shown):
            (branch / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(main / name, branch / name)
        uploads.append(Upload(branch, repo_id, branch=REMOTE_CODE))
    if space_id:
        space = scratch / "space"
        space.mkdir()
        named = explainer.config.classifier_name_or_path
        called = re.split("[/:]", named)[-1] if named and not is_local(named) else "my classifier"
        for name, text in space_files(repo_id, called, None if include else scheme_of(named)).items():
            (space / name).write_text(text, encoding="utf-8")
        uploads.append(Upload(space, space_id, "space"))
    return uploads


def draw(pipe: ImageAttributionPipeline, pictures: Sequence[str], folder: Path) -> dict[str, str]:
    """A sheet of the maps of pictures: {file: what it shows}."""
    if not pictures:
        return {}
    rows = []
    for picture in pictures:
        read = pipe.preprocess(picture_file(picture))["picture"]
        entry = pipe(read)[0]
        rows.append(Row(read, [entry["attribution"]], caption=f"{entry['label']}: {entry['score']:.2f}"))
    (folder / "figures").mkdir()
    sheet(rows, ["map of the prediction"]).save(folder / "figures" / "maps.png")
    return {"figures/maps.png": "Pictures, and which pixels made the classifier predict what stands under them"}


def copy_figures(results: Path | None, folder: Path) -> dict[str, str]:
    """The figures beside the results of `hf-explain evaluate`."""
    found = {}
    if results and results.is_dir():
        for path in sorted([*results.glob("curves-*.png"), *results.glob("sheet.png")]):
            (folder / "figures").mkdir(exist_ok=True)
            shutil.copyfile(path, folder / "figures" / path.name)
            sheet_of_maps = path.stem == "sheet"
            what = "Mean maps, from the best to the worst" if sheet_of_maps else "Mean curves of the measured pictures"
            found[f"figures/{path.name}"] = what
    return found
