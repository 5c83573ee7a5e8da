"""`pipeline("image-attribution")` with everything: learned explainers, and any classifier with one of `METHODS`."""

from __future__ import annotations

import inspect

import torch
import transformers

from .methods import METHODS
from .modeling import pipeline_image_attribution as travelling
from .modeling.classifier import Classifier, as_classifier
from .modeling.modeling_explainer import ExplainerForImageClassification
from .modeling.perturbation import ExplainerError
from .modeling.reading import whole_number
from .modeling.reference import name_of
from .refinement import refine

OPTIONS = "method, refine_steps, seed, " + travelling.OPTIONS


class ImageAttributionPipeline(travelling.ImageAttributionPipeline):
    __doc__ = (travelling.ImageAttributionPipeline.__doc__ or "").replace(
        "        target:",
        '        method: for a plain classifier, a name of `hf_explain.METHODS` ("input-x-gradient", ...).\n'
        "        refine_steps: steps of descent on each map's own deletion and insertion (`hf_explain.refinement`).\n"
        "        seed: of a method that draws random numbers, and of the refinement.\n        target:",
        1,
    )

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

    def _sanitize_parameters(self, method=None, seed=None, refine_steps=None, **other):
        pre, forward, post = super()._sanitize_parameters(**other)
        explainer = isinstance(self.model, ExplainerForImageClassification)
        if method is not None:
            if explainer:
                raise ExplainerError(
                    f"method={method!r:.60} was given, but {type(self.model).__name__} is a learned explainer; leave "
                    "method out, or give the classifier itself as model."
                )
            forward["method"] = find_method(method)
        if refine_steps is not None:
            forward["refine_steps"] = whole_number("refine_steps", refine_steps, 0)
        if seed is not None:
            kept = getattr(self, "_forward_params", {})  # not there yet while the pipeline is made
            if explainer and not (kept | forward).get("refine_steps"):
                raise ExplainerError(
                    f"seed={seed!r:.60} was given, but a learned explainer draws nothing; leave it out, or give "
                    "refine_steps= too."
                )
            forward["seed"] = whole_number("seed", seed, 0)
        return pre, forward, post

    def _refuse_options(self, other: dict) -> None:
        if other:
            name = next(iter(other))
            raise ExplainerError(f"unknown argument {name}={other[name]!r:.60}; this pipeline has {OPTIONS}.")

    def __call__(
        self, inputs, *, target=None, top_k=None, method=None, refine_steps=None, seed=None, output_size=None,
        batch_size=None, num_workers=None, **kwargs,
    ):  # fmt: skip
        """See the class; `method`, `refine_steps` and `seed` may be given here or to `pipeline(...)`."""
        chosen = method is not None or "method" in self._forward_params
        if not chosen and not isinstance(self.model, ExplainerForImageClassification):
            raise ExplainerError(
                f"{type(self.model).__name__} is a plain classifier, so a method is needed; give method= one of "
                f"{', '.join(METHODS)}, or a learned explainer as model."
            )
        given = {"target": target, "top_k": top_k, "output_size": output_size, "method": method, "seed": seed}
        given["refine_steps"] = refine_steps
        return super().__call__(inputs, batch_size=batch_size, num_workers=num_workers, **given, **kwargs)

    def _forward(self, model_inputs, targets=None, top_k=1, method=None, seed=0, refine_steps=0):
        pixel_values = model_inputs["pixel_values"]
        if method is None:
            outputs = super()._forward(model_inputs, targets=targets, top_k=top_k)
        else:
            outputs = self._apply(method, pixel_values, targets, top_k, seed)
        maps, targets = outputs["maps"], outputs["targets"]
        if not refine_steps or not torch.isfinite(maps).all():  # which `postprocess` refuses
            return outputs
        pictures = pixel_values.repeat_interleave(maps.shape[1], 0)
        refined = refine(
            self.classifier, pictures, maps.flatten(0, 1), targets.flatten(),
            steps=refine_steps, seed=seed, batch_size=max(32, len(pixel_values)),
        )  # fmt: skip
        return outputs | {"maps": refined.view_as(maps), "signed": False}  # zero means nothing any more

    def _apply(self, method, pixel_values, targets, top_k, seed):
        logits = self.classifier(pixel_values)
        if targets is None:
            targets = logits.topk(min(top_k, logits.shape[1])).indices
        targets = targets.to(logits.device)
        maps = [self._attribute(method, pixel_values, column, seed) for column in targets.T]
        return {"maps": torch.stack(maps, dim=1), "logits": logits, "targets": targets, "signed": True}

    def _attribute(self, method, pixel_values, targets, seed):
        """(B, H, W); a picture's random numbers do not depend on what else is in the batch."""
        if "seed" not in inspect.signature(method).parameters:
            return method(self.classifier, pixel_values, targets)
        rows = zip(pixel_values.split(1), targets.split(1), strict=True)
        return torch.cat([method(self.classifier, row, target, seed=seed) for row, target in rows])


def find_method(name: str):
    """The function of a method's name, with - or _ between words."""
    found = METHODS.get(str(name).replace("-", "_").lower())
    if found is None:
        raise ExplainerError(f"unknown method {name!r:.60}; choose from {', '.join(METHODS)}.")
    return found
