"""`pipeline("image-attribution")` as far as it can travel with a checkpoint: learned explainers, nothing to install."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterable

import numpy as np
import PIL.Image
import torch
from transformers import AutoModel, AutoModelForImageClassification, Pipeline
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import logging

from .classifier import Classifier
from .errors import ExplainerError, whole_number
from .heatmaps import overlay, paste
from .modeling_explainer import ExplainerForImageClassification
from .reading import is_single, is_sized, pictures_of, read_batches, read_picture
from .targets import several, targets_of
from .views import View, find_view

logger = logging.get_logger(__name__)

OPTIONS = "target, top_k, output_size, batch_size, num_workers"


class ImageAttributionPipeline(Pipeline):
    """Which pixels made the classifier say that? A map per picture and class, at the picture's own size.

    Call it with a picture or many: PIL images, paths, URLs, arrays, `datasets` columns or generators. A picture gives a
    list with one dict per class explained, a list of pictures a list of those, anything else an iterator.

    Args:
        target: the class to explain; a label or index for all pictures, a flat list with one per picture, nested lists
            with several per picture. For a single picture a flat list means several. Default: the prediction.
        top_k: explain this many of the most probable classes, if no target is given.
        output_size: "image", or "model" for the map as the model's input sees it.

        batch_size: pictures per forward; default 1.
        num_workers: processes that read pictures; an iterator is read by this one.

    Each dict holds `label` and `index` of the class, `score` (probability), `attribution` (float32; NaN where the model
    never looked), `heatmap` (PIL image) and `box` (left, top, right, bottom of what the model saw).
    """

    _load_processor = _load_feature_extractor = _load_tokenizer = False
    _load_image_processor = None  # optional here: an explainer and a classifier can tell theirs

    def __init__(self, model, image_processor=None, **kwargs):
        self.classifier = self._read_classifier(model, image_processor)
        super().__init__(model=model, image_processor=self.classifier.image_processor, **kwargs)
        self._views: dict[tuple, View] = {}
        if isinstance(model, ExplainerForImageClassification) and not model.config.trained_steps:
            logger.warning("this explainer has not been trained (config.trained_steps is 0), so its maps mean nothing.")

    def _read_classifier(self, model, image_processor) -> Classifier:
        """The classifier of `model`, with a processor."""
        if not isinstance(model, ExplainerForImageClassification):
            raise ExplainerError(
                f"{type(model).__name__} is not an explainer; to explain a plain classifier, pip install hf-explain, "
                "import hf_explain and give method=."
            )
        classifier = model.require_classifier()
        if image_processor is not None and image_processor is not classifier.image_processor:
            classifier = Classifier(classifier.model, image_processor)
            space = classifier.pixel_space
            if space is not None and model.pixel_space is not None and not space.is_close(model.pixel_space):
                raise ExplainerError(
                    f"this image processor writes colors as {space}, but the explainer was made for "
                    f"{model.pixel_space}; leave image_processor out."
                )
        if classifier.image_processor is None:
            raise ExplainerError(f"no image processor was found for {type(model).__name__}; give image_processor=.")
        return classifier

    # ---- options ----

    def _sanitize_parameters(self, target=None, top_k=None, output_size=None, **other):
        self._refuse_options(other)
        if output_size not in (None, "image", "model"):
            raise ExplainerError(f'output_size={output_size!r}; choose "image" or "model".')
        if target is not None and top_k is not None:
            raise ExplainerError(
                f"target={target!r:.60} and top_k={top_k!r} were both given; give the classes, or how many of the most "
                "probable."
            )
        forward = {} if target is None else {"target": target}
        if top_k is not None:
            forward["top_k"] = whole_number("top_k", top_k, 1)
        return {}, forward, {} if output_size is None else {"output_size": output_size}

    def _refuse_options(self, other: dict) -> None:
        if not other:
            return
        name = next(iter(other))
        if name in ("method", "refine_steps", "measure"):
            raise ExplainerError(
                f"{name}= needs pip install hf-explain and import hf_explain; as remote code there are only {OPTIONS}."
            )
        raise ExplainerError(f"unknown argument {name}={other[name]!r:.60}; this pipeline has {OPTIONS}.")

    # ---- one picture ----

    def preprocess(self, inputs):
        return read_picture(inputs, self.image_processor)

    def _forward(self, model_inputs, targets=None, top_k=1, batch_size=None):
        """Pixel values of a group of pictures -> maps (B, T, H, W), logits (B, num_labels), classes (B, T).

        Whatever else is returned is of each picture and class too. Here `batch_size` changes nothing: one forward does.
        """
        output = self.model(model_inputs["pixel_values"], targets=targets, top_k=None if targets is not None else top_k)
        return {"maps": output.attributions, "logits": output.logits, "targets": output.targets}

    def postprocess(self, model_outputs, output_size="image"):
        """One picture's maps -> its list of dicts."""
        picture, maps = model_outputs["picture"], model_outputs["maps"].detach().float().cpu()
        logits = model_outputs["logits"].detach().float().cpu()
        if not torch.isfinite(logits).all() or not torch.isfinite(maps).all():
            raise ExplainerError(
                f"{type(self.model).__name__} returned NaN or infinite values for a picture; its weights are damaged "
                "or its dtype too small, load it again or with dtype=torch.float32."
            )
        scores = self.classifier.scores(logits)
        width, height = picture.size
        if output_size == "image":
            view = self._find_view(height, width, tuple(maps.shape[-2:]))
            box = view.box
        else:
            height, width = maps.shape[-2:]
            picture, view, box = self._model_picture(model_outputs["pixel_values"]), None, (0, 0, width, height)
        return [
            {
                "label": self.classifier.id2label.get(target, str(target)),
                "index": target,
                "score": float(scores[target]),
                "attribution": paste(one, view, height, width) if view else one.numpy().copy(),
                "heatmap": overlay(picture, one, view, signed=model_outputs.get("signed", False)),
                "box": box,
            }
            for one, target in zip(maps, model_outputs["targets"].tolist(), strict=True)
        ]

    def _find_view(self, height: int, width: int, size: tuple[int, int]):
        key = (height, width, size)
        view = self._views.get(key)
        if view is None:
            if len(self._views) > 1000:
                self._views.clear()
            view = find_view(self.image_processor, self.classifier.pixel_space, height, width, size)
            self._views[key] = view
        return view

    def _model_picture(self, pixel_values) -> PIL.Image.Image:
        rgb = self.classifier.pixel_space.to_rgb(pixel_values.float().cpu()).clamp(0, 1)
        return PIL.Image.fromarray((rgb.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))

    # ---- many pictures ----

    def __call__(
        self, inputs, *, target=None, top_k=None, output_size=None, batch_size=None, num_workers=None, **kwargs
    ):
        """See the class."""
        _, forward, post = self._sanitize_parameters(target=target, top_k=top_k, output_size=output_size, **kwargs)
        replaced = ("target", "top_k") if forward.keys() & {"target", "top_k"} else ()
        forward = {k: v for k, v in self._forward_params.items() if k not in replaced} | forward
        post = self._postprocess_params | post
        target = forward.pop("target", None)
        batch_size = self._batch_size if batch_size is None else batch_size
        if batch_size is not None:
            forward["batch_size"] = whole_number("batch_size", batch_size, 1)
        if is_single(inputs):
            targets = None if target is None else [several(target, self.classifier)]
            return self._explain([self.preprocess(inputs)], targets, forward, post)[0]
        num_workers = whole_number("num_workers", self._num_workers if num_workers is None else num_workers, 0)
        pictures = pictures_of(inputs)
        count = len(pictures) if is_sized(pictures) else None
        if count == 0:
            raise ExplainerError("an empty list of pictures was given; give at least one picture.")
        targets = targets_of(target, count, self.classifier)
        batches = read_batches(pictures, self.image_processor, forward.get("batch_size", 1), num_workers)
        results = self._stream(batches, targets, forward, post)
        return list(results) if isinstance(inputs, (list, tuple)) else results

    def _stream(self, batches, targets, forward, post):
        """Results in order, as the pictures come."""
        count = 0
        for items in batches:
            wanted = None if targets is None else list(itertools.islice(targets, len(items)))
            count += len(items)
            if wanted is not None and len(wanted) < len(items):
                few = count - len(items) + len(wanted)
                raise ExplainerError(f"{few} targets for {count} images or more; give one target per image.")
            yield from self._explain(items, wanted, forward, post)
        if isinstance(targets, Iterable) and not isinstance(targets, itertools.repeat):
            left = sum(1 for _ in targets)
            if left:
                raise ExplainerError(f"{count + left} targets for {count} images; give one target per image.")

    def _explain(self, items: list[dict], wanted: list[list[int]] | None, forward: dict, post: dict) -> list:
        """Results of read pictures: group them by size, forward, bring back to the picture."""
        results: list = [None] * len(items)
        sizes = [item["pixel_values"].shape for item in items]
        for size in dict.fromkeys(sizes):  # a processor without a fixed size gives different ones
            at = [i for i, s in enumerate(sizes) if s == size]
            chosen = None
            if wanted is not None:  # ragged lists are filled up, and cut again below
                most = max(len(wanted[i]) for i in at)
                chosen = torch.tensor([wanted[i] + wanted[i][-1:] * (most - len(wanted[i])) for i in at])
            values = torch.cat([items[i]["pixel_values"] for i in at])
            outputs = self.forward({"pixel_values": values}, targets=chosen, **forward)
            for row, i in enumerate(at):
                keep = slice(None) if wanted is None else slice(len(wanted[i]))
                whole = {"logits": outputs["logits"][row], "signed": outputs.get("signed", False)}
                by_class = {key: value[row][keep] for key, value in outputs.items() if key not in whole}
                one = {"picture": items[i]["picture"], "pixel_values": values[row], **whole, **by_class}
                results[i] = self.postprocess(one, **post)
        return results

    # ---- saving ----

    def save_pretrained(self, save_directory, remote_code: bool = False, **kwargs):
        """Model and processor; with `remote_code=True` also this pipeline's code, for people without hf-explain.

        A repository with remote code asks everybody for trust_remote_code=True, also those who have hf-explain: keep it
        on a branch of its own.
        """
        config = self.model.config
        before = config.__dict__.pop("custom_pipelines", None)  # of the branch it was loaded from
        try:
            if remote_code:  # only this class travels, not the one that hf_explain registers
                self._require_explainer()
                names = [c.__name__ for c in auto_classes()]
                impl = f"{ImageAttributionPipeline.__module__.split('.')[-1]}.{ImageAttributionPipeline.__name__}"
                config.custom_pipelines = {
                    "image-attribution": {"impl": impl, "pt": names, "type": "image", "default": {}}
                }
                os.makedirs(save_directory, exist_ok=True)
                custom_object_save(ImageAttributionPipeline, save_directory)
            self.model.save_pretrained(save_directory, **kwargs)
        finally:
            config.__dict__.pop("custom_pipelines", None)
            if before is not None:
                config.custom_pipelines = before
        self.image_processor.save_pretrained(save_directory)

    def push_to_hub(self, repo_id: str, remote_code: bool = False, **kwargs):
        """Pushes the explainer; with `remote_code=True` with this pipeline's code, best with revision="remote-code"."""
        self._require_explainer()
        save = functools.partial(self.save_pretrained, remote_code=remote_code)
        return self.model.push_to_hub(repo_id, save=save, **kwargs)

    def _require_explainer(self) -> None:
        if not isinstance(self.model, ExplainerForImageClassification):
            raise ExplainerError(
                f"{type(self.model).__name__} is a plain classifier; use its own save_pretrained(...) or "
                "push_to_hub(...)."
            )


def auto_classes():
    """Tried in this order, so that a plain classifier never loads as its headless base model."""
    return (AutoModelForImageClassification, AutoModel)
