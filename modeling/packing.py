"""How many pictures at once a model is fastest with: measured once, in a second or two, and remembered on this machine.

More is not faster everywhere: where the maps between layers no longer fit a processor's cache, memory is what limits.
Only the rounding of results depends on it.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers.utils import logging
from transformers.utils.hub import constants

from .model_call import call, uncounted
from .preparing import prepared, state_of

logger = logging.get_logger(__name__)

SIZES = (8, 16, 32, 64, 128, 256)
LIGHT = 0.04  # seconds; where the first size takes less, it does not matter
ENOUGH = 2.0  # seconds to spend on finding out
GAIN = 0.95  # of the time per picture: what a larger batch has to reach, to be worth its memory
FOLDER = Path(constants.HF_HOME) / "hf_explain" / "batches"
KNOWN: dict[str, int | None] = {}
DESCRIBED: WeakKeyDictionary[nn.Module, tuple[str, int, str]] = WeakKeyDictionary()


def packs(model: nn.Module, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """`pixel_values` in parts of the size that `model` is fastest with; whole where somebody needs them together.

    That is where they have a gradient, which has to hold all of it anyway, and where somebody watches the model.
    """
    whole = (pixel_values,)
    if len(pixel_values) < 2 * SIZES[0] or (torch.is_grad_enabled() and pixel_values.requires_grad):
        return whole
    size = fastest_batch(model, pixel_values)
    return whole if size is None else pixel_values.split(size)


def fastest_batch(model: nn.Module, pixel_values: torch.Tensor, gradient: bool = False) -> int | None:
    """Pictures per forward, or per forward and backward, to the least time per picture; None where all are alike.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> fastest_batch(random_classifier().model, torch.rand(1, 3, 32, 32)) in (None, *SIZES)
    True
    """
    if state_of(model) is None or prepared(model, pixel_values)[0]._compiled_call_impl is not None:
        return None  # somebody watches it, or every size would be compiled
    with torch.inference_mode(False), torch.no_grad():
        key = key_of(model, pixel_values, gradient)
        if key not in KNOWN:
            found = recall(key)
            KNOWN[key] = remember(key, measure(model, pixel_values, gradient)) if found == "" else read(found)
        return KNOWN[key]


def measure(model: nn.Module, pixel_values: torch.Tensor, gradient: bool) -> int | None:
    run(model, pixel_values, 1, gradient)  # memory, kernels
    expected = SIZES[0] * run(model, pixel_values, 1, gradient)
    best, least, spent = SIZES[0], float("inf"), 0.0
    for size in SIZES:
        if spent + expected > ENOUGH:
            break
        try:
            seconds = run(model, pixel_values, size, gradient)
            if seconds < ENOUGH / 10:
                seconds = min(seconds, run(model, pixel_values, size, gradient))
        except RuntimeError as error:  # of memory
            logger.info(f"{size} pictures at once are too many: {error}")
            break
        if size == SIZES[0] and seconds < LIGHT:
            return None
        if seconds / size < GAIN * least:
            best, least = size, seconds / size
        spent, expected = spent + seconds, 2 * seconds
    return best


def run(model: nn.Module, pixel_values: torch.Tensor, size: int, gradient: bool) -> float:
    x = pixel_values[:1].detach().expand(size, -1, -1, -1).clone()
    began = time.perf_counter()
    with torch.set_grad_enabled(gradient), uncounted():
        logits = call(model, x.requires_grad_(gradient)).logits
        if gradient:
            torch.autograd.grad(logits.sum(), x)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - began


# ---- remembering ----


def key_of(model: nn.Module, pixel_values: torch.Tensor, gradient: bool) -> str:
    """Of everything that the time depends on."""
    device = pixel_values.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {torch.get_num_threads()}"
    lower = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
    if model not in DESCRIBED:  # once, as it is asked at every call
        config = getattr(model, "config", None)
        count = sum(p.numel() for p in model.parameters())
        DESCRIBED[model] = (type(model).__name__, count, config.to_json_string() if config is not None else "")
    dtype = next(model.parameters()).dtype
    parts = (torch.__version__, name, *DESCRIBED[model], dtype, tuple(pixel_values.shape[1:]), gradient, lower)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def recall(key: str) -> str:
    try:
        return (FOLDER / key).read_text("utf-8")
    except OSError:
        return ""


def read(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def remember(key: str, size: int | None) -> int | None:
    """Writes it down, and returns what stands there: who was first is right, so that all processes do the same."""
    new = FOLDER / f"{key}.{os.getpid()}"
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        new.write_text(str(size), "utf-8")
        try:
            os.link(new, FOLDER / key)
        except FileExistsError:
            pass
        finally:
            new.unlink()
    except OSError as error:  # a home that cannot be written, or a file system without links
        logger.info(f"the fastest batch is not remembered: {error}")
        return size
    return read(recall(key))
