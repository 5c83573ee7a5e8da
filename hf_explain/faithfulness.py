"""How faithful is a map? Deletion and insertion curves, per picture, with the protocol they were made by.

Deletion removes the most important pixels first: the faster the class's probability falls, the smaller the area under
the curve, the better. Insertion starts from the reference and brings the most important pixels back first: larger is
better.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import torch

from .modeling.classifier import as_classifier
from .modeling.perturbation import ExplainerError, blend, rank_each, reference_image


@dataclass(frozen=True)
class Protocol:
    """How a number was made. Numbers of different protocols are not comparable.

    Args:
        name: of the preset.
        reference: what removed pixels become: black, mean, blur, noise, or a gray in [0, 1].
        budgets: points of the curve, evenly spaced shares of the pixels from 0 to 1.
        score: "probability" of the explained class.
        seed: of the order among equal pixels, and of the noise.
    """

    name: str
    reference: str | float = "mean"
    budgets: int = 21
    score: str = "probability"
    seed: int = 0


PRESETS = {"aha": Protocol("aha")}


@dataclass(frozen=True)
class Report:
    """deletion and insertion: areas under the curves, (B,) each; curves: (B, budgets) each; the protocol as a dict."""

    deletion: torch.Tensor
    insertion: torch.Tensor
    curves: dict[str, torch.Tensor]
    targets: torch.Tensor
    protocol: dict

    def mean(self) -> dict[str, float]:
        return {"deletion": float(self.deletion.mean()), "insertion": float(self.insertion.mean())}


@torch.no_grad()
def measure(
    classifier,
    pixel_values: torch.Tensor,
    attributions: torch.Tensor,
    targets=None,
    preset: str = "aha",
    *,
    image_processor=None,
    batch_size: int = 32,
    **changes,
) -> Report:
    """Deletion and insertion of maps (B, H, W) of pictures (B, 3, H, W).

    Args:
        classifier: a `Classifier`, or a model together with image_processor=.
        targets: the classes the maps are of; default the prediction.
        preset: a name of `PRESETS`; `changes` (reference=, budgets=, seed=) alter single values and are reported.
        batch_size: pictures per forward.
    """
    protocol = read_protocol(preset, changes)
    classifier = as_classifier(classifier, image_processor)
    check_maps(pixel_values, attributions)
    shares = torch.linspace(0, 1, protocol.budgets, dtype=torch.float64)
    cuts = [round(float(share) * attributions[0].numel()) for share in shares]  # pixels gone, or back
    rank = rank_each(attributions, protocol.seed).to(classifier.device)
    pixel_values = pixel_values.to(classifier.device, classifier.dtype)
    noise = torch.Generator().manual_seed(protocol.seed)
    blank = torch.cat(
        [
            reference_image(x[None], classifier.pixel_space, protocol.reference, noise.manual_seed(protocol.seed))
            for x in pixel_values
        ]
    )
    clean = torch.cat([classifier(chunk) for chunk in pixel_values.split(batch_size)])
    targets = clean.argmax(-1) if targets is None else torch.as_tensor(targets, device=clean.device).expand(len(clean))

    def probability(logits, at):
        return classifier.scores(logits).gather(1, targets[at, None])[:, 0]

    count, points = len(pixel_values), protocol.budgets
    curves = {key: torch.empty(count, points, device=clean.device) for key in ("deletion", "insertion")}
    everything = torch.arange(count, device=clean.device)
    curves["deletion"][:, 0] = curves["insertion"][:, -1] = probability(clean, everything)
    gone = torch.cat([classifier(chunk) for chunk in blank.split(batch_size)])
    curves["deletion"][:, -1] = curves["insertion"][:, 0] = probability(gone, everything)
    # Every (picture, point) between the ends is one forward of one picture, packed into batches.
    for jobs in torch.arange(count * (points - 2), device=clean.device).split(batch_size):
        at, point = jobs // (points - 2), jobs % (points - 2) + 1
        cut = torch.tensor(cuts, device=clean.device)[point]
        top = rank[at] < cut[:, None, None]  # the most important pixels
        for key, removed in (("deletion", top), ("insertion", ~top)):
            logits = classifier(blend(pixel_values[at], removed, blank[at]))
            curves[key][at, point] = probability(logits, at)
    curves = {key: curve.cpu() for key, curve in curves.items()}
    areas = {key: torch.trapezoid(curve, dx=1 / (points - 1)) for key, curve in curves.items()}
    description = asdict(protocol) | {"pictures": count, "size": list(pixel_values.shape[-2:])}
    return Report(areas["deletion"], areas["insertion"], curves, targets.cpu(), description)


def read_protocol(preset: str, changes: dict) -> Protocol:
    if preset not in PRESETS:
        raise ExplainerError(f"unknown preset {preset!r}; choose from {', '.join(PRESETS)}.")
    unknown = set(changes) - {"reference", "budgets", "seed"}
    if unknown:
        raise ExplainerError(
            f"unknown argument {', '.join(sorted(unknown))}; a preset's reference, budgets and seed can change."
        )
    protocol = replace(PRESETS[preset], **changes)
    if protocol.budgets < 3:
        raise ExplainerError(f"budgets={protocol.budgets}; a curve needs at least 3 points.")
    return protocol


def check_maps(pixel_values: torch.Tensor, attributions: torch.Tensor) -> None:
    if attributions.shape != (len(pixel_values), *pixel_values.shape[-2:]):
        raise ExplainerError(
            f"attributions of shape {tuple(attributions.shape)} for pixel_values {tuple(pixel_values.shape)}; give one "
            "map (H, W) per picture, of its size."
        )
    for index, one in enumerate(attributions):
        if not torch.isfinite(one).all():
            raise ExplainerError(
                f"the attribution of image {index} holds NaN or infinite values, so it ranks nothing; mend it first."
            )
        if one.min() == one.max():
            raise ExplainerError(
                f"the attribution of image {index} is constant, so it ranks nothing; was the explainer trained?"
            )
