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

OPTIONS = "method, seed, " + travelling.OPTIONS


class ImageAttributionPipeline(travelling.ImageAttributionPipeline):
    __doc__ = (travelling.ImageAttributionPipeline.__doc__ or "").replace(
        "        target:",
        '        method: for a plain classifier, a name of `hf_explain.METHODS` ("input-x-gradient", ...).\n'
        "        seed: of a method that draws random numbers.\n        target:",
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

    def _sanitize_parameters(self, method=None, seed=None, **other):
        pre, forward, post = super()._sanitize_parameters(**other)
        explainer = isinstance(self.model, ExplainerForImageClassification)
        if method is not None:
            if explainer:
                raise ExplainerError(
                    f"method={method!r:.60} was given, but {type(self.model).__name__} is a learned explainer; leave "
                    "method out, or give the classifier itself as model."
                )
            forward["method"] = find_method(method)
        if seed is not None:
            if explainer:
                raise ExplainerError(
                    f"seed={seed!r:.60} was given, but a learned explainer draws nothing; leave it out."
                )
            forward["seed"] = whole_number("seed", seed, 0)
        return pre, forward, post

    def _refuse_options(self, other: dict) -> None:
        if other:
            name = next(iter(other))
            raise ExplainerError(f"unknown argument {name}={other[name]!r:.60}; this pipeline has {OPTIONS}.")

    def __call__(
        self, inputs, *, target=None, top_k=None, method=None, seed=None, output_size=None, batch_size=None,
        num_workers=None, **kwargs,
    ):  # fmt: skip
        """See the class; `method` and `seed` may be given here or to `pipeline(...)`."""
        chosen = method is not None or "method" in self._forward_params
        if not chosen and not isinstance(self.model, ExplainerForImageClassification):
            raise ExplainerError(
                f"{type(self.model).__name__} is a plain classifier, so a method is needed; give method= one of "
                f"{', '.join(METHODS)}, or a learned explainer as model."
            )
        given = {"target": target, "top_k": top_k, "output_size": output_size, "method": method, "seed": seed}
        return super().__call__(inputs, batch_size=batch_size, num_workers=num_workers, **given, **kwargs)

    def _forward(self, model_inputs, targets=None, top_k=1, method=None, seed=0):
        if method is None:
            return super()._forward(model_inputs, targets=targets, top_k=top_k)
        pixel_values = model_inputs["pixel_values"]
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
