"""What the app computes, as plain functions of a `Model`, a `Picture`, a class or a map."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import PIL.Image
import torch

from ..explaining.counterfactual import counterfactual
from ..explaining.regions import smallest_region
from ..faithfulness.measurement import measure
from ..methods.cams import last_layer
from ..methods.naming import named
from ..methods.semantic_pullback import need_space
from ..modeling.errors import ExplainerError
from ..modeling.perturbation import blend, rank_each, top_mask
from ..modeling.references import reference_image
from . import painting
from .models import LEARNED, Model
from .uploads import Picture

BUDGETS = 21  # points of a curve: every 5 % of the pixels
SEED = 0  # of methods that draw random numbers, of refinement, and of the order among equal pixels


@dataclass(frozen=True)
class Prediction:
    """name (unique among the classifier's classes), class index, and probability."""

    name: str
    index: int
    score: float


@dataclass(frozen=True)
class Seen:
    """What a classifier says of a picture: the most probable classes; the names and methods to choose from.

    `first` is the method it is asked with where none was chosen.
    """

    top: tuple[Prediction, ...]
    names: tuple[str, ...]
    methods: tuple[str, ...]
    first: str


@dataclass(frozen=True)
class Map:
    """A map and what it belongs to; two are the same if they answer the same question.

    Args:
        attribution: (H, W) of the picture, NaN where the model never looked.
        at_model: (1, h, w), as the model's input lies.
        pixel_values: that input, (1, 3, h, w).
        signed: whether zero means "does not matter", and below it "speaks against".
        seconds: it took, with one picture per forward.
    """

    picture: Picture
    prediction: Prediction
    method: str
    refine_steps: int
    attribution: np.ndarray = field(compare=False, repr=False)
    at_model: torch.Tensor = field(compare=False, repr=False)
    pixel_values: torch.Tensor = field(compare=False, repr=False)
    signed: bool = field(compare=False)
    seconds: float = field(compare=False)


@dataclass(frozen=True)
class Walk:
    """How the class's probability follows the pixels, and what the model sees on the way.

    Args:
        shares: of the pixels, of every point.
        curves: "deletion" and "insertion" -> the probability at every share.
        areas: under them.
        rank: of every pixel, (h, w), 0 is the most important one.
        seen, blank: the model's input, and what removed pixels become, RGB in [0, 1], (3, h, w).
    """

    map: Map
    shares: tuple[float, ...]
    curves: dict[str, list[float]]
    areas: dict[str, float]
    protocol: dict
    rank: torch.Tensor = field(repr=False)
    seen: torch.Tensor = field(repr=False)
    blank: torch.Tensor = field(repr=False)

    def nearest(self, share: float) -> int:
        """The point of the curves that is nearest to a share of the pixels."""
        return min(range(len(self.shares)), key=lambda i: abs(self.shares[i] - share))


@torch.no_grad()
def predict(model: Model, picture: Picture, count: int = 5) -> Seen:
    """The `count` most probable classes."""
    pixel_values = read(model, picture)
    scores = model.classifier.scores(model.classifier(pixel_values))[0]
    best = scores.topk(min(count, len(scores)))
    top = [Prediction(model.names[i], i, s) for s, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
    return Seen(tuple(top), tuple(model.names), tuple(model.methods), first_method(model, pixel_values))


def first_method(model: Model, pixel_values: torch.Tensor) -> str:
    """The explainer if there is one; else Grad-CAM, the best on photographs, wherever it is defined."""
    if model.explainer is not None:
        return LEARNED
    try:
        last_layer(model.classifier, pixel_values)
    except ExplainerError:
        return "input_x_gradient"
    return "grad_cam"


def attribute(
    model: Model, picture: Picture, target: str | int | None = None, method: str = LEARNED, refine_steps: int = 0
) -> Map:
    """The map of a class, default the prediction, by the learned explainer or one of `METHODS`, refined."""
    options: dict = {"refine_steps": refine_steps, "seed": SEED}
    if method != LEARNED:
        options["method"] = named(method)
    pipe = model.pipe(method)
    item = pipe.preprocess(picture.image)
    wanted = None if target is None else torch.tensor([[model.index(target)]])
    started = time.perf_counter()
    outputs = pipe.forward({"pixel_values": item["pixel_values"]}, targets=wanted, **options)
    seconds = time.perf_counter() - started
    one = {key: outputs[key][0] for key in ("maps", "targets", "logits")}
    signed = bool(outputs.get("signed"))
    found = pipe.postprocess({**one, **item, "pixel_values": item["pixel_values"][0], "signed": signed})[0]
    return Map(
        picture=picture,
        prediction=Prediction(model.names[found["index"]], found["index"], found["score"]),
        method=method,
        refine_steps=refine_steps,
        attribution=found["attribution"],
        at_model=one["maps"].float().cpu(),
        pixel_values=item["pixel_values"],
        signed=signed and bool((one["maps"] < 0).any()),
        seconds=seconds,
    )


def walk(model: Model, one: Map, reference: str = "black") -> Walk:
    """Deletion and insertion of a map, by the preset "aha" with another reference."""
    space, target = need_space(model.classifier), torch.tensor([one.prediction.index])
    report = measure(
        model.classifier, one.pixel_values, one.at_model, target, "aha", reference=reference, budgets=BUDGETS, seed=SEED
    )
    blank = reference_image(one.pixel_values, space, reference, torch.Generator().manual_seed(SEED))
    return Walk(
        map=one,
        shares=tuple(i / (BUDGETS - 1) for i in range(BUDGETS)),
        curves={name: curve[0].tolist() for name, curve in report.curves.items()},
        areas={name: float(area[0]) for name, area in report.areas.items()},
        protocol=report.protocol,
        rank=rank_each(one.at_model, SEED)[0],
        seen=space.to_rgb(one.pixel_values)[0],
        blank=space.to_rgb(blank)[0],
    )


def steps_of(walk: Walk, share: float) -> dict[str, tuple[PIL.Image.Image, float]]:
    """curve -> what the model sees with that share of the pixels removed or brought back, and the probability."""
    at = walk.nearest(share)
    top = top_mask(walk.rank[None], walk.shares[at])
    pictures = {
        "deletion": blend(walk.seen[None], top, walk.blank[None])[0],
        "insertion": blend(walk.blank[None], top, walk.seen[None])[0],
    }
    return {name: (to_image(rgb), walk.curves[name][at]) for name, rgb in pictures.items()}


def region(model: Model, one: Map, reference: str = "black") -> float:
    """The smallest top share of the map's pixels that keeps the prediction, everything else removed."""
    predicted = predict(model, one.picture, 1).top[0]
    if predicted.index != one.prediction.index:
        raise ExplainerError(
            f"the smallest region is that of the prediction, {predicted.name!r}, not of {one.prediction.name!r}; "
            "choose the prediction to see it."
        )
    targets = torch.tensor([predicted.index])
    found = smallest_region(model.classifier, one.pixel_values, one.at_model, targets, reference=reference, seed=SEED)
    return float(found.shares[0])


def difference(one: Map, other: Map) -> np.ndarray:
    """(H, W): how much higher a pixel ranks in one map than in the other, from -1 to 1; only order has a meaning."""
    high, low = (relative_rank(values.attribution) for values in (one, other))
    return high - low


def relative_rank(attribution: np.ndarray) -> np.ndarray:
    """From 0, the least important pixel, to 1; NaN as they were.

    >>> relative_rank(np.array([[0.1, 9.0], [0.5, np.nan]])).tolist()
    [[0.0, 1.0], [0.5, nan]]
    """
    rank = rank_each(torch.as_tensor(attribution)[None], SEED)[0].numpy()
    seen = np.isfinite(attribution)
    return np.where(seen, 1 - rank / max(1, seen.sum() - 1), np.nan)


@dataclass(frozen=True)
class Moved:
    """A picture on its way to a class: what the model would see, with the class's probability, from the start on.

    `change` (h, w) is how much brighter or darker each pixel became, from -1 to 1.
    """

    pictures: tuple[PIL.Image.Image, ...]
    probabilities: tuple[float, ...]
    change: np.ndarray
    target: Prediction
    reached: bool


def move(model: Model, picture: Picture, target: str | int, steps: int = 5, length: float = 20.0) -> Moved:
    """The picture moved towards a class in single steps of `counterfactual`."""
    index, space = model.index(target), need_space(model.classifier)
    start = here = read(model, picture)
    pictures, reached = [to_image(space.to_rgb(start)[0])], False
    probabilities: list[float] = []
    for _ in range(steps):
        found = counterfactual(model.classifier, here, index, steps=1, length=length)
        here, reached = found.pixel_values.cpu(), bool(found.reached[0])
        pictures.append(to_image(space.to_rgb(here)[0]))
        probabilities += found.probabilities[0].tolist()[1 if probabilities else 0 :]
    change = (space.to_rgb(here) - space.to_rgb(start))[0].mean(0)
    last = Prediction(model.names[index], index, probabilities[-1])
    return Moved(tuple(pictures), tuple(probabilities), change.numpy(), last, reached)


def read(model: Model, picture: Picture) -> torch.Tensor:
    """The model's input, (1, 3, h, w)."""
    return model.pipe().preprocess(picture.image)["pixel_values"]


def to_image(rgb: torch.Tensor) -> PIL.Image.Image:
    """Of RGB (3, H, W) in [0, 1]."""
    return painting.to_image(255 * rgb.permute(1, 2, 0).cpu().numpy())
