"""`ExplainerForImageClassification`: a small trained head beside a frozen classifier, saved and loaded like any model.

A checkpoint holds the head only; the classifier is named by id, commit and a fingerprint of its weights, or saved
inside with `include_classifier=True`. It is attached after the head has been loaded, because transformers builds
models on the meta device, where nothing else can be loaded.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput, logging

from .classifier import HUB_ARGUMENTS, Classifier, as_classifier
from .configuration_explainer import ExplainerConfig
from .errors import ExplainerError
from .feature_maps import FeatureMap, choose_features, read_features
from .frozen_models import check_fingerprint, name_of
from .loading import find_class, load_explainer, of_hub, pinned
from .making import head_options, initialize, make_config
from .model_call import call, check_pictures
from .pixel_space import PixelSpace
from .saving import PUSH_ARGUMENTS, config_to_save, decide_inclusion, push, save_frozen
from .targets import check_predicted, read_targets

logger = logging.get_logger(__name__)


@dataclass
class ExplainerOutput(ModelOutput):
    """
    attributions: float32, higher = more important, at the input's resolution: (B, H, W), or (B, T, H, W) for T targets.
    logits: the classifier's, (B, num_labels).
    targets: the classes explained, (B,) or (B, T).

    >>> ExplainerOutput(attributions=torch.zeros(2, 32, 32), logits=torch.zeros(2, 8)).attributions.shape
    torch.Size([2, 32, 32])
    """

    attributions: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    targets: torch.Tensor | None = None


class ExplainerForImageClassification(PreTrainedModel):
    """What all explainers share: the frozen classifier, its features, targets, and the checkpoint.

    An explainer implements `attribute(pixel_values, maps, targets) -> (B, T, H, W)`.

    >>> import tempfile
    >>> from hf_explain import RankingExplainerForImageClassification
    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> explainer = RankingExplainerForImageClassification.from_classifier(random_classifier(), preset="tiny")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     explainer.save_pretrained(folder)
    ...     again = ExplainerForImageClassification.from_pretrained(folder)  # whichever explainer it is
    >>> type(again) is type(explainer)
    True
    """

    config_class = ExplainerConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    base_model_prefix = "head"
    supports_gradient_checkpointing = True
    # Requests for an attention implementation are meant for the classifier, but checked against this class first.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True
    presets: dict[str, dict] = {}
    shared_options: tuple[str, ...] = ()  # of the config's values for all explainers, those this one lets choose

    def __init__(self, config: ExplainerConfig):
        super().__init__(config)
        self.classifier: Classifier | None = None  # attached after the head's weights are loaded
        self.backbone: PreTrainedModel | None = None
        self.pixel_space = PixelSpace(**config.pixel_space) if config.pixel_space else None
        self._maps: list[FeatureMap] = config.read_maps()

    # ---- making one ----

    @classmethod
    def from_classifier(
        cls, classifier, image_processor=None, backbone=None, preset: str = "small", seed: int = 0, **options
    ):
        """An untrained explainer of `classifier`, which is frozen: eval mode, no gradients for its weights.

        Args:
            classifier: Hub id, folder, model or `Classifier`.
            image_processor: of the classifier, where it is not beside it.
            backbone: a second vision model whose hidden states are read instead: Hub id, folder, model, or the pair
                (model, image processor).
            preset: size of the head, a key of `presets`; `options` override single values of it. Loading arguments
                (revision, token, dtype, attn_implementation, ...) go to the classifier.
            seed: of the head's initial weights.
        """
        loading = {k: options.pop(k) for k in (*HUB_ARGUMENTS, "dtype", "attn_implementation") if k in options}
        hub = of_hub(loading)
        head = head_options(cls, preset, options)
        given = isinstance(classifier, (str, os.PathLike))
        token = {} if given else {k: loading.pop(k) for k in ("token", "cache_dir", "local_files_only") if k in loading}
        classifier = as_classifier(classifier, image_processor, loading)
        config, backbone = make_config(cls, classifier, backbone, head, hub, token)
        with torch.random.fork_rng(devices=[]):  # the head is initialized on the CPU
            torch.default_generator.manual_seed(seed)
            explainer = cls(config)
        return explainer.join(classifier, backbone).to(classifier.device).eval()

    @classmethod
    def choose(cls, features: list[FeatureMap]) -> list[FeatureMap]:
        """The hidden states that are read."""
        return choose_features(features)

    @classmethod
    def describe(cls, classifier: Classifier, size: tuple[int, int]) -> dict:
        """What else the config has to know of the classifier."""
        return {}

    def attach(self, classifier: Classifier, backbone: PreTrainedModel | None = None):
        """Joins the classifier (and second backbone) the head was made for, after checking their weights."""
        check_fingerprint(classifier.model, self.config.classifier_fingerprint, "classifier", name_of(classifier.model))
        if bool(self.config.backbone_fingerprint) != (backbone is not None):
            needs = "reads a second model" if self.config.backbone_fingerprint else "reads the classifier only"
            raise ExplainerError(
                f"this {type(self).__name__} {needs}; {'give' if backbone is None else 'omit'} backbone=."
            )
        if backbone is not None:
            check_fingerprint(backbone, self.config.backbone_fingerprint, "backbone", name_of(backbone))
        return self.join(classifier, backbone)

    def join(self, classifier: Classifier, backbone: PreTrainedModel | None = None):
        """Freezes the models, says so, and makes them part of this one; their weights are never saved with the head."""
        if classifier.num_labels != self.config.num_labels:
            raise ExplainerError(
                f"{type(classifier.model).__name__} has {classifier.num_labels} classes, but this explainer was made "
                f"for {self.config.num_labels}; give the classifier it was made for."
            )
        if classifier.pixel_space is None:
            classifier.pixel_space = self.pixel_space
        elif self.pixel_space is not None and not classifier.pixel_space.is_close(self.pixel_space):
            raise ExplainerError(
                f"the image processor writes colors as {classifier.pixel_space}, but this explainer was made for "
                f"{self.pixel_space}; give the image processor it was made with."
            )
        for model in (classifier.model, backbone):
            trainable = sum(p.numel() for p in model.parameters() if p.requires_grad) if model is not None else 0
            if trainable or (model is not None and model.training):
                logger.warning(f"{type(model).__name__}: froze {trainable:,} parameters and set eval mode.")
        self.classifier = classifier.freeze()
        self.backbone = backbone.requires_grad_(False).eval() if backbone is not None else None
        frozen = {"classifier": self.classifier, "backbone": self.backbone}
        self._keys_to_ignore_on_save = {f"{n}.{k}" for n, m in frozen.items() if m is not None for k in m.state_dict()}
        return self

    # ---- using it ----

    def forward(
        self, pixel_values: torch.Tensor, targets=None, top_k: int | None = None, return_dict: bool | None = True
    ):
        """Maps of `targets`: None (the prediction), an int, (B,) -> (B, H, W), or (B, T) -> (B, T, H, W).

        Without targets, `top_k=T` explains the T most probable classes.
        """
        self.require_classifier()
        check_pictures(pixel_values)
        if targets is not None and top_k is not None:
            raise ExplainerError(f"targets and top_k={top_k} were both given; give the classes, or how many.")
        with torch.set_grad_enabled(torch.is_grad_enabled() and pixel_values.requires_grad):
            logits, maps = self.read(pixel_values)
        if targets is None and top_k is not None:
            targets = logits.topk(min(top_k, logits.shape[1])).indices
        targets = read_targets(targets, logits)
        if not self.config.class_conditional:
            check_predicted(targets, logits, type(self).__name__)
        columns = targets if targets.ndim == 2 else targets[:, None]
        attributions = self.finish(self.map_of(pixel_values, maps, columns))
        attributions = attributions if targets.ndim == 2 else attributions[:, 0]
        if return_dict is False:
            return attributions, logits, targets
        return ExplainerOutput(attributions=attributions, logits=logits, targets=targets)

    @property
    def head_dtype(self) -> torch.dtype:
        return next(p.dtype for p in self.head.parameters())

    def map_of(self, pixel_values: torch.Tensor, maps: list[torch.Tensor], targets: torch.Tensor, *slopes):
        """`attribute` of hidden states that were read, computed in the precision of the head, as float32."""
        dtype = self.head_dtype
        return self.attribute(pixel_values.to(dtype), [m.to(dtype) for m in maps], targets, *slopes).float()

    def attribute(self, pixel_values: torch.Tensor, maps: list[torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W), hidden states (B, C, h, w) each, (B, T) -> (B, T, H, W)."""
        raise TypeError(f"{type(self).__name__} is not an explainer by itself; use one of its subclasses.")

    def finish(self, attributions: torch.Tensor) -> torch.Tensor:
        """Trained maps (B, T, H, W) -> what is returned; training never sees this."""
        return attributions

    def read(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """(logits, maps) of the classifier, or of classifier and backbone, from one forward each."""
        classifier = self.require_classifier()
        pixel_values = pixel_values.to(classifier.dtype)
        if self.backbone is None:
            output, maps = read_features(classifier.model, pixel_values, self._maps)
            return classifier.check_logits(getattr(output, "logits", None)), maps
        logits = classifier.check_logits(getattr(call(classifier.model, pixel_values), "logits", None))
        ours, theirs = (PixelSpace(**s) for s in (self.config.pixel_space, self.config.backbone_pixel_space))
        as_theirs = theirs.from_rgb(ours.to_rgb(pixel_values)).to(self.backbone.dtype)
        return logits, read_features(self.backbone, as_theirs, self._maps)[1]

    def require_classifier(self) -> Classifier:
        if self.classifier is None:
            raise ExplainerError(
                f"this {type(self).__name__} was loaded without its classifier; load it with load_classifier=True, or "
                "call attach(Classifier.from_pretrained(...))."
            )
        return self.classifier

    @property
    def image_processor(self):
        """The processor of the classifier's pictures, saved with the explainer; None if unknown."""
        return self.classifier.image_processor if self.classifier is not None else None

    def train(self, mode: bool = True):
        """Training mode for the head only."""
        super().train(mode)
        for frozen in (self.classifier, self.backbone):
            if frozen is not None:
                frozen.eval()
                for module in frozen.modules():  # a layer recomputes only if its own flag, not its children's, is set
                    if mode and getattr(module, "gradient_checkpointing", False):
                        module.training = True
        return self

    def _set_gradient_checkpointing(self, *args, **kwargs):
        super()._set_gradient_checkpointing(*args, **kwargs)
        self.train(self.training)

    def _init_weights(self, module: nn.Module):
        initialize(module)

    # ---- saving and loading ----

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path, *args, classifier=None, backbone=None, load_classifier=True, **kwargs
    ):
        """The explainer with its classifier; all usual arguments of transformers.

        Args:
            classifier: a model or `Classifier` to use instead of loading the one referred to; must have its weights.
            backbone: likewise for the second model.
            load_classifier: False loads the head alone.
        """
        name, want_info = pretrained_model_name_or_path, kwargs.pop("output_loading_info", False)
        kwargs = pinned(name, kwargs)
        if cls is ExplainerForImageClassification:
            given = {"classifier": classifier, "backbone": backbone, "load_classifier": load_classifier}
            actual = find_class(cls, name, kwargs)
            return actual.from_pretrained(name, *args, output_loading_info=want_info, **given, **kwargs)
        explainer, info = load_explainer(
            cls, super().from_pretrained, name, args, kwargs,
            classifier=classifier, backbone=backbone, with_classifier=load_classifier,
        )  # fmt: skip
        return (explainer, info) if want_info else explainer

    def save_pretrained(
        self, save_directory, *args, include_classifier: bool | None = None, push_to_hub=False, **kwargs
    ):
        """Saves the head, the image processor, and with `include_classifier=True` the classifier in `classifier/`.

        By default a classifier is included if it was before, or if it has no name by which it could be found again.
        """
        hub = {k: kwargs.pop(k) for k in PUSH_ARGUMENTS if k in kwargs}
        include = decide_inclusion(self, include_classifier)
        with config_to_save(self, save_directory, include):
            super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            save_frozen(self, save_directory, include)
            if push_to_hub:
                repo_id = hub.pop("repo_id", None) or os.path.basename(os.path.abspath(save_directory))
                self.push_to_hub(repo_id, include_classifier=include, **hub, **kwargs)

    def push_to_hub(
        self, repo_id: str, *, include_classifier: bool | None = None, private: bool | None = None, token=None,
        revision: str | None = None, commit_message: str = "Upload explainer", commit_description: str | None = None,
        create_pr: bool = False, tags=(), save=None, **kwargs,
    ):  # fmt: skip
        """Uploads what `save_pretrained` writes, and a card if there is none yet; returns the commit's address."""
        include = decide_inclusion(self, include_classifier)
        write = partial(save or self.save_pretrained, include_classifier=include, **kwargs)
        commit = {"commit_message": commit_message, "commit_description": commit_description, "create_pr": create_pr}
        return push(
            self, repo_id, include, write, private=private, token=token, revision=revision, tags=tags, commit=commit
        )
