"""How a checkpoint names the frozen models it needs, finds them again, and makes sure they are the same."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re

import torch
from torch import nn
from transformers import AutoModel
from transformers.utils.hub import cached_file, resolve_revision

from .classifier import HUB_ARGUMENTS, Classifier, load_image_processor
from .perturbation import ExplainerError

FLOAT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
REPO_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def fingerprint(model: nn.Module) -> dict[str, str]:
    """Who a model is: a hash of its weights for each dtype it may be loaded in.

    Names of weights are left out, since transformers renames them between releases; the tensors' own hashes are sorted.
    """
    tensors = [t.detach().cpu() for t in model.state_dict().values() if t.is_floating_point()]
    native = next((t.dtype for t in tensors), torch.float32)

    def digest(tensor, dtype):
        data = tensor.to(dtype).contiguous().view(torch.uint8 if tensor.ndim else tensor.dtype)
        shape = repr(tuple(tensor.shape)).encode()
        return hashlib.sha256(shape + data.numpy().tobytes()).digest()

    def together(dtype):
        return hashlib.sha256(b"".join(sorted(digest(t, dtype) for t in tensors))).hexdigest()[:32]

    lower = FLOAT_DTYPES if native == torch.float32 else (native,)
    return {str(dtype).removeprefix("torch."): together(dtype) for dtype in lower}


def check_fingerprint(model: nn.Module, expected: dict[str, str] | None, role: str, name: str, revision=None) -> None:
    """Raises unless `model` has the weights the explainer was made for, in whatever dtype it is loaded."""
    if not expected:
        return
    actual = fingerprint(model)
    known = [dtype for dtype in actual if dtype in expected]
    if not known or any(actual[dtype] != expected[dtype] for dtype in known):
        at = f" at revision {revision[:12]}" if revision else ""
        was, now = next(iter(expected.values())), next(iter(actual.values()))
        raise ExplainerError(
            f"{role} {name}{at} has the fingerprint {now[:12]}, but this explainer was made for {was[:12]}: the "
            f"weights differ; give the right one with {role}=, or train an explainer for this one."
        )


def check_reference(name: str, from_hub: bool) -> None:
    """Refuses a reference that could reach outside: `..` anywhere, or a path in a repo of the Hub."""
    if ".." in name.replace("\\", "/").split("/"):
        raise ExplainerError(
            f"this explainer refers to the classifier {name!r}, which contains '..'; give the model with classifier=."
        )
    if from_hub and not REPO_ID.fullmatch(name):
        raise ExplainerError(
            f"this explainer comes from the Hub but refers to the classifier {name!r}, a path on its author's machine; "
            "give the model with classifier=, or ask the author to push with include_classifier=True."
        )


def pin(name, hub: dict) -> dict:
    """`hub` with the revision resolved to one commit, so that everything is read from one state of the repository."""
    if os.path.isdir(name):
        return hub
    asked = {k: hub[k] for k in ("token", "local_files_only", "cache_dir") if k in hub}
    return hub | {"revision": resolve_revision(str(name), hub.get("revision"), **asked)}


def require_safetensors(name, subfolder: str, hub: dict) -> None:
    """Refuses a head saved as a pickle, which runs code when it is read."""

    def has(filename):
        quiet = {
            "_raise_exceptions_for_missing_entries": False,
            "_raise_exceptions_for_gated_repo": False,
            "_raise_exceptions_for_connection_errors": False,
        }
        return cached_file(name, filename, subfolder=subfolder, **hub, **quiet) is not None

    if has("model.safetensors") or has("model.safetensors.index.json") or not has("pytorch_model.bin"):
        return
    raise ExplainerError(
        f"{name} holds its weights as pytorch_model.bin, a pickle, but explainers are only read from model.safetensors; "
        "ask its author to save it again with save_pretrained(...)."
    )


def load_classifier(config, name, subfolder: str, hub: dict, image_processor, loading: dict) -> Classifier:
    """The classifier an explainer's config refers to, verified."""
    if config.classifier_included:
        where, options = str(name), hub | {"subfolder": posixpath.join(subfolder, "classifier")}
    else:
        where, options = config.classifier_name_or_path, elsewhere(hub, config.classifier_revision)
        check_reference(where, from_hub=not os.path.isdir(name))
    try:
        classifier = Classifier.from_pretrained(where, image_processor, **options, **loading)
    except (OSError, ValueError) as error:
        raise not_loadable("classifier", where, options, error) from error
    if config.classifier_included:
        classifier.name_or_path, classifier.revision = config.classifier_name_or_path, config.classifier_revision
    check_fingerprint(classifier.model, config.classifier_fingerprint, "classifier", where, options.get("revision"))
    return classifier


def load_backbone(config, name, subfolder: str, hub: dict, loading: dict) -> nn.Module:
    """The second model an explainer's config refers to, verified."""
    if config.classifier_included:
        where, options = str(name), hub | {"subfolder": posixpath.join(subfolder, "backbone")}
    else:
        where, options = config.backbone_name_or_path, elsewhere(hub, config.backbone_revision)
        check_reference(where, from_hub=not os.path.isdir(name))
    try:
        backbone = vision_tower(AutoModel.from_pretrained(where, **options, **loading))
    except (OSError, ValueError) as error:
        raise not_loadable("backbone", where, options, error) from error
    check_fingerprint(backbone, config.backbone_fingerprint, "backbone", where, options.get("revision"))
    return backbone


def elsewhere(hub: dict, revision: str | None) -> dict:
    """The arguments for another repository: its own revision."""
    hub = {k: v for k, v in hub.items() if k != "revision"}
    return hub if revision is None else hub | {"revision": revision}


def not_loadable(role: str, where: str, options: dict, error: Exception) -> ExplainerError:
    revision = options.get("revision")
    at = f" at revision {revision}" if revision else ""
    reason = " ".join(str(error).split())[:300]
    return ExplainerError(
        f"the {role} {where}{at} of this explainer could not be loaded; give it with {role}=, or make it reachable "
        f"(token= for a private repository). Reason: {reason}"
    )


def vision_tower(model: nn.Module) -> nn.Module:
    """The part of a text-and-picture model that reads pictures; other models as they are."""
    return model if model.main_input_name == "pixel_values" else getattr(model, "vision_model", model)


def load_backbone_source(backbone, hub: dict):
    """(model, image processor, name, revision) of what a user gives as `backbone=`."""
    if isinstance(backbone, tuple):
        model, image_processor = backbone
    elif isinstance(backbone, (str, os.PathLike)):
        hub = pin(backbone, elsewhere(hub, None))
        name = os.path.abspath(backbone) if os.path.isdir(backbone) else str(backbone)
        model = vision_tower(AutoModel.from_pretrained(name, **hub))
        revision = hub.get("revision")
        return model, load_image_processor(name, **hub), name, getattr(revision, "resolved", None) or revision
    else:
        name = getattr(backbone, "name_or_path", None)
        model, image_processor = vision_tower(backbone), load_image_processor(name) if name else None
    return model, image_processor, getattr(model, "name_or_path", None) or None, None
