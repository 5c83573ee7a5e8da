"""What a demo can be told: its settings, which of them cannot work, how long they take."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from ..data.small_classifiers import RECIPES, Recipe, build_classifier, check_recipe
from ..faithfulness.protocols import read_protocol
from ..jobs.flags import setting
from ..modeling.configuration_explainer import RankingExplainerConfig
from ..modeling.errors import ExplainerError
from ..modeling.references import read_reference
from ..modeling.slopes import BASELINES
from ..training.config import TrainingConfig
from ..training.objectives import OBJECTIVES
from ..training.refinement import Refinement

TRAIN_SEED, TUNE_SEED, REPORT_SEED = 0, 1, 10_000
SEEN = ("black", "black", "blur", 1.0)  # what the explainer learns to remove pixels to, black most often; never noise


@dataclass(frozen=True)
class Demo:
    """The settings of a demo; `hf-explain demo` has a flag for each."""

    output_dir: str = setting(
        "hf-explain-demo", "gets classifier/, explainer/, report.html, overlays.png, curves.png and metrics.json"
    )
    backbone: str = setting("vit", "a key of `small_classifiers.RECIPES`")
    size: int = setting(64, "of the pictures, in pixels")
    seed: int = setting(0, "of both trainings, and of the pictures that are reported")
    train_pictures: int = setting(8000, "how many both are trained on")
    tune_pictures: int = setting(32, "how many the smoothing of integrated gradients is chosen on")
    report_pictures: int = setting(100, "how many everything is measured on")
    epochs: int | None = setting(None, "of the classifier; default those of its recipe")
    explainer_steps: int = setting(700, "optimizer steps of the explainer")
    batch_size: int = setting(16, "pictures per step of the explainer")
    learning_rate: float | None = setting(None, "of the explainer; default that of the backbone's recipe, or 0.005")
    hidden_size: int = setting(64, "channels of the explainer")
    neighborhood: int | None = setting(
        None,
        "side in pixels, odd, of the window whose mean is added to every pixel of the explainer's maps; 1 adds none; "
        "default that of the backbone's recipe",
    )
    one_pass: bool = setting(False, "the explainer reads hidden states only, not the classifier's slopes")
    references: tuple[str, ...] = setting(("black", "blur", "noise"), "pixels are removed to these in the measurements")
    budgets: int = setting(11, "points of the measured curves")
    refine_steps: int = setting(8, "of the refined maps")


def check(demo: Demo) -> list[str | float]:
    """The references, after refusing at once what would fail after minutes."""
    check_recipe(demo.backbone, demo.size)
    for name in ("train_pictures", "tune_pictures", "report_pictures"):
        if getattr(demo, name) < 2:
            raise ExplainerError(f"{name}={getattr(demo, name)}; give at least 2.")
    if demo.epochs is not None and demo.epochs < 1:
        raise ExplainerError(f"epochs={demo.epochs}; give at least 1.")
    if demo.hidden_size < 8 or demo.hidden_size % 8:
        raise ExplainerError(f"hidden_size={demo.hidden_size}; give a positive multiple of 8.")
    RankingExplainerConfig(neighborhood=neighborhood(demo))  # checks
    training_config(demo)
    Refinement(steps=demo.refine_steps)
    read_protocol("aha", {"budgets": demo.budgets})
    return [read_reference(reference) for reference in demo.references]


def recipe_of(demo: Demo) -> Recipe:
    """Of its classifier."""
    recipe = RECIPES[demo.backbone]
    return recipe if demo.epochs is None else replace(recipe, epochs=demo.epochs)


def settings_used(demo: Demo) -> dict[str, Any]:
    """The settings, with what was used where none was given; the folder without where it lies."""
    chosen = {
        "output_dir": Path(demo.output_dir).name,
        "epochs": recipe_of(demo).epochs,
        "learning_rate": training_config(demo).learning_rate,
        "neighborhood": neighborhood(demo),
    }
    return asdict(demo) | chosen


def splits(demo: Demo) -> list[tuple[int, int]]:
    """(how many, seed) of the pictures for training, tuning and reporting."""
    counts = demo.train_pictures, demo.tune_pictures, demo.report_pictures
    return list(zip(counts, (TRAIN_SEED, TUNE_SEED, REPORT_SEED + demo.seed)))


def neighborhood(demo: Demo) -> int:
    """Of the demo's explainer: a recipe's is for 64 pixels."""
    if demo.neighborhood is not None:
        return demo.neighborhood
    size = RECIPES[demo.backbone].neighborhood
    return 1 if size == 1 else size * demo.size // 64 | 1


def training_config(demo: Demo) -> TrainingConfig:
    asked = {} if demo.learning_rate is None else {"learning_rate": demo.learning_rate}
    values: dict[str, Any] = {
        "seed": demo.seed,
        "max_steps": demo.explainer_steps,
        "per_device_train_batch_size": demo.batch_size,
        "learning_rate": 5e-3,
        "references": tuple(map(str, SEEN)),
        "num_workers": 0,
    }
    return TrainingConfig(**values | dict(RECIPES[demo.backbone].explaining) | asked)


def estimate(demo: Demo, device: torch.device) -> float:
    """Seconds of the whole demo, from the time the classifier takes for a forward and backward of some pictures."""
    model = build_classifier(demo.backbone, demo.size).to(device).requires_grad_(False)
    pictures = torch.rand(64, 3, demo.size, demo.size, device=device, requires_grad=True)
    for _ in range(2):  # the first one is slow
        started = time.perf_counter()
        torch.autograd.grad(model(pictures).logits.sum(), pictures)
        float(pictures.detach()[0, 0, 0, 0])  # waits for a GPU
        one = (time.perf_counter() - started) / len(pictures)
    training = demo.train_pictures * recipe_of(demo).epochs
    perturbed = 2 * OBJECTIVES["default"].sampled + (0 if demo.one_pass else len(BASELINES))
    explaining = 1.3 * demo.explainer_steps * demo.batch_size * perturbed
    curves = 9 * len(demo.references) * 2 * demo.budgets / 3  # forwards only: a third
    maps = 150 + 160 + 2 * 16 * demo.refine_steps  # occlusion, integrated gradients, refinement
    return one * (training + explaining + demo.report_pictures * (curves + maps))


def command(demo: Demo) -> str:
    """What makes this again: the flags that are not at their defaults."""
    words = ["hf-explain demo"]
    for field in fields(demo):
        value = getattr(demo, field.name)
        if field.name != "output_dir" and value != field.default:
            words.append(f"--{field.name}" + ("" if value is True else f" {' '.join(map(str, as_list(value)))}"))
    return " ".join(words)


def as_list(value) -> list:
    return list(value) if isinstance(value, tuple) else [value]
