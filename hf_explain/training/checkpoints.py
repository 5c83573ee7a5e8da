"""A run on the disk: checkpoints that are whole or not there, the best explainer, and the log.

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
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from ..modeling.errors import ExplainerError

UNFINISHED = ".unfinished"  # ending of names that are not whole yet, or no longer


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


def folder_of(output_dir: str, step: int) -> str:
    return os.path.join(output_dir, f"checkpoint-{step}")


def step_of(folder: str) -> int:
    return int(folder.rsplit("-", 1)[1])


def checkpoints(output_dir: str) -> list[str]:
    """The folders of all whole checkpoints, oldest first."""
    names = os.listdir(output_dir) if os.path.isdir(output_dir) else []
    steps = sorted(int(m[1]) for m in (re.fullmatch(r"checkpoint-(\d+)", name) for name in names) if m)
    return [folder_of(output_dir, step) for step in steps]


def clean(output_dir: str) -> None:
    """Removes what a killed process left half-written."""
    for name in os.listdir(output_dir):
        if name.endswith(UNFINISHED):
            remove(os.path.join(output_dir, name))


def remove(path: str) -> None:
    if os.path.isdir(path):
        if not path.endswith(UNFINISHED):  # half-removed it must not look like a checkpoint
            os.replace(path, path + UNFINISHED)
            path += UNFINISHED
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.remove(path)


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


def save_checkpoint(output_dir, explainer, optimizer, best_head: dict | None, state: RunState, settings: dict) -> str:
    """Writes `checkpoint-<step>` and returns its folder."""
    folder = folder_of(output_dir, state.step)
    unfinished = folder + UNFINISHED
    remove(unfinished)
    with without_bars():
        explainer.save_pretrained(unfinished)
    torch.save(optimizer.state_dict(), os.path.join(unfinished, "optimizer.pt"))
    if best_head is not None:
        save_file(best_head, os.path.join(unfinished, "best_head.safetensors"))
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    write_json(
        os.path.join(unfinished, "training_state.json"), vars(state) | {"settings": settings, "versions": versions}
    )
    remove(folder)  # there if an earlier checkpoint was resumed
    os.replace(unfinished, folder)
    return folder


def limit_checkpoints(output_dir: str, limit: int) -> None:
    for folder in checkpoints(output_dir)[:-limit]:
        remove(folder)


def remove_later(output_dir: str, step: int) -> list[str]:
    """Removes the checkpoints after `step`, from where a run goes another way; returns their names."""
    later = [folder for folder in checkpoints(output_dir) if step_of(folder) > step]
    for folder in later:
        remove(folder)
    return [os.path.basename(folder) for folder in later]


def save_explainer(output_dir: str, explainer, include_classifier: bool | None) -> None:
    """Writes the explainer to the top of `output_dir`, file by file in the place of an earlier one."""
    unfinished = os.path.join(output_dir, "explainer" + UNFINISHED)
    remove(unfinished)
    with without_bars():
        explainer.save_pretrained(unfinished, include_classifier=include_classifier)
    for folder, _, names in os.walk(unfinished):
        goal = os.path.join(output_dir, os.path.relpath(folder, unfinished))
        os.makedirs(goal, exist_ok=True)
        for name in names:
            os.replace(os.path.join(folder, name), os.path.join(goal, name))
    remove(unfinished)


def write_json(path: str, values) -> None:
    with open(path, "w") as file:
        json.dump(values, file, indent=2)


# ---- reading ----


def find_checkpoint(output_dir: str | None, asked: str | None) -> str | None:
    """The folder to go on from, None to begin."""
    found = checkpoints(output_dir) if output_dir else []
    if asked is None:
        if found:
            raise ExplainerError(
                f"{output_dir} holds {os.path.basename(found[-1])} of an earlier run; go on from it with "
                "--resume_from_checkpoint last (in Python resume_from_checkpoint='last'), or give another output_dir."
            )
        return None
    if asked == "last":
        if output_dir is None:
            raise ExplainerError("resume_from_checkpoint='last' needs the output_dir of the run to go on with.")
        return found[-1] if found else None
    if not os.path.isfile(os.path.join(asked, "training_state.json")):
        where = f"; {output_dir} holds {', '.join(map(os.path.basename, found)) or 'none'}" if output_dir else ""
        raise ExplainerError(f"{asked} is no checkpoint of a training run{where}; give one, or 'last'.")
    if found and not any(os.path.samefile(asked, folder) for folder in found):
        raise ExplainerError(
            f"{asked} is none of the checkpoints in {output_dir}, which are of another run; go on from it in another "
            "output_dir."
        )
    return asked


def load_checkpoint(folder: str, explainer, optimizer, settings: dict) -> tuple[RunState, dict | None]:
    """Puts head and optimizer into the state of the checkpoint; returns where it was, and the best head."""
    with open(os.path.join(folder, "training_state.json")) as file:
        values = json.load(file)
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
    optimizer.load_state_dict(torch.load(os.path.join(folder, "optimizer.pt"), map_location="cpu", weights_only=True))
    best = os.path.join(folder, "best_head.safetensors")
    return RunState(**values), load_file(best) if os.path.exists(best) else None


def check_settings(folder: str, saved: dict, now: dict) -> None:
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
