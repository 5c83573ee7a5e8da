"""`ExplainerForImageClassification`: a small trained head beside a frozen classifier, saved and loaded like any model.

A checkpoint holds the head only; the classifier is named by id, commit and a fingerprint of its weights, or saved
inside with `include_classifier=True`. It is attached after the head has been loaded, because transformers builds
models on the meta device, where nothing else can be loaded.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, logging
from transformers.utils.hub import hf_api

from .classifier import HUB_ARGUMENTS, Classifier, load_image_processor
from .configuration_explainer import ExplainerConfig
from .feature_maps import FeatureMap, call, choose_features, probe, read_features
from .model_card import card_to_push
from .perturbation import ExplainerError, PixelSpace
from .reference import (
    check_fingerprint,
    fingerprint,
    is_local,
    load_backbone,
    load_backbone_source,
    load_classifier,
    pin,
    require_safetensors,
)

logger = logging.get_logger(__name__)

PUSH_ARGUMENTS = (
    "repo_id", "private", "token", "revision", "commit_message", "commit_description", "create_pr", "tags"
)  # fmt: skip


@dataclass
class ExplainerOutput(ModelOutput):
    """
    attributions: float32, higher = more important, at the input's resolution: (B, H, W), or (B, T, H, W) for T targets.
    logits: the classifier's, (B, num_labels).
    targets: the classes explained, (B,) or (B, T).
    """

    attributions: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    targets: torch.LongTensor | None = None


class ExplainerForImageClassification(PreTrainedModel):
    """What all explainers share: the frozen classifier, its features, targets, and the checkpoint.

    An explainer implements `attribute(pixel_values, maps, targets) -> (B, T, H, W)`.
    """

    config_class = ExplainerConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    base_model_prefix = "head"
    supports_gradient_checkpointing = True
    # Requests for an attention implementation are meant for the classifier, but checked against this class first.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True
    presets: dict[str, dict] = {}

    def __init__(self, config: ExplainerConfig):
        super().__init__(config)
        self.classifier: Classifier | None = None  # attached after the head's weights are loaded
        self.backbone: nn.Module | None = None
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
        if preset not in cls.presets:
            known = (
                ", ".join(cls.presets) or "none: call it on an explainer such as RankingExplainerForImageClassification"
            )
            raise ExplainerError(f"{cls.__name__} has no preset {preset!r}; choose from {known}.")
        loading = {k: options.pop(k) for k in (*HUB_ARGUMENTS, "dtype", "attn_implementation") if k in options}
        own = {f.name for f in dataclasses.fields(cls.config_class)} - {
            f.name for f in dataclasses.fields(ExplainerConfig)
        }
        if unknown := set(options) - own:
            raise ExplainerError(
                f"unknown option {', '.join(sorted(unknown))} of {cls.__name__}; its head has {', '.join(sorted(own))}."
            )
        classifier = as_classifier(classifier, image_processor, loading)
        trainable = sum(p.numel() for p in classifier.parameters() if p.requires_grad)
        if trainable or classifier.model.training:
            logger.warning(f"{type(classifier.model).__name__}: froze {trainable:,} parameters and set eval mode.")
        classifier.freeze()
        size, space = classifier.size, classifier.pixel_space
        features = classifier.probe(size)
        reference = {
            "classifier_name_or_path": classifier.name_or_path,
            "classifier_revision": classifier.revision,
            "classifier_fingerprint": fingerprint(classifier.model),
            "classifier_dtype": str(classifier.dtype).removeprefix("torch."),
        }
        if backbone is not None:
            hub = {k: v for k, v in loading.items() if k in HUB_ARGUMENTS}
            backbone, processor, name, revision = load_backbone_source(backbone, hub)
            if processor is None or space is None:
                raise ExplainerError(
                    f"{type(backbone).__name__} reads pictures in a pixel space of its own, so the image processors of "
                    "classifier and backbone are both needed; give image_processor= and backbone=(model, processor)."
                )
            features = probe(backbone, size)[1]
            reference |= {
                "backbone_name_or_path": name,
                "backbone_revision": revision,
                "backbone_fingerprint": fingerprint(backbone),
                "backbone_pixel_space": PixelSpace.from_image_processor(processor).to_dict(),
            }
        labels = {"id2label": dict(classifier.id2label), "label2id": {v: k for k, v in classifier.id2label.items()}}
        config = cls.config_class(
            **reference,
            **labels,
            **cls.presets[preset] | options,
            problem_type=getattr(classifier.config, "problem_type", None),
            pixel_space=space.to_dict() if space else None,
            image_size=list(size),
            feature_maps=[f.to_dict() for f in choose_features(features)],
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            explainer = cls(config)
        return explainer.to(classifier.device).attach(classifier, backbone).eval()

    def attach(self, classifier: Classifier, backbone: nn.Module | None = None):
        """Joins the frozen classifier (and second backbone) to the head; their weights are never saved with it."""
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
        if not torch.compiler.is_compiling() and (pixel_values.ndim != 4 or pixel_values.shape[1] != 3):
            raise ExplainerError(
                f"pixel_values have the shape {tuple(pixel_values.shape)}, but (batch, 3, height, width) is needed; "
                "give what the classifier's image processor returns."
            )
        with torch.set_grad_enabled(torch.is_grad_enabled() and pixel_values.requires_grad):
            logits, maps = self.read(pixel_values)
        if targets is None and top_k is not None:
            targets = logits.topk(min(top_k, logits.shape[1])).indices
        targets = self.read_targets(targets, logits)
        columns = targets if targets.ndim == 2 else targets[:, None]
        dtype = next(p.dtype for p in self.parameters() if p.is_floating_point())
        attributions = self.attribute(pixel_values.to(dtype), [m.to(dtype) for m in maps], columns).float()
        attributions = attributions if targets.ndim == 2 else attributions[:, 0]
        if return_dict is False:
            return attributions, logits, targets
        return ExplainerOutput(attributions=attributions, logits=logits, targets=targets)

    def attribute(self, pixel_values: torch.Tensor, maps: list[torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W), hidden states (B, C, h, w) each, (B, T) -> (B, T, H, W)."""
        raise TypeError(f"{type(self).__name__} is not an explainer by itself; use one of its subclasses.")

    def read(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """(logits, maps) of the classifier, or of classifier and backbone, from one forward each."""
        classifier = self.require_classifier()
        pixel_values = pixel_values.to(classifier.dtype)
        if self.backbone is None:
            output, maps = read_features(classifier.model, pixel_values, self._maps)
            return classifier.check_logits(getattr(output, "logits", None)), maps
        logits = classifier.check_logits(getattr(call(classifier.model, pixel_values), "logits", None))
        space = PixelSpace(**self.config.backbone_pixel_space)
        theirs = space.from_rgb(self.pixel_space.to_rgb(pixel_values)).to(self.backbone.dtype)
        return logits, read_features(self.backbone, theirs, self._maps)[1]

    def read_targets(self, targets, logits: torch.Tensor) -> torch.Tensor:
        """`targets` of a call as (B,) or (B, T)."""
        batch, labels = logits.shape
        if targets is None:
            return logits.argmax(-1)
        if isinstance(targets, int):
            targets = torch.full((batch,), targets)
        targets = torch.as_tensor(targets, device=logits.device)
        if torch.compiler.is_compiling():
            return targets
        if targets.is_floating_point() or targets.ndim not in (1, 2) or len(targets) != batch:
            raise ExplainerError(
                f"targets of shape {tuple(targets.shape)} and type {targets.dtype} for {batch} images; give None, one "
                f"integer, integers ({batch},), or ({batch}, T) for several per image."
            )
        if targets.numel() == 0 or int(targets.min()) < 0 or int(targets.max()) >= labels:
            raise ExplainerError(f"targets {targets.tolist()} hold no class or one outside 0 to {labels - 1}.")
        prediction = logits.argmax(-1)
        if not self.config.class_conditional and not (targets.view(batch, -1) == prediction[:, None]).all():
            raise ExplainerError(
                f"{type(self).__name__} explains the prediction only ({prediction.tolist()}), but was asked for "
                f"{targets.tolist()}; leave targets out."
            )
        return targets

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

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=module.in_features**-0.5)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight)
        elif isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
            init.ones_(module.weight)
        if getattr(module, "bias", None) is not None:
            init.zeros_(module.bias)

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
        name, subfolder = pretrained_model_name_or_path, kwargs.get("subfolder") or ""
        hub = {k: kwargs[k] for k in HUB_ARGUMENTS if k in kwargs}
        if name is not None:
            hub = pin(name, hub)
            kwargs.update(hub)
        if cls is ExplainerForImageClassification:
            config = kwargs.get("config") or AutoConfig.from_pretrained(name, subfolder=subfolder, **hub)
            actual = AutoModel._model_mapping.get(type(config), None)
            if actual is None or not issubclass(actual, ExplainerForImageClassification):
                raise ExplainerError(
                    f"{name} holds a {config.model_type!r} model, not an explainer; make one for it with "
                    "RankingExplainerForImageClassification.from_classifier(...)."
                )
            given = {"classifier": classifier, "backbone": backbone, "load_classifier": load_classifier}
            return actual.from_pretrained(name, *args, **given, **kwargs)
        if kwargs.pop("use_safetensors", None) is False:
            raise ExplainerError(
                "use_safetensors=False was given, but explainers are only read from model.safetensors; leave it out."
            )
        if name is not None and not kwargs.get("state_dict") and not kwargs.get("variant"):
            require_safetensors(name, subfolder, hub)
        want_info = kwargs.pop("output_loading_info", False)
        # An Auto class moves attn_implementation into the config it passes on; both are meant for the classifier.
        attention = kwargs.pop("attn_implementation", None) or getattr(
            kwargs.get("config"), "_attn_implementation", None
        )
        # Sizes that differ are refused below, in one sentence.
        strict = {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
        explainer, info = super().from_pretrained(name, *args, **{**kwargs, **strict})
        if lost := info["missing_keys"] or info["mismatched_keys"]:
            raise ExplainerError(
                f"{name} lacks {len(lost)} tensors of the head, {sorted(map(str, lost))[0]} among them; its weights "
                "belong to another config, save it again with save_pretrained(...)."
            )
        explainer.check_finite(name)
        if load_classifier or classifier is not None:
            dtype = kwargs.get("dtype", kwargs.get("torch_dtype"))
            explainer._attach_referenced(name, subfolder, hub, classifier, backbone, dtype, attention)
        return (explainer, info) if want_info else explainer

    def check_finite(self, name) -> None:
        for key, parameter in self.named_parameters():
            if not parameter.is_meta and not torch.isfinite(parameter).all():
                raise ExplainerError(
                    f"the weights of {name} hold NaN or infinite values ({key}); the training that made them failed, "
                    "load an earlier checkpoint."
                )

    def _attach_referenced(self, name, subfolder, hub, classifier, backbone, dtype, attention) -> None:
        config, loading = self.config, {"dtype": getattr(torch, self.config.classifier_dtype)}
        if attention:
            loading["attn_implementation"] = attention
        processor = None
        if name is not None and (classifier is None or not isinstance(classifier, Classifier)):
            processor = load_image_processor(name, subfolder=subfolder, trust_remote_code=False, **hub)
        if classifier is None:
            if not config.classifier_included and not config.classifier_name_or_path:
                raise ExplainerError(f"{name} names no classifier; give the one it was made for with classifier=.")
            classifier = load_classifier(config, name, subfolder, hub, processor, loading)
        else:
            if not isinstance(classifier, Classifier):
                classifier = Classifier(classifier, processor)
            check_fingerprint(
                classifier.model, config.classifier_fingerprint, "classifier", type(classifier.model).__name__
            )
        if config.backbone_fingerprint and backbone is None:
            backbone = load_backbone(config, name, subfolder, hub, loading)
        elif config.backbone_fingerprint:
            check_fingerprint(backbone, config.backbone_fingerprint, "backbone", type(backbone).__name__)
        target = {"device": self.device}
        if isinstance(dtype, torch.dtype) or (isinstance(dtype, str) and dtype != "auto"):
            target["dtype"] = dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype)
        self.attach(classifier.to(**target), backbone.to(**target) if backbone is not None else None)

    def save_pretrained(
        self, save_directory, *args, include_classifier: bool | None = None, push_to_hub=False, **kwargs
    ):
        """Saves the head, the image processor, and with `include_classifier=True` the classifier in `classifier/`.

        By default a classifier is included if it was before, or if it has no name by which it could be found again.
        """
        classifier, main = self.classifier, kwargs.get("is_main_process", True)
        include = self._include(include_classifier)
        hub = {k: kwargs.pop(k) for k in PUSH_ARGUMENTS if k in kwargs}
        changes = self._included_reference() if include else {}
        if classifier is not None:
            changes["classifier_included"] = include
        before = {key: getattr(self.config, key) for key in changes}
        try:
            self.config.update(changes)
            super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            self.config.update(before)
        if main and include:
            classifier.model.save_pretrained(os.path.join(save_directory, "classifier"))
            if self.backbone is not None:
                self.backbone.save_pretrained(os.path.join(save_directory, "backbone"))
        if main and self.image_processor is not None:
            self.image_processor.save_pretrained(save_directory)
        if main and push_to_hub:
            repo_id = hub.pop("repo_id", None) or os.path.basename(os.path.abspath(save_directory))
            self.push_to_hub(repo_id, include_classifier=include, **hub, **kwargs)

    def _included_reference(self) -> dict:
        """What the config says of models saved inside: no folder of this machine, and the dtype they have now."""
        names = [f"{role}_name_or_path" for role in ("classifier", "backbone")]
        changes = {name: None for name in names if is_local(getattr(self.config, name))}
        return changes | {"classifier_dtype": str(self.classifier.dtype).removeprefix("torch.")}

    def _include(self, asked: bool | None) -> bool:
        if self.classifier is None:
            if asked:
                raise ExplainerError("include_classifier=True, but this explainer was loaded without its classifier.")
            return False
        named = self.config.classifier_name_or_path and (self.backbone is None or self.config.backbone_name_or_path)
        if asked is False and not named:
            raise ExplainerError(
                f"{type(self.classifier.model).__name__} has no Hub id or folder by which it could be found again; "
                "save with include_classifier=True."
            )
        if asked is None and not named and not self.config.classifier_included:
            logger.info("the classifier has no name by which it could be found again, so it is saved in classifier/.")
        return bool(asked if asked is not None else self.config.classifier_included or not named)

    def push_to_hub(
        self, repo_id: str, *, include_classifier: bool | None = None, private: bool | None = None, token=None,
        revision: str | None = None, commit_message: str = "Upload explainer", commit_description: str | None = None,
        create_pr: bool = False, tags=(), save=None, **kwargs,
    ):  # fmt: skip
        """Uploads what `save_pretrained` writes, and a card if there is none yet; returns the commit's address."""
        include = self._include(include_classifier)
        for role in ("classifier", "backbone"):
            name = getattr(self.config, f"{role}_name_or_path")
            if not include and is_local(name):
                raise ExplainerError(
                    f"the {role} of this explainer is the local folder {name!r}, which nobody else has; push with "
                    "include_classifier=True, or make the explainer from a Hub id."
                )
        repo_id = hf_api().create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
        card = card_to_push(self, repo_id, include, tags, revision, token)
        with tempfile.TemporaryDirectory() as folder:
            (save or self.save_pretrained)(folder, include_classifier=include, **kwargs)
            card.save(os.path.join(folder, "README.md"))
            return self._upload_modified_files(
                folder, repo_id, {}, commit_message=commit_message, commit_description=commit_description, token=token,
                create_pr=create_pr, revision=revision,
            )  # fmt: skip


def as_classifier(classifier, image_processor=None, loading: dict | None = None) -> Classifier:
    """A `Classifier` of a Hub id, a folder, a model or a `Classifier`."""
    if isinstance(classifier, Classifier):
        return classifier
    if isinstance(classifier, (str, os.PathLike)):
        return Classifier.from_pretrained(os.fspath(classifier), image_processor, **(loading or {}))
    if image_processor is None and getattr(classifier, "name_or_path", None):
        image_processor = load_image_processor(classifier.name_or_path)
    return Classifier(classifier, image_processor)
