"""One call of any Hugging Face vision model, with pictures of any size it allows; it leaves no trace on the model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils.output_capturing import maybe_install_capturing_hooks

from .errors import ExplainerError
from .preparing import prepared

# Families whose position embedding is fixed unless this flag is passed (the others resize it by themselves or cannot).
INTERPOLATING = {"vit", "deit", "vit_msn", "ijepa", "clip", "clip_vision_model", "siglip", "siglip_vision_model"}
INTERPOLATING |= {"metaclip_2", "metaclip_2_vision_model"}
ONE_AT_A_TIME = threading.RLock()  # threads that call a model which a call alters
COPY_OF: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()  # copies whose calls count as the other's
CAPTURING: WeakSet[nn.Module] = WeakSet()  # models that have transformers' hooks for hidden states
WATCHED: ContextVar[tuple[Counts, ...]] = ContextVar("watched", default=())


# ---- calling the model ----


def configured_size(config) -> tuple[int, int] | None:
    size = getattr(getattr(config, "vision_config", config), "image_size", None)
    if isinstance(size, int):
        return size, size
    return tuple(size) if isinstance(size, (list, tuple)) and len(size) == 2 else None


@contextmanager
def unchanged(model: nn.Module):
    """`model` in eval mode inside, exactly as it was after; one thread at a time where that takes changing it.

    Swin shrinks `window_size` and `shift_size` of a layer, for good, when a picture is smaller than its window: a call
    with one picture size would change the logits of every later call with another.
    """
    windowed = [m for m in model.modules() if hasattr(m, "set_shift_and_window_size")]
    alters = windowed or any(m.training for m in model.modules())
    with ONE_AT_A_TIME if alters and not torch.compiler.is_compiling() else nullcontext():
        # A checkpointed layer recomputes only while its own flag says training; its children decide about dropout.
        training = [m for m in model.modules() if m.training and not getattr(m, "gradient_checkpointing", False)]
        windows = [(m, m.window_size, m.shift_size) for m in windowed]
        for module in training:
            module.training = False
        try:
            yield
        finally:
            for module in training:
                module.training = True
            for module, window_size, shift_size in windows:
                module.window_size, module.shift_size = window_size, shift_size


def call(model: PreTrainedModel, pixel_values: torch.Tensor, **kwargs):
    """The model's output for pictures of any size it allows, leaving no trace on it."""
    config = model.config
    size = tuple(pixel_values.shape[-2:])
    if config.model_type in INTERPOLATING and configured_size(config) != size:
        kwargs["interpolate_pos_encoding"] = True
    if not torch.compiler.is_compiling():
        for seen in WATCHED.get():
            seen.see(model, len(pixel_values))
    fast, channels_last = prepared(model, pixel_values)
    if fast is not model and kwargs.get("output_hidden_states") and model not in CAPTURING:
        # As a call of the model itself would, which torch.compile cannot; a second time would double them.
        if not any(getattr(m, "_output_capturing_hooks_installed", False) for m in model.modules()):
            maybe_install_capturing_hooks(model)
        CAPTURING.add(model)
    if channels_last:
        pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
    with unchanged(fast):
        try:
            return fast(pixel_values=pixel_values, return_dict=True, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except (ValueError, RuntimeError, AssertionError) as error:
            fixed = configured_size(config)
            if fixed == size or (fixed is None and not isinstance(error, AssertionError)):  # timm asserts its size
                raise
            made_for = f"{fixed[0]} x {fixed[1]}" if fixed else "another size"
            raise ExplainerError(
                f"{type(model).__name__} refused pictures of {size[0]} x {size[1]}, it is configured for {made_for}; "
                f"resize the pictures to that ({(str(error).strip() or type(error).__name__).splitlines()[0]})."
            ) from error


@contextmanager
def counted(*models: nn.Module) -> Iterator[list[int]]:
    """How many pictures these models see inside, one entry per forward; of this thread's calls, by `call`.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> classifier = random_classifier()
    >>> with counted(classifier.model) as seen:
    ...     _ = classifier(torch.rand(2, 3, 32, 32))
    >>> seen
    [2]
    """
    seen = Counts(models)
    token = WATCHED.set((*WATCHED.get(), seen))
    try:
        yield seen
    finally:
        WATCHED.reset(token)


@contextmanager
def uncounted() -> Iterator[None]:
    token = WATCHED.set(())
    try:
        yield
    finally:
        WATCHED.reset(token)


class Counts(list):
    """Pictures per forward of some models."""

    def __init__(self, models):
        super().__init__()
        self.models = models

    def see(self, model: nn.Module, pictures: int) -> None:
        model = COPY_OF.get(model, model)
        if any(model is one for one in self.models):
            self.append(pictures)


def check_pictures(pixel_values) -> None:
    """Refuses what no image processor returns."""
    shape = tuple(getattr(pixel_values, "shape", ()))
    if not torch.compiler.is_compiling() and (
        not isinstance(pixel_values, torch.Tensor) or shape[1:2] != (3,) or len(shape) != 4
    ):
        raise ExplainerError(
            f"pixel_values are a {type(pixel_values).__name__} of shape {shape}, but a tensor (batch, 3, height, "
            "width) is needed; give what the classifier's image processor returns."
        )
