"""The main job on the embedded pictures: train a classifier and its explainer, explain, measure, write a report."""

from __future__ import annotations

import json
import platform
import shlex
import time
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from accelerate import PartialState
from transformers import ViTImageProcessorPil

from ..data.scenes import CLASSES, draw_scenes, to_pixels
from ..data.small_classifiers import BLANK_REFERENCES, build_classifier, random_regions, train_classifier
from ..faithfulness.case import predict
from ..jobs.progress import progress
from ..modeling.classifier import Classifier
from ..modeling.modeling_ranking import RankingExplainerForImageClassification
from ..modeling.perturbation import blend
from ..modeling.pixel_space import PixelSpace
from ..modeling.references import reference_image
from ..reports.findings import headline, warning
from ..reports.lettering import save
from ..reports.page import write_report
from ..reports.tables import table
from ..training.loop import train
from ..training.refinement import Refinement
from .comparison import Scenes, compare, summarize
from .pictures import draw, values
from .settings import (
    SEEN,
    Demo,
    check,
    command,
    estimate,
    neighborhood,
    recipe_of,
    settings_used,
    splits,
    training_config,
)


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
        classifier, pixel_values = make_classifier(demo, sets[0], device)
    tune, report = (Scenes(classifier, *data) for data in sets[1:])
    accuracy, masked = accuracies(classifier, report)
    say(f"It names {100 * accuracy:.1f} % of {len(report)} new pictures rightly.")

    with clock("explainer", "Training its explainer, on the same pictures without their labels"):
        explainer = make_explainer(demo, classifier, pixel_values)
    del pixel_values  # of large pictures they are gigabytes, which the measurement has better use for
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
    say(onwards(output / "explainer"))
    return results


def onwards(explainer: Path) -> str:
    """What can be done next, in two lines."""
    return (
        f"To look at its maps on a page: hf-explain app --model {shlex.quote(str(explainer))}\n"
        "In Python: import hf_explain, transformers; "
        f'found = transformers.pipeline("image-attribution", model={str(explainer)!r})("picture.jpg")'
    )


def make_classifier(demo: Demo, data, device) -> tuple[Classifier, torch.Tensor]:
    """Trained, and saved in classifier/; and the pixel values it was trained on."""
    images, labels, _ = data
    model = build_classifier(demo.backbone, demo.size, demo.seed)
    processor = ViTImageProcessorPil(size={"height": demo.size, "width": demo.size})
    space = PixelSpace.from_image_processor(processor)
    pixel_values = to_pixels(Classifier(model, processor), images)
    train_classifier(
        model.to(device), pixel_values, torch.as_tensor(labels), space,
        recipe=recipe_of(demo), seed=demo.seed, progress=bar,
    )  # fmt: skip
    folder = Path(demo.output_dir) / "classifier"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Classifier.from_pretrained(folder).to(device), pixel_values


def make_explainer(demo: Demo, classifier: Classifier, pixel_values: torch.Tensor):
    """Trained on the pictures alone: what it learns from is the classifier."""
    explainer = RankingExplainerForImageClassification.from_classifier(
        classifier, preset="tiny", seed=demo.seed, hidden_size=demo.hidden_size, pixel_size=8,
        hybrid=not demo.one_pass, neighborhood=neighborhood(demo),
    )  # fmt: skip
    result = train(explainer, [{"pixel_values": picture} for picture in pixel_values], training_config(demo))
    if result.stopped_by:  # the training catches signals, to save; here there is nothing to go on from
        raise SystemExit(128 + result.stopped_by)
    return explainer.eval()


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
        "settings": settings_used(demo),
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
    return progress(steps, desc="so far", leave=False)


def name_of_device(device: torch.device) -> str:
    threads = torch.get_num_threads()
    cpu = f"{threads} CPU thread{'s' if threads > 1 else ''}"
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu
