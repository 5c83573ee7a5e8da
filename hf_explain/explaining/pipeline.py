"""`pipeline("image-attribution")` with everything: learned explainers, and any classifier with one of `METHODS`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import torch
import transformers

from ..faithfulness.measurement import measure as measure_faithfulness
from ..faithfulness.protocols import read_protocol
from ..methods import METHODS
from ..methods.forwards import together
from ..methods.naming import find_method, innermost, with_options
from ..modeling import pipeline_image_attribution as travelling
from ..modeling.classifier import Classifier, as_classifier
from ..modeling.errors import ExplainerError, whole_number
from ..modeling.frozen_models import name_of
from ..modeling.modeling_explainer import ExplainerForImageClassification
from ..training.kinds import KINDS, kind_of
from ..training.refinement import refine

OPTIONS = "method, method_options, refine_steps, measure, seed, " + travelling.OPTIONS
REFINE_BATCH_SIZE = 32  # altered pictures of one picture, where no batch_size was given


class ImageAttributionPipeline(travelling.ImageAttributionPipeline):
    """Which pixels made the classifier say that? A map per picture and class, at the picture's own size.

    Call it with a picture or many: PIL images, paths, URLs, arrays, `datasets` columns or generators. A picture gives a
    list with one dict per class explained, a list of pictures a list of those, anything else an iterator.

    Args:
        method: for a plain classifier, a name of `hf_explain.METHODS` ("grad-cam", ...), also with options,
            "occlusion(window=8, stride=4)".
        method_options: the same options as a dict.
        refine_steps: steps of descent on each map's own deletion and insertion (`training.refine`).
        measure: a preset of `faithfulness.measure` ("aha", ...): each dict then has "faithfulness", what the map scores
            and by which protocol.
        seed: of a method that draws random numbers, and of the refinement.
        target: the class to explain; a label or index for all pictures, a flat list with one per picture, nested lists
            with several per picture. For a single picture a flat list means several. Default: the prediction.
        top_k: explain this many of the most probable classes, if no target is given.
        output_size: "image", or "model" for the map as the model's input sees it.

        batch_size: pictures per forward; default 1.
        num_workers: processes that read pictures; an iterator is read by this one.

    Each dict holds `label` and `index` of the class, `score` (probability), `attribution` (float32; NaN where the model
    never looked), `heatmap` (PIL image) and `box` (left, top, right, bottom of what the model saw).

    >>> from PIL import Image
    >>> from transformers import pipeline
    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> known = random_classifier()
    >>> options = {"image_processor": known.image_processor, "method": "gradient"}
    >>> explain = pipeline("image-attribution", model=known.model, **options)
    >>> explain(Image.new("RGB", (90, 60)), target=3)[0]["attribution"].shape
    (60, 90)
    """

    def _read_classifier(self, model, image_processor) -> Classifier:
        if isinstance(model, ExplainerForImageClassification):
            return super()._read_classifier(model, image_processor)
        trained = getattr(getattr(model, "config", None), "architectures", None) or []
        if trained and all(hasattr(transformers, a) and "ImageClassification" not in a for a in trained):
            raise ExplainerError(
                f"{name_of(model)} was saved as {', '.join(trained)}, which has no trained image classification head; "
                "give an image classifier."
            )
        classifier = as_classifier(model, image_processor)
        if classifier.image_processor is None:
            raise ExplainerError(f"no image processor was found for {name_of(model)}; give image_processor=.")
        return classifier

    def _sanitize_parameters(
        self, method=None, method_options=None, seed=None, refine_steps=None, measure=None, **other
    ):
        pre, forward, post = super()._sanitize_parameters(**other)
        explainer = isinstance(self.model, ExplainerForImageClassification)
        for name, value in {"method": method, "method_options": method_options}.items():
            if explainer and value is not None:
                raise ExplainerError(
                    f"{name}={value!r:.60} was given, but {type(self.model).__name__} is a learned explainer; leave "
                    f"{name} out, or give the classifier itself as model."
                )
        if method_options is not None and not isinstance(method_options, Mapping):
            raise ExplainerError(f"method_options={method_options!r:.60}; give a dict, such as {{'window': 8}}.")
        if method is not None:
            forward["method"] = find_method(method, method_options)
        elif method_options is not None:
            chosen = self._kept().get("method")
            if chosen is None:
                raise ExplainerError(f"method_options={method_options!r:.60} came without a method; give method= too.")
            forward["method"] = with_options(chosen, innermost(chosen).__name__, method_options)
        if refine_steps is not None:
            forward["refine_steps"] = whole_number("refine_steps", refine_steps, 0)
        if measure is not None:
            forward["measure"] = read_protocol(measure, {"label": "explained"})
        if seed is not None:
            kept = self._kept()
            if explainer and not (kept | forward).get("refine_steps"):
                raise ExplainerError(
                    f"seed={seed!r:.60} was given, but a learned explainer draws nothing; leave it out, or give "
                    "refine_steps= too."
                )
            forward["seed"] = whole_number("seed", seed, 0)
        return pre, forward, post

    def _kept(self) -> dict:
        """What was given to `pipeline(...)`; nothing while it is made."""
        return getattr(self, "_forward_params", {})

    def _refuse_options(self, other: dict) -> None:
        if other:
            name = next(iter(other))
            raise ExplainerError(f"unknown argument {name}={other[name]!r:.60}; this pipeline has {OPTIONS}.")

    def __call__(
        self, inputs, *, target=None, top_k=None, method=None, method_options=None, refine_steps=None, measure=None,
        seed=None, output_size=None, batch_size=None, num_workers=None, **kwargs,
    ):  # fmt: skip
        """See the class; `method` and what follows it there may be given here or to `pipeline(...)`."""
        chosen = method is not None or "method" in self._forward_params
        if not chosen and not isinstance(self.model, ExplainerForImageClassification):
            raise ExplainerError(
                f"{type(self.model).__name__} is a plain classifier, so a method is needed; give method= one of "
                f"{', '.join(METHODS)}, or a learned explainer as model."
            )
        given = {"target": target, "top_k": top_k, "output_size": output_size, "method": method, "seed": seed}
        given |= {"method_options": method_options, "refine_steps": refine_steps, "measure": measure}
        return super().__call__(inputs, batch_size=batch_size, num_workers=num_workers, **given, **kwargs)

    def _forward(
        self, model_inputs, targets=None, top_k=1, method=None, seed=0, refine_steps=0, measure=None, batch_size=None
    ):
        pixel_values = model_inputs["pixel_values"]
        if method is None:
            outputs = super()._forward(model_inputs, targets=targets, top_k=top_k)
        else:
            outputs = self._apply(method, pixel_values, targets, top_k, seed)
        maps, targets = outputs["maps"], outputs["targets"]
        if not torch.isfinite(maps).all():  # which `postprocess` refuses
            return outputs
        batch_size = batch_size or REFINE_BATCH_SIZE
        if refine_steps:
            maps = self._refine(pixel_values, maps, targets, steps=refine_steps, seed=seed, batch_size=batch_size)
            outputs = outputs | {"maps": maps, "signed": False}  # zero means nothing any more
        if measure is not None:
            outputs = outputs | {"faithfulness": self._measure(pixel_values, maps, targets, measure, batch_size)}
        return outputs

    def _measure(self, pixel_values, maps, targets, protocol, batch_size) -> list[list[dict]]:
        """Per picture and class, once per pair: the areas, the curves and the protocol."""
        found: dict[tuple[int, int], dict] = {}
        for column in range(maps.shape[1]):
            new = [row for row, target in enumerate(targets[:, column].tolist()) if (row, target) not in found]
            if not new:
                continue
            here, classes = maps[new, column].detach().float(), targets[new, column]
            flat = (here.flatten(1).amax(1) == here.flatten(1).amin(1)).nonzero().flatten().tolist()
            if flat:
                name = self.classifier.id2label.get(int(classes[flat[0]]), int(classes[flat[0]]))
                raise ExplainerError(
                    f"the map of class {name!r} of a picture is constant, so it ranks nothing and cannot be measured; "
                    "leave measure out to see it."
                )
            report = measure_faithfulness(
                self.classifier, pixel_values[new], here, classes, protocol, batch_size=batch_size
            )
            description = {key: value for key, value in report.protocol.items() if key != "pictures"}
            for i, row in enumerate(new):
                areas = {name: float(area[i]) for name, area in report.areas.items()}
                curves = {name: curve[i].tolist() for name, curve in report.curves.items()}
                found[row, int(classes[i])] = {**areas, "curves": curves, "protocol": description}
        return [[found[row, target] for target in some] for row, some in enumerate(targets.tolist())]

    def postprocess(self, model_outputs, **options):
        entries = super().postprocess(model_outputs, **options)
        for entry, one in zip(entries, model_outputs.get("faithfulness", ())):
            entry["faithfulness"] = one
        return entries

    def _refine(self, pixel_values, maps, targets, **options):
        """(B, T, H, W), a picture's map of a class refined once, also where it fills up a shorter list of classes."""
        pairs = [(row, target) for row, some in enumerate(targets.tolist()) for target in some]
        place = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
        at = [pairs.index(pair) for pair in place]
        pictures = pixel_values[[row for row, _ in place]]
        kind = KINDS.get(kind_of(self.model))
        if kind and kind.second_stage:
            refined = kind.second_stage(self.model, pictures, targets.flatten()[at], steps=options["steps"]).maps
        else:
            refined = refine(self.classifier, pictures, maps.flatten(0, 1)[at], targets.flatten()[at], **options)
        return refined[[place[pair] for pair in pairs]].view_as(maps)

    def _apply(self, method, pixel_values, targets, top_k, seed):
        logits = self.classifier(pixel_values)
        if targets is None:
            targets = logits.topk(min(top_k, logits.shape[1])).indices
        targets = targets.to(logits.device)
        draws = "seed" in inspect.signature(method).parameters
        with together(targets.numel() if draws else targets.shape[1]):
            maps = [self._attribute(method, pixel_values, column, seed if draws else None) for column in targets.T]
        return {"maps": torch.stack(maps, dim=1), "logits": logits, "targets": targets, "signed": True}

    def _attribute(self, method, pixel_values, targets, seed):
        """(B, H, W); a picture's random numbers do not depend on what else is in the batch."""
        if seed is None:
            return method(self.classifier, pixel_values, targets)
        rows = zip(pixel_values.split(1), targets.split(1), strict=True)
        return torch.cat([method(self.classifier, row, target, seed=seed) for row, target in rows])
