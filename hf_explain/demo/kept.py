"""The app's own model, for when there is no network: what the demo trains, trained once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import PIL.Image
import torch
import transformers
from huggingface_hub import constants

from ..data.scenes import draw_scene, draw_scenes
from .settings import REPORT_SEED, Demo, check, splits

EXAMPLES = 4
EXAMPLE_SIDE = 256


def cache_folder() -> Path:
    """Where models and pictures of the app's own stay, beside those of the Hub."""
    return Path(constants.HF_HOME) / "hf-explain"


def demo_explainer(cache: str | os.PathLike | None = None, demo: Demo | None = None) -> str:
    """The folder of the demo's explainer with its classifier inside; trained first, in minutes, if it is not there.

    Args:
        cache: folder to keep it in.
        demo: its settings. Another version of the library, of torch or of transformers trains anew, as do others.
    """
    demo = demo or Demo()
    check(demo)
    cache = Path(cache or cache_folder())
    found = cache / f"demo-{key(demo)}"
    if (found / "config.json").exists():
        return str(found)
    cache.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="training-", dir=cache))
    try:
        train(demo, scratch)
        os.rename(scratch / "explainer", found)  # whole or not at all, whoever is first
    except OSError:
        if not (found / "config.json").exists():
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return str(found)


def key(demo: Demo) -> str:
    """Of what decides which weights come out."""
    from ..version import __version__

    settings = {k: v for k, v in asdict(demo).items() if k not in ("output_dir", "report_pictures", "budgets")}
    versions = [__version__, torch.__version__, transformers.__version__]
    return hashlib.sha256(json.dumps([settings, versions], sort_keys=True).encode()).hexdigest()[:16]


def train(demo: Demo, folder: Path) -> None:
    """Its classifier and explainer, as `hf-explain demo` trains them."""
    from accelerate import PartialState  # a start that finds it trained does not wait for these

    from .run import make_classifier, make_explainer

    demo = replace(demo, output_dir=str(folder))
    print("Training the app's own classifier and explainer: some minutes, once.", flush=True)
    print("With --model FOLDER it uses what a demo or a training wrote, such as hf-explain-demo/explainer.", flush=True)
    pictures = draw_scenes(*splits(demo)[0], demo.size)
    classifier, pixel_values = make_classifier(demo, pictures, PartialState().device)
    make_explainer(demo, classifier, pixel_values).save_pretrained(folder / "explainer", include_classifier=True)


def example_pictures(cache: str | os.PathLike | None = None) -> list[str]:
    """Files of scenes that no training saw, for the page's examples."""
    folder = Path(cache or cache_folder()) / "examples"
    folder.mkdir(parents=True, exist_ok=True)
    return [str(draw_example(folder, REPORT_SEED, index)) for index in range(EXAMPLES)]


def draw_example(folder: Path, seed: int, index: int, side: int = EXAMPLE_SIDE) -> Path:
    path = folder / f"scene-{index}.jpg"
    if not path.exists():
        PIL.Image.fromarray(draw_scene(seed, index, side).image).save(path, quality=90)
    return path
