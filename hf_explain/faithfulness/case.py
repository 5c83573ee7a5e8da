"""What the metrics that alter pictures share: checked input, the score of a class, and forwards in packed batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from ..modeling.pixel_space import PixelSpace, floating
from ..modeling.targets import of_target, read_targets


def probability(classifier: Classifier, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return of_target(classifier.scores(logits), targets)


def surprise(classifier: Classifier, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return -probability(classifier, logits, targets).clamp(min=torch.finfo(torch.float32).tiny).log()


SCORES: dict[str, Callable[[Classifier, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "probability": probability,
    "indicator": lambda classifier, logits, targets: (logits.argmax(-1) == targets).float(),  # is it the prediction?
    "logit": lambda classifier, logits, targets: of_target(logits.float(), targets),
    "surprise": surprise,  # -log probability
}


@dataclass(frozen=True)
class Case:
    """Pictures on the classifier's device, the classes asked about, and what the classifier says of them unaltered."""

    classifier: Classifier
    pixel_values: torch.Tensor  # (B, 3, H, W)
    targets: torch.Tensor  # (B,)
    logits: torch.Tensor  # (B, num_labels)
    batch_size: int

    def __len__(self) -> int:
        return len(self.pixel_values)

    def clean(self, score: str) -> torch.Tensor:
        """Score of each unaltered picture, (B,)."""
        return find_score(score)(self.classifier, self.logits, self.targets)

    def altered(self, score: str, per_picture: int, make: Callable) -> torch.Tensor:
        """Scores (B, per_picture) of altered pictures: `make(at, which)` gives alteration `which` of the pictures `at`.

        Every pair is a forward of one picture; pairs are packed, so no batch is larger than `batch_size`.
        """
        return self.altered_by([score], per_picture, make)[0]

    def altered_by(self, scores: Sequence[str], per_picture: int, make: Callable) -> list[torch.Tensor]:
        """`altered`, by several scores of the same forwards."""
        read, found = [find_score(score) for score in scores], []
        for at, which in self.pairs(per_picture):
            logits = self.classifier(make(at, which))
            found.append(torch.stack([one(self.classifier, logits, self.targets[at]) for one in read]))
        return list(torch.cat(found, 1).view(len(read), len(self), per_picture))

    def maps_of(self, method: Callable, targets: torch.Tensor) -> torch.Tensor:
        """The method's maps of the classes `targets` (B,), as a metric compares them."""
        pairs = zip(self.pixel_values.split(self.batch_size), targets.split(self.batch_size), strict=True)
        return torch.cat([method(self.classifier, x, t).detach() for x, t in pairs])

    def pairs(self, per_picture: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(pictures, which alteration of them) of a batch at a time."""
        for jobs in torch.arange(len(self) * per_picture, device=self.pixel_values.device).split(self.batch_size):
            yield jobs // per_picture, jobs % per_picture


@torch.no_grad()
def prepare(
    classifier, pixel_values: torch.Tensor, attributions: torch.Tensor | None, targets, batch_size: int
) -> Case:
    """A `Case` of checked input; the default of `targets` is the prediction."""
    if batch_size < 1:
        raise ExplainerError(f"batch_size={batch_size}; give the pictures per forward, at least 1.")
    if attributions is not None:
        check_maps(pixel_values, attributions)
    pixel_values = floating(pixel_values).to(classifier.device)
    logits = all_logits(classifier, pixel_values, batch_size)
    targets = read_targets(targets, logits)
    if targets.ndim != 1:
        raise ExplainerError(f"targets of shape {tuple(targets.shape)}; a metric asks about one class per image.")
    return Case(classifier, pixel_values, targets, logits, batch_size)


def all_logits(classifier, pixel_values: torch.Tensor, batch_size: int) -> torch.Tensor:
    """(B, num_labels), of as many pictures per forward as `batch_size`."""
    return torch.cat([classifier(chunk.to(classifier.device)) for chunk in pixel_values.split(batch_size)])


@torch.no_grad()
def predict(classifier, pixel_values: torch.Tensor, batch_size: int = 128) -> torch.Tensor:
    return all_logits(classifier, pixel_values, batch_size).argmax(-1).cpu()


def check_maps(pixel_values: torch.Tensor, attributions: torch.Tensor) -> None:
    """Refuses what ranks nothing."""
    if attributions.shape != (len(pixel_values), *pixel_values.shape[-2:]):
        raise ExplainerError(
            f"attributions of shape {tuple(attributions.shape)} for pixel_values {tuple(pixel_values.shape)}; give one "
            "map (H, W) per picture, of its size."
        )
    check_values(attributions)


def check_values(attributions: torch.Tensor) -> None:
    for index, one in enumerate(attributions):
        if not torch.isfinite(one).all():
            raise ExplainerError(
                f"the attribution of image {index} holds NaN or infinite values, so it ranks nothing; mend it first."
            )
        if one.min() == one.max():
            raise ExplainerError(
                f"the attribution of image {index} is constant, so it ranks nothing; was the explainer trained?"
            )


def find_score(name: str):
    if name not in SCORES:
        raise ExplainerError(f"unknown score {name!r}; choose from {', '.join(SCORES)}.")
    return SCORES[name]


def need_space(classifier) -> PixelSpace:
    """The classifier's `PixelSpace`, for what is defined in colors."""
    if classifier.pixel_space is None:
        raise ExplainerError(
            "this metric alters colors, but how this classifier's image processor writes them is unknown; give "
            "Classifier(model, image_processor)."
        )
    return classifier.pixel_space


def color_gain(classifier, like: torch.Tensor) -> torch.Tensor:
    """Size of a step of 1 in colors from 0 to 1, per channel of `like` (..., 3, H, W): (3, 1, 1)."""
    return like.new_tensor(need_space(classifier).gain).abs().view(3, 1, 1)


def order_at_random(maps: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Maps with constant ones replaced by noise, and how many: occlusion is constant where nothing covered matters."""
    constant = maps.flatten(1).amax(1) == maps.flatten(1).amin(1)
    noise = torch.rand(maps[0].shape, generator=torch.Generator().manual_seed(0))
    return torch.where(constant[:, None, None], noise, maps), int(constant.sum())
