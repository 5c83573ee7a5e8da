"""The models a visitor may ask about: the app's own by name, others of the Hub by id, within limits."""

from __future__ import annotations

import os
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property

import torch
from huggingface_hub import HfApi, is_offline_mode
from huggingface_hub.hf_api import RepoFile
from transformers import AutoConfig
from transformers.utils import logging
from transformers.utils.hub import resolve_revision

from ..explaining.pipeline import ImageAttributionPipeline
from ..methods import METHODS
from ..modeling.classifier import Classifier
from ..modeling.configuration_explainer import ExplainerConfig
from ..modeling.errors import ExplainerError
from ..modeling.modeling_explainer import ExplainerForImageClassification
from ..modeling.schemes import scheme_of
from .uploads import Limits

logger = logging.get_logger(__name__)

LEARNED = "learned"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
OWN_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")  # some old ids have no owner
WEIGHTS = re.compile(r"((classifier|backbone)/)?model(-\d+-of-\d+)?\.safetensors")


class Model:
    """A classifier and, if there is one, its explainer; `lock` is held by whoever uses it."""

    def __init__(self, name: str, classifier: Classifier, explainer: ExplainerForImageClassification | None = None):
        self.name, self.classifier, self.explainer = name, classifier, explainer
        self.lock = threading.RLock()
        shared = {"image_processor": classifier.image_processor, "device": torch.device("cpu")}
        self.pipes = {"plain": ImageAttributionPipeline(classifier.model, **shared)}
        if explainer is not None:
            self.pipes[LEARNED] = ImageAttributionPipeline(explainer, **shared)
        self.methods = [*([LEARNED] if explainer is not None else []), *METHODS]

    @cached_property
    def names(self) -> list[str]:
        """Of the classes, each once: where several have the same label, with the index."""
        labels = [self.classifier.id2label.get(i, str(i)) for i in range(self.classifier.num_labels)]
        count = Counter(labels)
        return [label if count[label] == 1 else f"{label} ({i})" for i, label in enumerate(labels)]

    def index(self, target: str | int) -> int:
        """The class of one of `names`, a label, a synonym or an index."""
        if target in self.names:
            return self.names.index(str(target))
        if isinstance(target, str) and target.strip().isdecimal():
            target = int(target)
        return self.classifier.target_index(target)

    def pipe(self, method: str | None = None) -> ImageAttributionPipeline:
        """The pipeline that a method is asked through."""
        if method == LEARNED and LEARNED not in self.pipes:
            raise ExplainerError(f"{self.name} is a plain classifier without an explainer; choose another method.")
        return self.pipes[LEARNED if method == LEARNED else "plain"]


class Models:
    """Models by name, the most recently used ones in memory.

    Args:
        own: name -> folder, Hub id, or a function that makes either; the first is the default. They are trusted.
        open: whether visitors may name models of the Hub.
        kept: how many stay in memory.
    """

    def __init__(
        self, own: dict[str, str | Callable[[], str]], limits: Limits | None = None, *, open: bool = True,
        trust_remote_code: bool = False, kept: int = 3,
    ):  # fmt: skip
        self.own, self.limits, self.open, self.kept = own, limits or Limits(), open, kept
        self.trust_remote_code = trust_remote_code
        self.loaded: OrderedDict[str, Model] = OrderedDict()
        self.lock = threading.Lock()  # of `loaded` and `loading`
        self.loading: dict[str, threading.Lock] = {}

    @contextmanager
    def use(self, name: str) -> Iterator[Model]:
        """The model alone: methods change it for a moment, so nobody else may ask it meanwhile."""
        model = self.load(name.strip())
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with model.lock:
            for pipe in model.pipes.values():
                pipe.device = device
                pipe.model.to(device)
            yield model

    def load(self, name: str) -> Model:
        with self.lock:
            own_lock = self.loading.setdefault(name, threading.Lock())
        try:
            with own_lock:  # two visitors who name a new model wait for one download
                with self.lock:
                    if name in self.loaded:
                        self.loaded.move_to_end(name)
                        return self.loaded[name]
                model = self.read_own(name) if name in self.own else self.read_hub(name)
                with self.lock:
                    self.loaded[name] = model
                    while len(self.loaded) > self.kept:
                        self.loaded.popitem(last=False)
                return model
        finally:
            with self.lock:
                self.loading.pop(name, None)

    def read_own(self, name: str) -> Model:
        source = self.own[name]
        source = source() if callable(source) else source
        if not os.path.isdir(source) and not OWN_ID.fullmatch(source) and not scheme_of(source):
            raise ExplainerError(f"there is no folder {source!r}; give one that exists, or a Hub id.")
        return read_model(name, source, {"trust_remote_code": self.trust_remote_code})

    def read_hub(self, name: str) -> Model:
        """A model that a visitor named: public, safetensors, of limited size, and without code of its own."""
        if not self.open:
            raise ExplainerError(f"this app explains {', '.join(self.own)} only; choose one of them.")
        if scheme_of(name):  # of an installed package: nothing is fetched
            return read_model(name, name, {})
        if not HUB_ID.fullmatch(name) or os.path.exists(name):  # a folder here is nobody's business
            raise ExplainerError(
                "besides the models of its list, this page loads those of the Hub only; give an id of the form "
                "owner/name such as google/vit-base-patch16-224."
            )
        # The operator's token stays at home: it could open what visitors may not see.
        hub = {"token": False, "trust_remote_code": self.trust_remote_code}
        try:
            hub["revision"] = resolve_revision(name, None, token=False)
            self.check_size(name, hub["revision"])
            return read_model(name, name, hub, self.check_size)
        except ExplainerError:
            raise
        except Exception as error:  # whatever is in a stranger's repository
            logger.warning(f"{name} could not be loaded: {type(error).__name__}: {error}")
            raise ExplainerError(f"{name} could not be loaded: {reason(error)}.") from error

    def check_size(self, name: str, revision) -> None:
        """Refuses what is too large before it is fetched."""
        if is_offline_mode():
            return  # nothing will be fetched
        files = HfApi(token=False).list_repo_tree(
            name, recursive=True, revision=getattr(revision, "resolved", revision)
        )
        sizes = [file.size for file in files if isinstance(file, RepoFile) and WEIGHTS.fullmatch(file.path)]
        if not sizes:
            raise ExplainerError(f"{name} has no model.safetensors, and nothing else is read; choose another model.")
        if sum(sizes) > self.limits.model_bytes:
            raise ExplainerError(
                f"the weights of {name} have {sum(sizes) / 1e9:.1f} GB, but this app takes up to "
                f"{self.limits.model_bytes / 1e9:.1f}; choose a smaller model."
            )


def read_model(name: str, source: str, hub: dict, check_size: Callable | None = None) -> Model:
    """The explainer or classifier in a folder or on the Hub; `check_size(id, revision)` sees what it refers to."""
    config = None if scheme_of(source) else AutoConfig.from_pretrained(source, **hub)
    if not isinstance(config, ExplainerConfig):
        classifier = Classifier.from_pretrained(source, use_safetensors=True, **hub)
        if classifier.image_processor is None:
            raise ExplainerError(f"{name} has no image processor beside it; choose another model.")
        return Model(name, classifier)
    if check_size:
        for role in ("classifier", "backbone"):
            other = getattr(config, f"{role}_name_or_path", None)
            if other and not config.classifier_included:
                if scheme_of(other):
                    continue
                if not HUB_ID.fullmatch(other):
                    raise ExplainerError(f"{name} refers to a {role} that is not on the Hub; choose another model.")
                check_size(other, getattr(config, f"{role}_revision"))
    explainer = ExplainerForImageClassification.from_pretrained(
        source, **{k: v for k, v in hub.items() if k != "trust_remote_code"}
    ).eval()
    return Model(name, explainer.require_classifier(), explainer)


def reason(error: Exception) -> str:
    """Why, in words without paths or addresses: messages of libraries hold both."""
    chain: list[BaseException] = [error]
    while after := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(after)
    kinds = {kind.__name__ for one in chain for kind in type(one).__mro__}
    text = str(error)
    if "trust_remote_code" in text:
        return "it needs code of its own, which this app does not run"
    if "GatedRepoError" in kinds:
        return "it is gated, and this app opens public models only"
    if "RepositoryNotFoundError" in kinds:
        return "there is no public model of that id"
    unreachable = {"OfflineModeIsEnabled", "ConnectionError", "NetworkError", "TimeoutException"}
    if kinds & unreachable or "couldn't connect" in text:  # transformers leaves out what it was raised from
        return "the Hub cannot be reached"
    return "it is not an image classifier or explainer that this app can read"
