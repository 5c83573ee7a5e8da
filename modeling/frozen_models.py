"""How a checkpoint names the frozen models it needs, finds them again, and makes sure they are the same."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re

import torch
from torch import nn
from transformers import AutoModel
from transformers.utils import logging
from transformers.utils.hub import cached_file, has_file

from .classifier import Classifier, load_image_processor, pin
from .errors import ExplainerError
from .pixel_space import PixelSpace
from .schemes import scheme_of

logger = logging.get_logger(__name__)

FLOAT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
REPO_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


def fingerprint(model: nn.Module) -> dict[str, str]:
    """Who a model is: a hash of its weights for each dtype they may be loaded in.

    Names of weights are left out, since transformers renames them between releases; the tensors' own hashes are sorted.
    """
    tensors = [t.detach().cpu() for t in model.state_dict().values() if t.is_floating_point()]
    # Where a few tensors are kept in float32, it is the others that tell in which dtype the model is.
    native = next((t.dtype for t in tensors if t.dtype != torch.float32), torch.float32)

    def digest(tensor, dtype):
        data = tensor.to(dtype).reshape(-1).contiguous().view(torch.uint8)
        shape = repr(tuple(tensor.shape)).encode()
        return hashlib.sha256(shape + data.numpy().tobytes()).digest()

    def together(dtype):
        return hashlib.sha256(b"".join(sorted(digest(t, dtype) for t in tensors))).hexdigest()[:32]

    lower = (native,) if native in (torch.float16, torch.bfloat16) else FLOAT_DTYPES
    return {str(dtype).removeprefix("torch."): together(dtype) for dtype in lower}


def fingerprint_of(model: nn.Module) -> str:
    """The digest of `fingerprint` alone."""
    return next(iter(fingerprint(model).values()))


def check_fingerprint(model: nn.Module, expected: dict[str, str] | None, role: str, name: str, revision=None) -> None:
    """Raises unless `model` has the weights the explainer was made for, in whatever dtype it is loaded."""
    if not expected:
        return
    actual = fingerprint(model)
    known = [dtype for dtype in actual if dtype in expected]
    if not known or any(actual[dtype] != expected[dtype] for dtype in known):
        at = f" at revision {revision[:12]}" if revision else ""
        dtype = known[0] if known else next(iter(expected))
        was, now = expected[dtype], actual.get(dtype) or next(iter(actual.values()))
        raise ExplainerError(
            f"{role} {name}{at} has the fingerprint {now[:12]}, but this explainer was made for {was[:12]}: the "
            f"weights differ; give the right one with {role}=, or train an explainer for this one."
        )


def name_of(model) -> str:
    return getattr(model, "name_or_path", None) or type(model).__name__


def is_local(name: str | None) -> bool:
    """Whether a reference is a folder of this machine, which nobody else has."""
    return name is not None and (os.path.isabs(name) or os.path.isdir(name))


def check_reference(name: str, role: str, from_hub: bool) -> None:
    """Refuses a reference that could reach outside: `..` anywhere, or a path in a repository of the Hub."""
    if ".." in name.replace("\\", "/").split("/"):
        raise ExplainerError(
            f"this explainer refers to the {role} {name!r}, which contains '..'; give the model with {role}=."
        )
    if from_hub and not REPO_ID.fullmatch(name) and not scheme_of(name):
        raise ExplainerError(
            f"this explainer comes from the Hub but refers to the {role} {name!r}, a path on its author's machine; "
            f"give the model with {role}=, or ask the author to push with include_classifier=True."
        )


def require_safetensors(name, subfolder: str, hub: dict) -> None:
    """Refuses a head saved as a pickle, which runs code when it is read."""
    # The weights are needed next anyway, a pickle is not worth its download.
    hub = {k: v for k, v in hub.items() if k != "force_download"}
    quiet = {"subfolder": subfolder, "_raise_exceptions_for_missing_entries": False}
    if any(cached_file(name, file, **quiet, **hub) for file in WEIGHTS):
        return
    pickled = [file for file in PICKLES if has_file(name, posixpath.join(subfolder, file), **hub)]
    only = f", only {pickled[0]}, a pickle, which could run code" if pickled else ""
    raise ExplainerError(
        f"no model.safetensors was found in {name}{only}; explainers are read from nothing else, so save it again with "
        "save_pretrained(...), or ask its author to."
    )


def load_classifier(config, name, subfolder: str, hub: dict, image_processor, loading: dict) -> Classifier:
    """The classifier an explainer's config refers to, verified."""
    where, options = refer(config, "classifier", name, subfolder, hub)
    try:
        classifier = Classifier.from_pretrained(where, image_processor, **options, **loading)
    except ExplainerError:
        raise
    except Exception as error:
        raise not_loadable("classifier", where, options, error) from error
    if config.classifier_included:
        classifier.name_or_path, classifier.revision = config.classifier_name_or_path, config.classifier_revision
    check_fingerprint(classifier.model, config.classifier_fingerprint, "classifier", where, options.get("revision"))
    return classifier


def load_backbone(config, name, subfolder: str, hub: dict, loading: dict) -> nn.Module:
    """The second model an explainer's config refers to, verified."""
    where, options = refer(config, "backbone", name, subfolder, hub)
    try:
        backbone = vision_tower(AutoModel.from_pretrained(where, **options, **loading))
    except ExplainerError:
        raise
    except Exception as error:
        raise not_loadable("backbone", where, options, error) from error
    check_fingerprint(backbone, config.backbone_fingerprint, "backbone", where, options.get("revision"))
    return backbone


def refer(config, role: str, name, subfolder: str, hub: dict) -> tuple[str, dict]:
    """Where the classifier or backbone of the explainer `name` is, and the loading arguments; its code never runs."""
    if config.classifier_included:
        return str(name), hub | {"subfolder": posixpath.join(subfolder, role), "trust_remote_code": False}
    where = getattr(config, f"{role}_name_or_path")
    check_reference(where, role, from_hub=name is not None and not os.path.isdir(name))
    if os.path.isabs(where) and not os.path.isdir(where):
        raise not_loadable(role, where, {}, OSError("there is no such folder"))
    return where, elsewhere(hub, getattr(config, f"{role}_revision")) | {"trust_remote_code": False}


def elsewhere(hub: dict, revision: str | None) -> dict:
    """The arguments for another repository: its own revision."""
    hub = {k: v for k, v in hub.items() if k != "revision"}
    return hub if revision is None else hub | {"revision": revision}


def not_loadable(role: str, where: str, options: dict, error: Exception) -> ExplainerError:
    revision, folder = options.get("revision"), options.get("subfolder")
    at = (f", folder {folder}" if folder else "") + (f", revision {revision}" if revision else "")
    remedy = "" if is_local(where) else ", or a token= that may read it"
    return ExplainerError(
        f"the {role} {where}{at} of this explainer could not be loaded ({first_sentence(error)}); "
        f"give it with {role}={remedy}."
    )


def first_sentence(error: Exception) -> str:
    return re.split(r"\.\s|\n", str(error).strip())[0].rstrip(".")[:300]


def vision_tower(model: nn.Module) -> nn.Module:
    """The part of a text-and-picture model that reads pictures; other models as they are."""
    return model if model.main_input_name == "pixel_values" else getattr(model, "vision_model", model)


def describe_classifier(classifier: Classifier, hub: dict) -> dict:
    """What an explainer's config says of its classifier."""
    dtype, own = classifier.dtype, fingerprint(classifier.model)
    name, revision = classifier.name_or_path, classifier.revision
    if name and not classifier.loaded:
        load = lambda: Classifier.from_pretrained(name, classifier.image_processor, dtype=dtype, **hub)  # noqa: E731
        there = same_weights(load, lambda loaded: loaded.model, own, name)
        name, revision = (there.name_or_path, there.revision) if there else (None, None)
    return {
        "classifier_name_or_path": name,
        "classifier_revision": revision,
        "classifier_fingerprint": own,
        "classifier_dtype": str(dtype).removeprefix("torch."),
    }


def same_weights(load, model_of, own: dict, name: str):
    """What `load` finds under a model object's name, if it still has the object's weights; says so if not.

    The object may have been trained since, or be of another commit. A reference to other weights could never be loaded.
    """
    try:
        there = load()
        if fingerprint(model_of(there)) == own:
            return there
        why = "are not the ones of"
    except Exception as error:
        logger.info(f"{name} could not be loaded: {error}")
        why = "could not be compared with"
    logger.warning(f"the weights of this model {why} {name!r}, so they are saved with the explainer.")
    return None


def load_backbone_source(backbone, hub: dict, space: PixelSpace | None) -> tuple[nn.Module, dict]:
    """The model of what a user gives as `backbone=`, and what an explainer's config says of it."""
    hub, revision, name = elsewhere(hub, None), None, None
    if isinstance(backbone, (str, os.PathLike)):
        if scheme_of(backbone):
            raise ExplainerError(
                f"{backbone} is a name for classifiers only; give backbone= a Hub id, folder or model."
            )
        name, hub = os.fspath(backbone), pin(backbone, hub)
        model = vision_tower(AutoModel.from_pretrained(name, **hub))
        image_processor, revision = load_image_processor(name, **hub), hub.get("revision")
    else:
        model, image_processor = backbone if isinstance(backbone, tuple) else (backbone, None)
        model, name = vision_tower(model), getattr(model, "name_or_path", None) or None
        if image_processor is None and name:
            image_processor = load_image_processor(name)
    if image_processor is None or space is None:
        raise ExplainerError(
            f"{type(model).__name__} reads pictures in a pixel space of its own, so the image processors of classifier "
            "and backbone are both needed; give image_processor= and backbone=(model, image_processor)."
        )
    own = fingerprint(model)
    if name and not isinstance(backbone, (str, os.PathLike)):
        hub = pin(name, hub) if not is_local(name) else hub
        load = lambda: vision_tower(AutoModel.from_pretrained(name, dtype=model.dtype, **hub))  # noqa: E731
        found = same_weights(load, lambda loaded: loaded, own, name)
        name, revision = (name, hub.get("revision")) if found else (None, None)
    return model, {
        "backbone_name_or_path": os.path.abspath(name) if name and os.path.isdir(name) else name,
        "backbone_revision": getattr(revision, "resolved", None) or revision,
        "backbone_fingerprint": own,
        "backbone_dtype": str(model.dtype).removeprefix("torch."),
        "backbone_pixel_space": PixelSpace.from_image_processor(image_processor).to_dict(),
    }
