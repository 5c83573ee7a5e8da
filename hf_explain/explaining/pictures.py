"""`hf-explain explain` with pictures: their maps drawn over them, and a line for each."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import PIL.Image

from ..modeling.errors import ExplainerError
from ..photos.pictures import PREFIX, picture_file


def check_names(names: list[str]) -> bool:
    """Whether they are pictures; refuses files that are neither these nor parquet, and several data sets."""
    for name in map(picture_file, names):
        if os.path.isfile(name) and not is_picture(name) and not name.endswith(".parquet"):
            raise ExplainerError(
                f"{name} is a file, but by its name neither a picture nor parquet; give pictures, a folder of them, or "
                "another data set."
            )
    if len(names) == 1:
        return is_picture(names[0])
    seen: dict[str, str] = {}
    for name in names:
        if not is_picture(name):
            raise ExplainerError(f"{name} is no picture; give pictures only, or one data set alone.")
        if stem_of(name) in seen:
            raise ExplainerError(
                f"the overlays of {seen[stem_of(name)]} and {name} would have the same names; explain one after the "
                "other, with another --output_dir."
            )
        seen[stem_of(name)] = name
    return True


def is_picture(name: str) -> bool:
    suffix = os.path.splitext(urlsplit(name).path)[1].lower()
    known = suffix in PIL.Image.registered_extensions()
    return not os.path.isdir(name) and (known or name.startswith((PREFIX, "http://", "https://")))


def stem_of(name: str) -> str:
    return slug(os.path.splitext(os.path.basename(urlsplit(name).path))[0])


def explain_pictures(names: list[str], pipe, targets, folder: Path, made_by: str) -> None:
    for name in names:
        found = pipe([picture_file(name)], target=None if targets is None else [targets])[0]
        folder.mkdir(parents=True, exist_ok=True)
        for entry in found:
            path = folder / f"{stem_of(name)}-{entry['index']}-{slug(entry['label'])}-{made_by}.png"
            entry["heatmap"].save(path)
            measured = entry.get("faithfulness", {})
            areas = "".join(f", {key} {value:.3f}" for key, value in measured.items() if isinstance(value, float))
            print(f"{entry['label']}: {entry['score']:.3f}{areas}, {path}")


def slug(text: str) -> str:
    """A label as a part of a file's name.

    >>> slug("tabby, tabby cat")
    'tabby_tabby_cat'
    """
    return re.sub(r"\W+", "_", text).strip("_")[:60] or "class"
