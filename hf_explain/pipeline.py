"""`pipeline("image-attribution")` with everything: learned explainers, and any classifier with a method of `METHODS`."""

from __future__ import annotations

import torch
import transformers

from .methods import METHODS
from .modeling import pipeline_image_attribution as travelling
from .modeling.classifier import Classifier
from .modeling.modeling_explainer import ExplainerForImageClassification
from .modeling.perturbation import ExplainerError

OPTIONS = "method, " + travelling.OPTIONS


class ImageAttributionPipeline(travelling.ImageAttributionPipeline):
    __doc__ = (travelling.ImageAttributionPipeline.__doc__ or "").replace(
        "        target:",
        '        method: for a plain classifier, a name of `hf_explain.METHODS` ("input-x-gradient", ...).\n        target:',
        1,
    )

    def read_classifier(self, model, image_processor) -> Classifier:
        if isinstance(model, ExplainerForImageClassification):
            return super().read_classifier(model, image_processor)
        trained = getattr(model.config, "architectures", None) or []
        if trained and all(hasattr(transformers, a) and "ImageClassification" not in a for a in trained):
            raise ExplainerError(
                f"{model.name_or_path or type(model).__name__} was saved as {', '.join(trained)}, which has no trained image "
                "classification head; give an image classifier."
            )
        classifier = Classifier(model, image_processor)
        if image_processor is None:
            raise ExplainerError(
                f"no image processor was found for {model.name_or_path or type(model).__name__}; give image_processor=."
            )
        return classifier

    def _sanitize_parameters(self, method=None, seed=None, **other):
        pre, forward, post = super()._sanitize_parameters(**other)
        explainer = isinstance(self.model, ExplainerForImageClassification)
        if method is not None:
            if explainer:
                raise ExplainerError(
                    f"method={method!r} was given, but {type(self.model).__name__} is a learned explainer; leave method out, or "
                    "give the classifier itself as model."
                )
            forward["method"] = find_method(method)
        if seed is not None:
            forward["seed"] = seed
        return pre, forward, post

    def refuse_options(self, other: dict) -> None:
        if other:
            name = next(iter(other))
            raise ExplainerError(f"unknown argument {name}={other[name]!r}; this pipeline has {OPTIONS}.")

    def __call__(self, inputs, **kwargs):
        if not isinstance(self.model, ExplainerForImageClassification):
            if "method" not in kwargs and "method" not in self._forward_params:
                raise ExplainerError(
                    f"{type(self.model).__name__} is a plain classifier, so a method is needed; give method= one of "
                    f"{', '.join(METHODS)}, or a learned explainer as model."
                )
        return super().__call__(inputs, **kwargs)

    def get_inference_context(self):
        if isinstance(self.model, ExplainerForImageClassification):
            return torch.no_grad
        return torch.enable_grad

    def _forward(self, model_inputs, targets=None, top_k=1, method=None, seed=0):
        if method is None:
            return super()._forward(model_inputs, targets=targets, top_k=top_k)
        pixel_values = model_inputs["pixel_values"]
        with torch.no_grad():
            logits = self.classifier(pixel_values)
        if targets is None:
            targets = logits.topk(min(top_k, logits.shape[1])).indices
        targets = targets.to(logits.device)
        options = {"seed": seed} if method is METHODS["random"] else {}
        maps = [method(self.classifier, pixel_values, column, **options) for column in targets.T]
        return {"maps": torch.stack(maps, dim=1), "logits": logits, "targets": targets}


def find_method(name: str):
    """The function of a method's name, with - or _ between words."""
    found = METHODS.get(str(name).replace("-", "_").lower())
    if found is None:
        raise ExplainerError(f"unknown method {name!r}; choose from {', '.join(METHODS)}.")
    return found
