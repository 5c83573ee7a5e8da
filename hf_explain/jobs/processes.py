"""What one process must know of the others, and of the person who wants it to stop."""

from __future__ import annotations

import importlib.util
import signal
import sys
import threading

import torch
from accelerate import Accelerator, PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from accelerate.utils import broadcast, gather_object

from ..modeling.errors import ExplainerError
from .progress import silent


class Processes:
    """The processes of a run: who this one is, and the few things they tell each other."""

    def __init__(self, report_to=("none",), output_dir=None):
        self.accelerator = Accelerator(log_with=trackers(report_to, output_dir) or None, project_dir=output_dir)
        self.device = self.accelerator.device
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.is_main = self.accelerator.is_main_process
        if not self.is_main:
            silent()

    def gather_lists(self, values: list) -> list:
        """Everybody's values, one list behind the other, in the order of the processes."""
        return gather_object(values) if self.world > 1 else values

    @torch.no_grad()
    def sum_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Replaces the gradients by their sums over the processes, in one message."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.world > 1 and gradients:
            in_one_message(gradients, lambda together: self.accelerator.reduce(together, "sum"))

    @torch.no_grad()
    def share_weights(self, parameters: list[torch.nn.Parameter]) -> None:
        """The first process' weights for all."""
        if self.world > 1:
            in_one_message(parameters, broadcast)

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()


def in_one_message(tensors, send) -> None:
    """Replaces the values of `tensors` by what `send` makes of them all, flat."""
    together, at = send(torch.cat([t.flatten() for t in tensors])), 0
    for t in tensors:
        t.copy_(together[at : at + t.numel()].view_as(t))
        at += t.numel()


def print_once(text, file=None) -> None:
    """In the first process only."""
    if PartialState().is_main_process:
        print(text, file=file or sys.stdout)


def leave(code: int) -> int:
    """`code`, after taking leave of the other processes, who would warn otherwise."""
    if PartialState().use_distributed:
        PartialState().destroy_process_group()
    return code


def trackers(report_to, output_dir) -> list[str]:
    """The trackers meant, all of them installed."""
    if "all" in report_to:
        found = [name for name in LOGGER_TYPE_TO_CLASS if installed(name)]
        return [name for name in found if output_dir is not None or name != "tensorboard"]
    names = [name for name in report_to if name != "none"]
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(["none", "all", *LOGGER_TYPE_TO_CLASS])
            raise ExplainerError(f"unknown tracker {name!r} in report_to; choose from {known}.")
        if not installed(name):
            raise ExplainerError(
                f"report_to names {name}, which is not installed; pip install {name}, or leave it out."
            )
        if name == "tensorboard" and output_dir is None:
            raise ExplainerError("report_to names tensorboard, which writes into output_dir; give one.")
    return names


def installed(name: str) -> bool:
    modules = {"tensorboard": ("tensorboard", "tensorboardX")}.get(name, (name,))
    return any(importlib.util.find_spec(module) is not None for module in modules)


class StopSignal:
    """`signal`: SIGTERM or SIGINT if it arrived inside the `with` block, else 0; a second SIGINT interrupts at once."""

    def __enter__(self) -> StopSignal:
        self.signal, self.before = 0, {}
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self.before = {s: signal.signal(s, self.arrived) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def arrived(self, number, frame) -> None:
        self.signal = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *exc) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
