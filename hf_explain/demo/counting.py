"""How many patches are red? The faithfulness task of Vision DiffMask (arXiv 2304.06391), on which the truth is known.

Pictures are 3 x 3 patches of one color each, and the class is the number of red ones. What decides is exactly the red
patches: a mask of what must be kept can be compared with them, patch by patch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from ..data.scenes import to_pixels
from ..faithfulness.case import predict
from ..jobs.flags import setting
from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from ..modeling.modeling_diffmask import DiffMaskExplainerForImageClassification
from ..training.config import TrainingConfig
from ..training.loop import train

SIDE, PATCH = 3, 16  # patches a side, pixels of each
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255], [0, 255, 255]], np.uint8)
TRAIN, HELD_OUT = 0, 10_000  # seeds


@dataclass(frozen=True)
class Counting:
    """The settings of a run."""

    output_dir: str = setting("hf-explain-counting", "gets classifier/, explainer/ and metrics.json")
    seed: int = setting(0, "of both trainings")
    pictures: int = setting(6000, "how many both are trained on")
    held_out: int = setting(600, "how many both are judged by")
    epochs: int = setting(12, "of the classifier")
    steps: int = setting(1000, "of the explainer")
    batch_size: int = setting(64, "pictures per step of the explainer")
    learning_rate: float = setting(5e-3, "of the gates")


def draw_counting(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures (N, 48, 48, 3) uint8, numbers of red patches (N,), and which they are (N, 3, 3) bool.

    >>> images, labels, red = draw_counting(2, seed=0)
    >>> images.shape, bool((red.sum((1, 2)) == labels).all())
    ((2, 48, 48, 3), True)
    """
    random = np.random.default_rng(seed)
    labels = random.integers(0, SIDE * SIDE + 1, count)
    red = random.random((count, SIDE * SIDE)).argsort(1).argsort(1) < labels[:, None]
    colors = np.where(red, 0, random.integers(1, len(COLORS), red.shape)).reshape(count, SIDE, SIDE)
    images = COLORS[colors].repeat(PATCH, 1).repeat(PATCH, 2)
    return images, labels, red.reshape(count, SIDE, SIDE)


def run(settings: Counting, say=print) -> dict:
    """The results, which are also in metrics.json."""
    for name in ("pictures", "held_out", "epochs", "batch_size"):
        if getattr(settings, name) < 1:
            raise ExplainerError(f"{name}={getattr(settings, name)}; give at least 1.")
    output = Path(settings.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    images, labels, _ = draw_counting(settings.pictures, TRAIN + settings.seed)
    held, truth, red = draw_counting(settings.held_out, HELD_OUT + settings.seed)
    say("Training a classifier that counts red patches ...")
    classifier = make_classifier(settings, images, labels)
    right = predict(classifier, to_pixels(classifier, held), 256).numpy() == truth
    accuracy = float(right.mean())
    say(f"It counts {100 * accuracy:.1f} % of {len(held)} new pictures rightly.")
    say("Training gates that keep as few patches as they can ...")
    explainer = DiffMaskExplainerForImageClassification.from_classifier(classifier, seed=settings.seed)
    config = TrainingConfig(
        seed=settings.seed, max_steps=settings.steps, per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate, weight_decay=0.0, num_workers=0,
    )  # fmt: skip
    train(explainer, [{"pixel_values": x} for x in to_pixels(classifier, images)], config)
    explainer.eval().save_pretrained(output / "explainer", include_classifier=True)
    some = (truth > 0) & right  # where there is something to keep, and it was counted rightly
    kept = explainer.votes(to_pixels(classifier, held[some]).to(classifier.device)).kept.cpu()
    counts, patches = truth[some], torch.as_tensor(red[some])
    results = {
        "settings": asdict(settings) | {"output_dir": output.name},
        "accuracy": accuracy,
        "pictures": int(some.sum()),
        "f1": f1(kept > 0.5, patches),
        "f1_all_kept": f1(torch.ones_like(kept, dtype=torch.bool), patches),
        "f1_by_count": {int(n): f1(kept[counts == n] > 0.5, patches[counts == n]) for n in np.unique(counts)},
        "kept": float(kept.mean()),
        "red": float(red[some].mean()),
    }
    (output / "metrics.json").write_text(json.dumps(results, indent=1))
    say(
        f"Patches kept with more than even odds are the red ones with F1 {results['f1']:.3f}; keeping all of them: "
        f"{results['f1_all_kept']:.3f}. {results['pictures']} held-out pictures with 1 to 9 red patches."
    )
    return results


def f1(kept: torch.Tensor, red: torch.Tensor) -> float:
    """Of all patches together."""
    both = float((kept & red).sum())
    return 2 * both / max(1.0, float(kept.sum() + red.sum()))


def make_classifier(settings: Counting, images: np.ndarray, labels: np.ndarray) -> Classifier:
    """A small ViT, trained to count, and saved in classifier/."""
    config = ViTConfig(
        image_size=SIDE * PATCH, patch_size=PATCH, hidden_size=64, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=128, num_labels=SIDE * SIDE + 1, initializer_range=0.06,
        id2label={n: f"{n} red" for n in range(SIDE * SIDE + 1)},
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        model = ViTForImageClassification(config)
    size = {"height": SIDE * PATCH, "width": SIDE * PATCH}
    classifier = Classifier(model, ViTImageProcessorPil(size=size))
    pixels, classes = to_pixels(classifier, images), torch.as_tensor(labels)
    random, batch = torch.Generator().manual_seed(settings.seed), 64
    steps = settings.epochs * -(-len(pixels) // batch)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    model.train()
    for _ in range(settings.epochs):
        for chosen in torch.randperm(len(pixels), generator=random).split(batch):
            logits = model(pixel_values=pixels[chosen]).logits
            optimizer.zero_grad()
            F.cross_entropy(logits, classes[chosen]).backward()
            optimizer.step()
            schedule.step()
    folder = Path(settings.output_dir) / "classifier"
    model.save_pretrained(folder)
    classifier.image_processor.save_pretrained(folder)
    return Classifier.from_pretrained(folder)
