"""A run on the disk: checkpoints that are whole or not there.

    output_dir/                  the best explainer, as `from_pretrained` reads it
    output_dir/checkpoint-<step> the explainer of that step and all that is needed to go on exactly from there
    output_dir/training_log.jsonl

Everything is written under a temporary name and then renamed, so that a process can be killed at any moment.
"""

from __future__ import annotations

import json
import os
import platform
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from ..jobs.folders import scratch, whole
from ..modeling.errors import ExplainerError


@dataclass
class RunState:
    """Where a run is.

    Args:
        step: optimizer steps done.
        micro_batch: pictures per forward and process, as the memory allows.
        asked_batch: pictures per forward and process, as the user wished.
        best_score: deletion + 1 - insertion of the best head so far, at `best_step`.
        streams: places in the stream of every process.
        trained_before: steps the head had seen when the run began.
        judged_by: what `best_score` was measured with.
    """

    step: int
    micro_batch: int
    asked_batch: int
    best_score: float | None = None
    best_step: int | None = None
    streams: list = field(default_factory=list)
    trained_before: int = 0
    judged_by: dict = field(default_factory=dict)


def folder_of(output_dir: Path, step: int) -> Path:
    return output_dir / f"checkpoint-{step}"


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("checkpoint-"))


def checkpoints(output_dir: Path) -> list[Path]:
    """The folders of all whole checkpoints, oldest first."""
    found = [path for path in Path(output_dir).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=step_of)


@contextmanager
def without_bars():
    """Without those of transformers, of which every saving would show one."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


# ---- writing ----


def save_checkpoint(
    folder: Path, explainer, optimizer, best_head: dict | None, state: RunState, settings: dict
) -> None:
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    values = vars(state) | {"settings": settings, "versions": versions}
    with whole(folder) as unfinished:
        with without_bars():
            explainer.save_pretrained(unfinished)
        torch.save(optimizer.state_dict(), unfinished / "optimizer.pt")
        if best_head is not None:
            save_file(best_head, unfinished / "best_head.safetensors")
        (unfinished / "training_state.json").write_text(json.dumps(values, indent=2))


def save_explainer(output_dir: Path, explainer, include_classifier: bool | None) -> None:
    """Writes the explainer to the top of `output_dir`, file by file in the place of an earlier one."""
    with scratch(output_dir / "explainer") as unfinished, without_bars():
        explainer.save_pretrained(unfinished, include_classifier=include_classifier)
        for path in [*unfinished.rglob("*")]:
            goal = output_dir / path.relative_to(unfinished)
            if path.is_file():
                goal.parent.mkdir(exist_ok=True)
                os.replace(path, goal)


# ---- reading ----


def find_checkpoint(output_dir: Path | None, asked: str | None) -> Path | None:
    """The folder to go on from, None to begin."""
    found = checkpoints(output_dir) if output_dir else []
    if asked is None:
        if found:
            raise ExplainerError(
                f"{output_dir} holds {found[-1].name} of an earlier run; go on from it with "
                "--resume_from_checkpoint last (in Python resume_from_checkpoint='last'), or give another output_dir."
            )
        return None
    if asked == "last":
        if output_dir is None:
            raise ExplainerError("resume_from_checkpoint='last' needs the output_dir of the run to go on with.")
        return found[-1] if found else None
    folder = Path(asked)
    if not (folder / "training_state.json").is_file():
        names = ", ".join(one.name for one in found) or "none"
        where = f"; {output_dir} holds {names}" if output_dir else ""
        raise ExplainerError(f"{asked} is no checkpoint of a training run{where}; give one, or 'last'.")
    if found and not any(folder.samefile(one) for one in found):
        raise ExplainerError(
            f"{asked} is none of the checkpoints in {output_dir}, which are of another run; go on from it in another "
            "output_dir."
        )
    return folder


def load_checkpoint(folder: Path, explainer, optimizer, settings: dict) -> tuple[RunState, dict | None]:
    """Puts head and optimizer into the state of the checkpoint; returns where it was, and the best head."""
    values = json.loads((folder / "training_state.json").read_text())
    values.pop("versions")
    check_settings(folder, values.pop("settings"), json.loads(json.dumps(settings)))
    with without_bars():
        saved = type(explainer).from_pretrained(folder, load_classifier=False)
    try:
        explainer.head.load_state_dict(saved.head.state_dict())
    except RuntimeError as error:
        raise ExplainerError(
            f"the head in {folder} has another shape than this one; resume with the preset and options it was made "
            "with."
        ) from error
    optimizer.load_state_dict(torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True))
    best = folder / "best_head.safetensors"
    return RunState(**values), load_file(best) if best.exists() else None


def check_settings(folder: Path, saved: dict, now: dict) -> None:
    for key in now:
        if saved.get(key) != now[key]:
            differs = (
                f"with {key}={saved.get(key)}, but this one has {key}={now[key]}"
                if key not in ("classifier", "backbone")  # fingerprints, which tell a person nothing
                else f"of another {key}"
            )
            raise ExplainerError(
                f"{folder} belongs to a run {differs}, which would be another training; resume with the same settings, "
                "or begin anew in another output_dir."
            )
