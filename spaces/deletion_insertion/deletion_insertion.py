"""Deletion and insertion as a metric of `evaluate`: how faithful attribution maps are to an image classifier.

All measuring is done by `hf_explain.faithfulness.measure`; this file only brings it into the form of `evaluate`.
"""

import datasets
import evaluate
import torch

from hf_explain import ExplainerError
from hf_explain.faithfulness import measure, read_protocol
from hf_explain.faithfulness.protocols import CHANGEABLE
from hf_explain.modeling.classifier import as_classifier

_DESCRIPTION = """\
Deletion removes the pixels of a picture from the most to the least important one, as an attribution map ranks them, and
follows the classifier's probability of a class; insertion brings them back in the same order. The metric is the mean
area under each curve: the lower the deletion and the higher the insertion, the more faithful the map.
"""

_KWARGS_DESCRIPTION = """
Args:
    pixel_values: pictures (B, 3, H, W) as the classifier's image processor returns them, arrays or tensors.
    attributions: maps (B, H, W), higher = more important.
    targets: the classes the maps are of, (B,), or one for all; by default the classifier's predictions.
    model: of `compute`: an `hf_explain.Classifier`, or an image classifier of transformers with image_processor=.
    preset: of `compute`: how it is measured, "aha" by default; all names are in `hf_explain.faithfulness.PRESETS`.
    image_processor, batch_size, dtype: of `compute`, as of `hf_explain.faithfulness.measure`.
    per_picture: of `compute`: also the areas of single pictures.
    reference, budgets, seed, ...: of `compute`: alter single values of the preset; they are part of the protocol.
Returns:
    for each area of the preset (mostly "deletion" and "insertion") its mean, and as NAME_low and NAME_high a 95 %
    interval by a bootstrap over the pictures; with per_picture NAME_per_picture; and "protocol", how it was measured.
Examples:
    >>> metric = evaluate.load("./spaces/deletion_insertion")
    >>> metric.compute(model=classifier, pixel_values=pixel_values, attributions=maps)["deletion"]
"""

_CITATION = """\
@inproceedings{petsiuk2018rise,
  title={{RISE}: Randomized Input Sampling for Explanation of Black-box Models},
  author={Petsiuk, Vitali and Das, Abir and Saenko, Kate},
  booktitle={British Machine Vision Conference},
  year={2018}
}
"""

NOT_GIVEN = -1  # stands for the prediction, since a column cannot be left out once the writer exists
INPUTS = ("pixel_values", "attributions", "targets")
OPTIONS = ("model", "preset", "image_processor", "batch_size", "dtype", "per_picture")
CHANGES = ("score", *sorted(CHANGEABLE))


class DeletionInsertion(evaluate.Metric):
    """Mean areas under deletion and insertion curves, with intervals and the protocol they were measured by."""

    def _info(self):
        info = evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=features(224, 224),
            reference_urls=["https://arxiv.org/abs/1806.07421", "https://arxiv.org/abs/2604.05819"],
            license="apache-2.0",
        )
        info.format = "torch"  # as lists it would take ten times as long; the constructor refuses it beside arrays
        return info

    def add(self, *, pixel_values=None, attributions=None, targets=None):
        """Adds one picture (3, H, W), its map (H, W) and, if given, its class."""
        one = {"pixel_values": pixel_values, "attributions": attributions}
        one = {name: None if value is None else torch.as_tensor(value)[None] for name, value in one.items()}
        self.add_batch(**one, targets=targets)

    def add_batch(self, *, pixel_values=None, attributions=None, targets=None):
        """Adds pictures (B, 3, H, W) of one size, their maps (B, H, W) and, if given, their classes."""
        if pixel_values is None or attributions is None:
            missing = "pixel_values" if pixel_values is None else "attributions"
            raise ExplainerError(
                f"{missing} is missing; give pictures (B, 3, H, W) together with their maps (B, H, W)."
            )
        pictures, maps = (torch.as_tensor(x).detach().float().cpu() for x in (pixel_values, attributions))
        if pictures.ndim != 4 or pictures.shape[1] != 3 or maps.shape != (len(pictures), *pictures.shape[2:]):
            raise ExplainerError(
                f"attributions of shape {tuple(maps.shape)} for pixel_values {tuple(pictures.shape)}; give pictures "
                "(B, 3, H, W) and one map (H, W) per picture, of its size."
            )
        wanted = features(*pictures.shape[2:])
        if self.writer is None:
            self.info.features = wanted
        elif self.info.features != wanted:
            raise ExplainerError(
                f"pictures of {pictures.shape[2]} x {pictures.shape[3]} after others of "
                f"{' x '.join(map(str, self.info.features['attributions'].shape))}; compute those first, or resize."
            )
        classes = read_classes(targets, len(pictures))
        super().add_batch(pixel_values=pictures.numpy(), attributions=maps.numpy(), targets=classes.numpy())

    def compute(self, **given):
        """The areas of what was added before, or of what is given here."""
        if "predictions" in given:  # by evaluate.combine, which hands the arguments of all metrics to each
            given = {name: value for name, value in given.items() if name in (*INPUTS, *OPTIONS, *CHANGES)}
        # What is wrong with the settings is said before everything that was added is used up.
        read_protocol(given.get("preset", "aha"), {k: v for k, v in given.items() if k not in (*INPUTS, *OPTIONS)})
        model = as_classifier(given.pop("model", None), given.pop("image_processor", None))
        return super().compute(**{"targets": None, **given, "model": model})

    def _compute(self, pixel_values, attributions, targets, model, per_picture=False, **settings):
        known = targets != NOT_GIVEN
        if known.any() and not known.all():
            raise ExplainerError(
                f"targets of {int(known.sum())} of {len(known)} pictures were given; give them with every call of add "
                "and add_batch, or with none."
            )
        report = measure(model, pixel_values, attributions, targets if known.all() else None, **settings)
        result = {}
        for name, found in report.intervals().items():
            result |= {name: found["mean"], f"{name}_low": found["low"], f"{name}_high": found["high"]}
        if per_picture:
            result |= {f"{name}_per_picture": area.tolist() for name, area in report.areas.items()}
        return result | {"protocol": report.protocol}


def features(height, width):
    """What is stored of pictures of this size."""
    return datasets.Features(
        {
            "pixel_values": datasets.Array3D((3, height, width), "float32"),
            "attributions": datasets.Array2D((height, width), "float32"),
            "targets": datasets.Value("int64"),
        }
    )


def read_classes(targets, count):
    """Classes (count,) of what a call gives: none, one for all, or one per picture."""
    if targets is None:
        return torch.full((count,), NOT_GIVEN)
    found = torch.as_tensor(targets).cpu()
    whole = not found.is_floating_point() and found.dtype != torch.bool
    if not whole or (found.ndim and found.shape != (count,)) or (found < 0).any():
        raise ExplainerError(
            f"targets {targets!r:.80} for {count} pictures; give one class index per picture, or one for all."
        )
    return found.long().expand(count)
