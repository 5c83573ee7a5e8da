"""Long work in a folder: what decides about it is written down, and every file is there as a whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .modeling.perturbation import ExplainerError

SETTINGS = "settings.json"


def settle(folder: Path, settings: Mapping, what: str) -> None:
    """Writes the settings into the folder, or refuses it if it holds `what` of others."""
    path, given = folder / SETTINGS, json.loads(json.dumps(settings))
    if path.exists():
        found = json.loads(path.read_text())
        other = [key for key in given if found.get(key) != given[key]]
        if other:
            key = other[0]
            raise ExplainerError(
                f"{folder} holds {what} of other settings ({key}: {found.get(key)}, now {given[key]}); give another "
                "--output_dir, or the same settings to go on."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(given, indent=1).encode())


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name to write to inside the block; only at its end the file is `path`, also if the machine stops then."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield unfinished
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    with whole(path) as unfinished:
        unfinished.write_bytes(data)


def clean(folder: Path) -> None:
    """Removes what a killed process left half-written."""
    for path in folder.glob(".*.*"):
        path.unlink()
