"""Time as medians of alternating runs, floating-point operations, and peak memory, on any device."""

import statistics
import time
import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


def seconds(call, device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def alternate(calls, runs, device, warm_up=2):
    """name -> seconds of each run, all names in turn, so that a slow minute of the machine hits all of them."""
    for call in list(calls.values()) * warm_up:
        call()
    times = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            times[name].append(seconds(call, device))
    return times


def milliseconds(times):
    return {f"{name}_ms": round(1000 * statistics.median(values), 2) for name, values in times.items()}


class Operations(TorchDispatchMode):
    """Floating-point operations of matrix products, convolutions and attention, as torch counts them.

    torch's own FlopCounterMode follows modules with hooks that do not allow `autograd.grad`.
    """

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.count += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


class PeakStorage(TorchDispatchMode):
    """Peak bytes of the tensors that were made inside and are alive, for devices without a counter of their own."""

    def __init__(self):
        super().__init__()
        self.alive, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.add(tensor.untyped_storage())
        return result

    def add(self, storage):
        key = storage._cdata
        if key not in self.alive:
            self.alive[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.remove, key)

    def remove(self, key):
        self.now -= self.alive.pop(key, 0)


def peak_bytes(call, device):
    """How much more memory than before is in use at the worst moment of `call`."""
    if device.type != "cuda":
        with PeakStorage() as meter:
            call()
        return meter.peak
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
