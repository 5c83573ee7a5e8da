"""How precisely something is computed, whatever the device has and users have allowed. Tensors only."""

from __future__ import annotations

import contextlib

import torch

WITHOUT_FLOAT64 = {"mps"}  # types of devices


def widest_float(device: torch.device) -> torch.dtype:
    """float64, or float32 on devices that have no float64.

    >>> import torch
    >>> widest_float(torch.device("cpu")), widest_float(torch.device("mps"))
    (torch.float64, torch.float32)
    """
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


@contextlib.contextmanager
def full_precision():
    """No TF32 or bfloat16 inside float32 products, which users may have allowed; 300 iterations would amplify it."""
    modern = hasattr(torch.backends.cuda.matmul, "fp32_precision")  # since torch 2.9, a setting per backend
    backends = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul] if modern else []
    inherited = getattr(torch.backends, "fp32_precision", None)  # what a backend tells that has none of its own
    lowered = [
        (backend, "none" if backend.fp32_precision == inherited else backend.fp32_precision)
        for backend in backends
        if backend.fp32_precision in ("tf32", "bf16")
    ]
    before = "highest" if modern else torch.get_float32_matmul_precision()
    try:
        for backend, _ in lowered:
            backend.fp32_precision = "ieee"
        if before != "highest":
            torch.set_float32_matmul_precision("highest")
        yield
    finally:
        for backend, precision in lowered:
            backend.fp32_precision = precision
        if before != "highest":
            torch.set_float32_matmul_precision(before)
