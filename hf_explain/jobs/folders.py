"""Long work in a folder: what decides about it is written down, and every file is there as a whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..modeling.errors import ExplainerError

SETTINGS = "settings.json"
UNFINISHED = ".unfinished"  # ending of names that are not whole yet, or no longer


def settle(folder: Path, settings: Mapping, what: str) -> None:
    """Writes the settings into the folder, or refuses it if it holds `what` of others."""
    path, given = folder / SETTINGS, json.loads(json.dumps(settings))
    if path.exists():
        found = json.loads(path.read_text())
        if other := [one for key in given for one in differences(key, found.get(key), given[key])]:
            raise ExplainerError(
                f"{folder} holds {what} of other settings ({'; '.join(other)}); give another --output_dir, or the same "
                "settings to go on."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(given, indent=1).encode())


def differences(name: str, was, now) -> list[str]:
    """What differs, in words.

    >>> differences("dataset", {"name": "scenes", "split": None}, {"name": "scenes", "split": "test"})
    ['dataset split: none, now test']
    """
    if was == now:
        return []
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        keys = dict.fromkeys([*was, *now])
        return [one for key in keys for one in differences(f"{name} {key}", was.get(key), now.get(key))]
    if name.endswith(" weights"):  # fingerprints, which tell a person nothing
        return [f"{name}: others"]
    return [f"{name}: {in_words(was)}, now {in_words(now)}"]


def in_words(value) -> str:
    if isinstance(value, Mapping):
        return in_words(value["name"]) if "name" in value else " ".join(f"{k} {in_words(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(map(in_words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value in (None, "None", "") else str(value)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name of a file or folder to write inside the block; only at its end it is `path`, also if the machine stops."""
    with scratch(path) as unfinished:
        yield unfinished
        if unfinished.is_dir():
            remove(path)  # a folder can only take an empty one's place
        else:
            with open(unfinished, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(unfinished, path)


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """A name beside `path`; what is there at the end of the block goes."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        yield unfinished
    finally:
        remove(unfinished)


def write_whole(path: Path, data: bytes) -> None:
    with whole(path) as unfinished:
        unfinished.write_bytes(data)


def clean(folder: Path) -> None:
    """Removes what a killed process left half-written."""
    for path in folder.glob(f".*{UNFINISHED}"):
        remove(path)


def remove(path: Path) -> None:
    """File, folder or nothing; a folder that is half-removed does not look like a whole one."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    if path.suffix != UNFINISHED:
        path = path.rename(path.with_name(f".{path.name}{UNFINISHED}"))
    shutil.rmtree(path)
