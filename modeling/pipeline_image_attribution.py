"""`pipeline("image-attribution")` as far as it can travel with a checkpoint: learned explainers, nothing to install."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import PIL.Image
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers import AutoModel, AutoModelForImageClassification, Pipeline
from transformers.dynamic_module_utils import custom_object_save

from .classifier import Classifier
from .modeling_explainer import ExplainerForImageClassification
from .perturbation import ExplainerError
from .pictures import find_view, open_picture, overlay, paste

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

    Each dict holds `label`, `score` (probability), `attribution` (float32; NaN where the model never looked), `heatmap`
    (PIL image) and `box` (left, top, right, bottom of what the model saw).
    """

    _load_processor = _load_feature_extractor = _load_tokenizer = False
    _load_image_processor = None  # optional here: an explainer and a classifier can tell theirs

    def __init__(self, model, image_processor=None, **kwargs):
        self.classifier = self.read_classifier(model, image_processor)
        super().__init__(model=model, image_processor=self.classifier.image_processor, **kwargs)
        self._views: dict[tuple[int, int], object] = {}

    def read_classifier(self, model, image_processor) -> Classifier:
        """The classifier of `model`, with a processor."""
        if not isinstance(model, ExplainerForImageClassification):
            raise ExplainerError(
                f"{type(model).__name__} is not an explainer; explaining a plain classifier needs pip install hf-explain, "
                "import hf_explain and method=."
            )
        classifier = model.require_classifier()
        if image_processor is not None and image_processor is not classifier.image_processor:
            checked = Classifier(classifier.model, image_processor)
            if model.pixel_space is not None and not checked.pixel_space.is_close(model.pixel_space):
                raise ExplainerError(
                    f"this image processor writes colors as {checked.pixel_space}, but the explainer was made for "
                    f"{model.pixel_space}; leave image_processor out."
                )
            classifier.image_processor, classifier.pixel_space = image_processor, checked.pixel_space
        if classifier.image_processor is None:
            raise ExplainerError(f"no image processor was found for {type(model).__name__}; give image_processor=.")
        return classifier

    def _sanitize_parameters(self, target=None, top_k=None, output_size=None, **other):
        self.refuse_options(other)
        if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
            raise ExplainerError(f"top_k={top_k!r}; give an integer of at least 1.")
        if output_size not in (None, "image", "model"):
            raise ExplainerError(f'output_size={output_size!r}; choose "image" or "model".')
        if target is not None and top_k is not None:
            raise ExplainerError(
                "target and top_k were both given; give the classes, or how many of the most probable."
            )
        forward = {k: v for k, v in (("target", target), ("top_k", top_k)) if v is not None}
        return {}, forward, {} if output_size is None else {"output_size": output_size}

    def refuse_options(self, other: dict) -> None:
        if not other:
            return
        name = next(iter(other))
        if name in ("method", "refine_steps", "measure"):
            raise ExplainerError(
                f"{name}= needs pip install hf-explain and import hf_explain; as remote code this pipeline has {OPTIONS}."
            )
        raise ExplainerError(f"unknown argument {name}={other[name]!r}; this pipeline has {OPTIONS}.")

    # ---- one picture ----

    def preprocess(self, inputs):
        picture = open_picture(inputs)
        pixel_values = self.image_processor(images=picture, return_tensors="pt")["pixel_values"]
        return {"pixel_values": torch.as_tensor(pixel_values).to(self.dtype), "picture": picture}

    def _forward(self, model_inputs, targets=None, top_k=1):
        """Pixel values of a group of pictures -> maps (B, T, H, W), logits (B, num_labels), classes (B, T)."""
        output = self.model(model_inputs["pixel_values"], targets=targets, top_k=None if targets is not None else top_k)
        return {"maps": output.attributions, "logits": output.logits, "targets": output.targets}

    def postprocess(self, model_outputs, output_size="image"):
        """One picture's maps -> its list of dicts."""
        picture, maps = model_outputs["picture"], model_outputs["maps"].detach().float().cpu()
        logits = model_outputs["logits"].detach().float().cpu()
        if not torch.isfinite(logits).all() or not torch.isfinite(maps).all():
            raise ExplainerError(
                f"{type(self.model).__name__} returned NaN or infinite values for this picture; its weights are damaged or "
                "its dtype too small, load it again or with dtype=torch.float32."
            )
        scores = self.classifier.scores(logits)
        width, height = picture.size
        if output_size == "image":
            view = self.find_view(height, width)
            box = view.box
        else:
            height, width = maps.shape[-2:]
            picture, view, box = self.model_picture(model_outputs["pixel_values"]), None, (0, 0, width, height)
        return [
            {
                "label": self.classifier.id2label.get(target, str(target)),
                "score": float(scores[target]),
                "attribution": paste(one, view, height, width) if view else one.numpy(),
                "heatmap": overlay(picture, one, view),
                "box": box,
            }
            for one, target in zip(maps, model_outputs["targets"].tolist(), strict=True)
        ]

    def find_view(self, height: int, width: int):
        if (height, width) not in self._views:
            if len(self._views) > 1000:
                self._views.clear()
            self._views[height, width] = find_view(self.image_processor, self.classifier.pixel_space, height, width)
        return self._views[height, width]

    def model_picture(self, pixel_values) -> PIL.Image.Image:
        rgb = self.classifier.pixel_space.to_rgb(pixel_values.float().cpu()).clamp(0, 1)
        return PIL.Image.fromarray((rgb.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))

    # ---- many pictures ----

    def __call__(self, inputs, *, num_workers=None, batch_size=None, **kwargs):
        """See the class. `batch_size` pictures per forward; `num_workers` processes that read pictures."""
        _, forward, post = self._sanitize_parameters(**kwargs)
        if forward.keys() & {"target", "top_k"}:
            defaults = {k: v for k, v in self._forward_params.items() if k not in ("target", "top_k")}
        else:
            defaults = self._forward_params
        forward, post = {**defaults, **forward}, {**self._postprocess_params, **post}
        batch_size, num_workers = batch_size or self._batch_size or 1, num_workers or self._num_workers or 0
        target = forward.pop("target", None)
        if (
            isinstance(inputs, (str, bytes, bytearray, Mapping, np.ndarray, torch.Tensor, PIL.Image.Image))
            or not isinstance(inputs, (Iterable, Dataset, Sequence))
            and not hasattr(inputs, "__getitem__")
        ):
            inputs = [self.one_picture(inputs)]
            targets = None if target is None else [target]
            return next(self.stream(inputs, targets, 1, 0, forward, post))
        if hasattr(inputs, "column_names") and not isinstance(inputs, Dataset):
            inputs = self.image_column(inputs)
        sized = hasattr(inputs, "__len__") and hasattr(inputs, "__getitem__")
        if sized and len(inputs) == 0:
            raise ExplainerError("an empty list of pictures was given; give at least one picture.")
        targets = self.targets_of_many(target, len(inputs) if sized else None)
        results = self.stream(inputs, targets, batch_size, num_workers, forward, post)
        return list(results) if isinstance(inputs, (list, tuple)) else results

    def one_picture(self, source):
        """A batch in one array is several pictures, which must not be mistaken for one."""
        if isinstance(source, (np.ndarray, torch.Tensor)) and source.ndim == 4:
            raise ExplainerError(
                f"an array of shape {tuple(source.shape)} is a batch; give a list of pictures: list(array)."
            )
        return source

    @staticmethod
    def image_column(dataset):
        columns = list(dataset.column_names or [])
        found = [name for name in ("image", "img", "picture") if name in columns]
        if not found:
            raise ExplainerError(
                f"the data set has the columns {', '.join(columns)}, none of which is 'image'; give ds['your column']."
            )
        return dataset[found[0]] if hasattr(dataset, "__len__") else (row[found[0]] for row in dataset)

    def targets_of_many(self, target, count):
        """An iterable with each picture's targets (a label, an index or a list of them), or None for the prediction."""
        if target is None:
            return None
        if isinstance(target, (str, int, np.integer)) or getattr(target, "ndim", None) == 0:
            return itertools.repeat(target)
        targets = target.tolist() if hasattr(target, "tolist") else list(target)
        if count is not None and len(targets) != count:
            raise ExplainerError(
                f"{len(targets)} targets for {count} images; give one target for all, one per image, or a list of lists."
            )
        return targets

    def stream(self, inputs, targets, batch_size, num_workers, forward, post):
        """Results in order: read (in workers), group by size, forward, bring back to the picture."""
        targets = None if targets is None else iter(targets)
        for items in self.batches(inputs, batch_size, num_workers):
            wanted = [None] * len(items)
            if targets is not None:
                wanted = [self.indices(t) for t in itertools.islice(targets, len(items))]
                if len(wanted) < len(items):
                    raise ExplainerError("there are fewer targets than images; give one target per image.")
            results: list = [None] * len(items)
            sizes = [item["pixel_values"].shape for item in items]
            for size in dict.fromkeys(sizes):  # a processor without a fixed size gives different ones
                at = [i for i, s in enumerate(sizes) if s == size]
                chosen = None
                if targets is not None:
                    most = max(len(wanted[i]) for i in at)
                    chosen = torch.tensor([wanted[i] + wanted[i][-1:] * (most - len(wanted[i])) for i in at])
                values = torch.cat([items[i]["pixel_values"] for i in at])
                outputs = self.forward({"pixel_values": values}, targets=chosen, **forward)
                for row, i in enumerate(at):
                    keep = slice(None) if wanted[i] is None else slice(len(wanted[i]))
                    one = {
                        "picture": items[i]["picture"],
                        "pixel_values": values[row],
                        "maps": outputs["maps"][row][keep],
                        "targets": outputs["targets"][row][keep],
                        "logits": outputs["logits"][row],
                    }
                    results[i] = self.postprocess(one, **post)
            yield from results
        if (
            isinstance(targets, Iterable)
            and not isinstance(targets, itertools.repeat)
            and next(targets, None) is not None
        ):
            raise ExplainerError("there are more targets than images; give one target per image.")

    def indices(self, target) -> list[int]:
        if isinstance(target, (list, tuple)) or getattr(target, "ndim", 0) == 1:
            targets = [self.classifier.target_index(t) for t in target]
            if not targets:
                raise ExplainerError(
                    "an empty list of targets was given; give at least one class, or leave target out."
                )
            return targets
        return [self.classifier.target_index(target)]

    def batches(self, inputs, batch_size, num_workers):
        sized = hasattr(inputs, "__len__") and hasattr(inputs, "__getitem__")
        if not sized:
            num_workers = 0  # an iterator cannot be divided among processes
        reader = (ReadItems if sized else ReadStream)(inputs, self.preprocess)
        for items in DataLoader(reader, batch_size=batch_size, num_workers=num_workers, collate_fn=list):
            for item in items:
                if isinstance(item, ExplainerError):
                    raise item
            yield items

    # ---- saving ----

    def save_pretrained(self, save_directory, remote_code: bool = False, **kwargs):
        """Model and processor; with `remote_code=True` also this pipeline's code, for people without hf-explain.

        A repository with remote code asks everybody for trust_remote_code=True, also those who have hf-explain: keep it
        on a branch of its own.
        """
        config = self.model.config
        if remote_code:  # only this class travels, not the one that hf_explain registers
            names = [c.__name__ for c in auto_classes()]
            impl = f"{ImageAttributionPipeline.__module__.split('.')[-1]}.{ImageAttributionPipeline.__name__}"
            config.custom_pipelines = {"image-attribution": {"impl": impl, "pt": names, "type": "image", "default": {}}}
            os.makedirs(save_directory, exist_ok=True)
            custom_object_save(ImageAttributionPipeline, save_directory)
        try:
            self.model.save_pretrained(save_directory, **kwargs)
        finally:
            if remote_code:
                del config.custom_pipelines
        self.image_processor.save_pretrained(save_directory)

    def push_to_hub(self, repo_id: str, remote_code: bool = False, **kwargs):
        """Pushes the explainer; with `remote_code=True` with this pipeline's code, best with revision="remote-code"."""
        if not isinstance(self.model, ExplainerForImageClassification):
            raise ExplainerError(
                f"{type(self.model).__name__} is a plain classifier; push it with model.push_to_hub(...)."
            )
        if remote_code:
            kwargs["save"] = functools.partial(self.save_pretrained, remote_code=True)
        return self.model.push_to_hub(repo_id, **kwargs)


def auto_classes():
    """Tried in this order, so that a plain classifier never loads as its headless base model."""
    return (AutoModelForImageClassification, AutoModel)


def read_one(read, source):
    try:
        return read(source)
    except ExplainerError as error:  # raised by the caller: an error that crosses from a worker loses its sentence
        return error


class ReadItems(Dataset):
    def __init__(self, items, read):
        self.items, self.read = items, read

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return read_one(self.read, self.items[index])


class ReadStream(IterableDataset):
    def __init__(self, items, read):
        self.items, self.read = items, read

    def __iter__(self):
        return (read_one(self.read, item) for item in self.items)
