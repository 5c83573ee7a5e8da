"""The card of a data set of maps: what is in it, how it was made; no number that was not measured."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import datasets
import numpy as np
import torch
import transformers

from ..faithfulness.intervals import interval
from ..faithfulness.protocols import read_protocol
from ..jobs.folders import write_whole
from ..modeling.frozen_models import is_local
from ..modeling.model_card import in_code, in_markdown
from ..version import __version__
from .dataset import Settings
from .rows import column

COLUMNS = {
    "row": "the picture's row in the data set it comes from, from 0",
    "image": "the picture, as it was stored there",
    "label": "name of the explained class",
    "target": "its index",
    "score": "its probability, as the classifier has it",
    "attribution": "the map in float16, rows of pixels; higher = more important; NaN where the classifier never looked",
    "scale": "multiply the map by it for the values the pipeline returns; it is 1 unless float16 would lose them",
    "box": "left, top, right, bottom of what the classifier saw",
}


def shown(name: str | None) -> str:
    """A name without the folders of this machine."""
    return Path(str(name)).name if is_local(name) else str(name)


def write_card(folder: Path, settings: Settings, pictures: int, maps: int, columns, name: str) -> None:
    """README.md, from which `load_dataset(folder)` also knows which files to read."""
    sections = [
        f"# Attribution maps: {in_markdown(shown(settings.dataset['name']))}",
        f"{maps:,} maps of {pictures:,} pictures: which pixels made the classifier say that? A row is a picture and a "
        "class; made by `hf-explain explain`.",
        usage(name),
        "## How they were made\n\n" + protocol(settings),
        "## Columns\n\n" + described(columns, settings),
        *([measured(folder, settings)] if settings.measured else []),
        "## Limits\n\nA map ranks the pixels of one picture by how much this classifier relies on them for this class. "
        "It does not say whether the classifier is right, and nothing about other classifiers. Values of different "
        "maps are not comparable.",
    ]
    write_whole(folder / "README.md", (FRONT + "\n\n".join(sections) + "\n").encode())


FRONT = """---
tags:
- image-attribution
- hf-explain
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---

"""


def usage(name: str) -> str:
    return (
        "```python\nfrom datasets import load_dataset\n\n"
        f'maps = load_dataset({json.dumps(name, ensure_ascii=False)}, split="train").with_format("numpy")\n'
        'print(maps[0]["label"], maps[0]["attribution"].shape)\n```'
    )


def protocol(settings: Settings) -> str:
    """The facts, one in a line."""
    classifier, explainer, data = settings.classifier, settings.explainer, settings.dataset
    revision = f" at {in_code(classifier['revision'])}" if classifier.get("revision") else ""
    called = in_code(shown(classifier["name"])) if classifier["name"] else "the one inside the explainer's checkpoint"
    lines = [f"classifier: {called}{revision}, fingerprint `{classifier['weights']}`"]
    if explainer is not None:
        untrained = "" if explainer["trained_steps"] else "; **it has not been trained: these maps mean nothing**"
        lines.append(f"explainer: {in_code(shown(explainer['name']))}, fingerprint `{explainer['weights']}`{untrained}")
    lines.append(f"method: {settings.method or 'learned'}")
    if settings.targets is not None:
        lines.append(f"classes: {', '.join(map(str, settings.targets))}, the same for every picture")
    else:
        many = settings.options.get("top_k", 1)
        lines.append(f"classes: the {f'{many} ' if many > 1 else ''}most probable of each picture")
    lines += [f"{key}: {value}" for key, value in settings.options.items() if key != "top_k"]
    where = [f"{key} {data[key]}" for key in ("config", "split", "column", "seed") if data.get(key) is not None]
    lines.append(f"pictures: {in_markdown(', '.join([shown(data['name']), *where]))}")
    versions = {"hf-explain": __version__, "python": platform.python_version(), "torch": torch.__version__}
    versions |= {"transformers": transformers.__version__, "datasets": datasets.__version__}
    lines.append("versions: " + ", ".join(f"{package} {version}" for package, version in versions.items()))
    return "\n".join(f"- {line}" for line in lines)


def described(columns, settings: Settings) -> str:
    names = [*columns, *(["attribution"] if settings.maps else [])]
    lines = ["| column | |", "|---|---|"]
    for name in names:
        text = COLUMNS.get(name) or (
            f"{name.removeprefix('source_')}, as it was there" if name.startswith("source_") else "measured of the map"
        )
        cell = in_code(name).replace("|", "\\|")
        lines.append(f"| {cell} | {in_markdown(text) if name not in COLUMNS else text} |")
    return "\n".join(lines)


def measured(folder: Path, settings: Settings) -> str:
    """Means with 95 % intervals over the pictures; of several maps of a picture their mean counts once."""
    read = read_protocol(settings.options["measure"], {"label": "explained"})
    rows = column(folder, "row")
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    lines = [f"| {read.said(str(settings.options['measure']))} | mean | 95 % interval |", "|---|---:|---:|"]
    better = {curve.name: curve.better for curve in read.curves}
    for name in settings.measured:
        values = column(folder, name).astype(float)
        found = interval(np.add.reduceat(values, starts) / np.diff([*starts, len(values)]))
        row = f"| {name.replace('_', ' ')} ({better[name]} is better) | {found['mean']:.4f} "
        lines.append(row + f"| {found['low']:.4f}–{found['high']:.4f} |")
    return "## Measured\n\n" + "\n".join(lines)
