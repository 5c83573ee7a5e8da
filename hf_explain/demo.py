"""The main job on the embedded pictures: train a classifier and its explainer, explain, measure, write a report."""

from __future__ import annotations

import json
import platform
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
import transformers
from accelerate import PartialState
from transformers import ViTImageProcessorPil
from transformers.utils import logging

from .comparison import Scenes, compare, predict, summarize, to_pixels
from .demo_pictures import draw, values
from .faithfulness import read_protocol
from .findings import headline, warning
from .lettering import save
from .modeling.classifier import Classifier
from .modeling.modeling_ranking import RankingExplainerForImageClassification
from .modeling.perturbation import ExplainerError, PixelSpace, blend, reference_image
from .modeling.slopes import BASELINES
from .objectives import OBJECTIVES
from .refinement import Refinement
from .report import write_report
from .scenes import CLASSES, draw_scenes
from .small_classifiers import (
    BLANK_REFERENCES,
    RECIPES,
    build_classifier,
    check_recipe,
    random_regions,
    train_classifier,
)
from .tables import table
from .training import TrainingConfig, train
from .training_config import read_reference

TRAIN_SEED, TUNE_SEED, REPORT_SEED = 0, 1, 10_000
SEEN = ("black", "black", "blur", 1.0)  # what the explainer learns to remove pixels to, black most often; never noise


@dataclass(frozen=True)
class Demo:
    """The settings of a demo; `hf-explain demo` has a flag for each.

    Args:
        output_dir: gets classifier/, explainer/, report.html, overlays.png, curves.png and metrics.json.
        backbone: a key of `small_classifiers.RECIPES`.
        size: of the pictures, in pixels.
        seed: of both trainings, and of the pictures that are reported.
        train_pictures: how many both are trained on.
        tune_pictures: how many the smoothing of integrated gradients is chosen on.
        report_pictures: how many everything is measured on.
        epochs: of the classifier; default those of its recipe.
        explainer_steps: optimizer steps of the explainer.
        batch_size: pictures per step of the explainer.
        learning_rate: of the explainer.
        hidden_size: channels of the explainer.
        one_pass: the explainer reads hidden states only, not the classifier's slopes.
        references: pixels are removed to these in the measurements.
        budgets: points of the measured curves.
        refine_steps: of the refined maps.
    """

    output_dir: str = "hf-explain-demo"
    backbone: str = "vit"
    size: int = 64
    seed: int = 0
    train_pictures: int = 8000
    tune_pictures: int = 32
    report_pictures: int = 100
    epochs: int | None = None
    explainer_steps: int = 700
    batch_size: int = 16
    learning_rate: float = 5e-3
    hidden_size: int = 64
    one_pass: bool = False
    references: tuple[str, ...] = ("black", "blur", "noise")
    budgets: int = 11
    refine_steps: int = 8


def run(demo: Demo) -> dict:
    """The results, which are also in metrics.json; per-picture values are under "pictures"."""
    references = check(demo)
    output, clock = Path(demo.output_dir), Clock()
    output.mkdir(parents=True, exist_ok=True)
    device = PartialState().device  # a GPU where there is one, as in training

    say(f"This takes about {max(1, round(estimate(demo, device) / 60))} minutes on {name_of_device(device)}.")
    with clock("pictures", "Drawing the pictures"):
        sets = [draw_scenes(n, s, demo.size) for n, s in splits(demo)]
    with clock("classifier", f"Training the classifier: a small {demo.backbone}"):
        classifier = make_classifier(demo, sets[0], device)
    tune, report = (Scenes(classifier, *data) for data in sets[1:])
    accuracy, masked = accuracies(classifier, report)
    say(f"It names {100 * accuracy:.1f} % of {len(report)} new pictures rightly.")

    with clock("explainer", "Training its explainer, on the same pictures without their labels"):
        explainer = make_explainer(demo, classifier, sets[0][0])
    explainer.save_pretrained(output / "explainer", include_classifier=True)

    with clock("measurement", "Measuring it beside other methods, on new pictures"):
        runs, maps = compare(
            explainer, report, tune, references,
            budgets=demo.budgets, refinement={"steps": demo.refine_steps}, progress=bar,
        )  # fmt: skip
    results = describe(demo, clock, classifier, explainer, accuracy, masked, runs, device)
    results["cases"], pictures = draw(results, runs, maps, report)
    save(pictures["overlays"], output / "overlays.png")
    save(pictures["curves"], output / "curves.png")
    write_report(output / "report.html", results, pictures)
    (output / "metrics.json").write_text(json.dumps(results | {"pictures": values(runs)}, indent=1))
    say("\n" + table(results, style="text"))
    say("\n".join(["", *headline(results), *filter(None, [warning(results)])]))
    say(f"\n{clock.total() / 60:.1f} minutes. Open {output / 'report.html'}")
    return results


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
    training_config(demo)
    Refinement(steps=demo.refine_steps)
    read_protocol("aha", {"budgets": demo.budgets})
    return [read_reference(reference) for reference in demo.references]


def estimate(demo: Demo, device: torch.device) -> float:
    """Seconds of the whole demo, from the time the classifier takes for a forward and backward of some pictures."""
    model = build_classifier(demo.backbone, demo.size).to(device).requires_grad_(False)
    pictures = torch.rand(64, 3, demo.size, demo.size, device=device, requires_grad=True)
    for _ in range(2):  # the first one is slow
        started = time.perf_counter()
        torch.autograd.grad(model(pictures).logits.sum(), pictures)
        float(pictures.detach()[0, 0, 0, 0])  # waits for a GPU
        one = (time.perf_counter() - started) / len(pictures)
    recipe = RECIPES[demo.backbone]
    training = demo.train_pictures * (recipe.epochs if demo.epochs is None else demo.epochs)
    perturbed = 2 * OBJECTIVES["default"].sampled + (0 if demo.one_pass else len(BASELINES))
    explaining = 1.3 * demo.explainer_steps * demo.batch_size * perturbed
    curves = 9 * len(demo.references) * 2 * demo.budgets / 3  # forwards only: a third
    maps = 150 + 160 + 2 * 16 * demo.refine_steps  # occlusion, integrated gradients, refinement
    return one * (training + explaining + demo.report_pictures * (curves + maps))


def name_of_device(device: torch.device) -> str:
    threads = torch.get_num_threads()
    cpu = f"{threads} CPU thread{'s' if threads > 1 else ''}"
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu


def splits(demo: Demo) -> list[tuple[int, int]]:
    """(how many, seed) of the pictures for training, tuning and reporting."""
    counts = demo.train_pictures, demo.tune_pictures, demo.report_pictures
    return list(zip(counts, (TRAIN_SEED, TUNE_SEED, REPORT_SEED + demo.seed)))


def make_classifier(demo: Demo, data, device) -> Classifier:
    """Trained, and saved in classifier/."""
    images, labels, _ = data
    model = build_classifier(demo.backbone, demo.size, demo.seed)
    processor = ViTImageProcessorPil(size={"height": demo.size, "width": demo.size})
    space = PixelSpace.from_image_processor(processor)
    recipe = RECIPES[demo.backbone]
    if demo.epochs is not None:
        recipe = replace(recipe, epochs=demo.epochs)
    pixels = to_pixels(Classifier(model, processor), images)
    train_classifier(
        model.to(device), pixels, torch.as_tensor(labels), space, recipe=recipe, seed=demo.seed, progress=bar
    )
    folder = Path(demo.output_dir) / "classifier"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Classifier.from_pretrained(folder).to(device)


def make_explainer(demo: Demo, classifier: Classifier, images: np.ndarray):
    """Trained on the pictures alone: what it learns from is the classifier."""
    explainer = RankingExplainerForImageClassification.from_classifier(
        classifier, preset="tiny", seed=demo.seed, hidden_size=demo.hidden_size, pixel_size=8, hybrid=not demo.one_pass
    )
    result = train(explainer, Pixels(to_pixels(classifier, images)), training_config(demo))
    if result.stopped_by:  # the training catches signals, to save; here there is nothing to go on from
        raise SystemExit(128 + result.stopped_by)
    return explainer.eval()


def training_config(demo: Demo) -> TrainingConfig:
    return TrainingConfig(
        seed=demo.seed,
        max_steps=demo.explainer_steps,
        per_device_train_batch_size=demo.batch_size,
        learning_rate=demo.learning_rate,
        references=tuple(map(str, SEEN)),
        num_workers=0,
    )


class Pixels(torch.utils.data.Dataset):
    def __init__(self, pixel_values: torch.Tensor):
        self.pixel_values = pixel_values

    def __len__(self):
        return len(self.pixel_values)

    def __getitem__(self, index):
        return {"pixel_values": self.pixel_values[index]}


def accuracies(classifier: Classifier, scenes: Scenes) -> tuple[float, dict[str, float]]:
    """On whole pictures, and with a share of random regions blanked, mean over the references of training."""
    random, by_share = torch.Generator().manual_seed(0), {}
    for share in (0.0, 0.1, 0.25, 0.5, 0.75, 0.9):
        right = []
        for reference in BLANK_REFERENCES:
            gone = random_regions(scenes.pixel_values, torch.tensor(share), random)
            blank = reference_image(scenes.pixel_values, classifier.pixel_space, reference)
            right.append(predict(classifier, blend(scenes.pixel_values, gone, blank)) == scenes.labels)
        by_share[str(share)] = float(torch.stack(right).float().mean())
    return by_share["0.0"], by_share


def describe(demo, clock, classifier, explainer, accuracy, masked, runs, device) -> dict:
    methods, comparisons = summarize([runs])
    counts = zip(("train", "tune", "report"), splits(demo))
    used = {*map(str, (*SEEN, *BLANK_REFERENCES, *Refinement().references, *Refinement().judges))}
    return {
        "command": command(demo),
        "backbone": demo.backbone,
        "size": demo.size,
        "seed": demo.seed,
        "settings": asdict(demo) | {"output_dir": Path(demo.output_dir).name},
        "device": name_of_device(device),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "minutes": clock.total() / 60,
        "seconds": clock.seconds,
        "data": {key: {"seed": seed, "pictures": n} for key, (n, seed) in counts} | {"classes": CLASSES},
        "classifier": {
            "parameters": sum(p.numel() for p in classifier.parameters()),
            "accuracy": accuracy,
            "accuracy_when_masked": masked,
        },
        "explainer": {
            "parameters": sum(p.numel() for p in explainer.head.parameters()),
            "hybrid": not demo.one_pass,
            "steps": demo.explainer_steps,
            "batch_size": demo.batch_size,
            "references": list(dict.fromkeys(map(str, SEEN))),
        },
        "unseen": [r for r in runs["learned"]["references"] if r not in used],
        "protocol": {r: found["protocol"] for r, found in runs["learned"]["references"].items()},
        "methods": methods,
        "comparisons": comparisons,
    }


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


# ---- talking ----


class Clock:
    """Says what begins, and keeps how long it took."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str, sentence: str):
        say(sentence + " ...")
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 1)

    def total(self) -> float:
        return sum(self.seconds.values())


def say(text: str) -> None:
    print(text, flush=True)


def bar(steps):
    """A progress bar with the time left; silent when not on a terminal."""
    return logging.tqdm(steps, disable=None, leave=False)
