"""A frozen model, prepared once for its work: the same function, computed faster.

Batch normalizations are folded into the convolutions before them, gates that are always open are taken out, on
processors a convolution and its ReLU are one, and the weights of convolutional models lie channels last. It is done on
a private copy that shares every tensor it does not change, and compared with the model before it is used. The model
itself stays as it is to the last bit; where its weights change, it is prepared anew.
"""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval, fuse_linear_bn_eval
from transformers.utils import logging

from .fused import FusedConvolution

logger = logging.get_logger(__name__)

CONVOLUTIONS = 3  # a model with fewer has them for its patches only
FOLDED: tuple[tuple[type, type, Callable], ...] = (
    (nn.Conv2d, nn.BatchNorm2d, fuse_conv_bn_eval),
    (nn.Linear, nn.BatchNorm1d, fuse_linear_bn_eval),
)
TOLERANCE = {"cpu": 1e-4}  # of the largest value; others may compute convolutions in fewer bits
KNOWN: WeakKeyDictionary[nn.Module, tuple[list, nn.Module | None, bool]] = WeakKeyDictionary()
ONE_AT_A_TIME = threading.RLock()


def prepared(model: nn.Module, pixel_values: torch.Tensor) -> tuple[nn.Module, bool]:
    """(what to call instead of `model`, whether its pictures should lie channels last).

    That is the model itself where there is nothing to prepare, or somebody watches it: hooks, compilation, weights that
    are trained or spread over devices.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> model = random_classifier("resnet").model.requires_grad_(False).eval()
    >>> fast, channels_last = prepared(model, torch.rand(1, 3, 32, 32))
    >>> sum(isinstance(m, torch.nn.BatchNorm2d) for m in fast.modules()), channels_last
    (0, True)
    """
    if torch.compiler.is_compiling():
        return model, False
    with torch._C.DisableTorchFunction():  # whoever looks at functions, rules of a backward pass for one, is not meant
        state = state_of(model)
        if state is None:
            return model, False
        known = KNOWN.get(model)
        if known is None or known[0] != state:
            with ONE_AT_A_TIME:
                known = KNOWN.get(model)
                if known is None or known[0] != state:
                    known = KNOWN[model] = (state, *prepare(model, pixel_values[:1].detach()))
        if known[1] is None or not finite(pixel_values):
            return model, False
    return known[1], known[2]


def finite(pixel_values: torch.Tensor) -> bool:
    """Whether what is not a number could get lost: on processors a joined ReLU makes 0 of it."""
    return pixel_values.device.type != "cpu" or bool(pixel_values.detach().sum().isfinite())


def state_of(model: nn.Module) -> list[tuple[int, int]] | None:
    """Changes with the weights of a model, and where they are; None where the model itself has to be called.

    In one walk of its own, since it is asked at every call.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or getattr(model, "is_quantized", False):
        return None
    state, rest, learns = [], [model], torch.is_grad_enabled()
    while rest:
        module = rest.pop()
        own = module.__dict__
        if own["training"] or any(own.get(name) is not None for name in ALTERED):
            return None
        for hooks in HOOKS:
            if own[hooks] and not all(is_own(hook) for hook in own[hooks].values()):
                return None
        for parameter in own["_parameters"].values():
            if parameter is not None:
                if learns and parameter.requires_grad:
                    return None
                state.append(identity(parameter))
        state += [identity(buffer) for buffer in own["_buffers"].values() if buffer is not None]
        rest += [child for child in own["_modules"].values() if child is not None]
    return state


ALTERED = ("forward", "_hf_hook", "_compiled_call_impl")  # of a module, by others
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_own(hook) -> bool:
    """Whether transformers has put a hook there, to collect hidden states; the copy has it too."""
    return getattr(hook, "__module__", "") == "transformers.utils.output_capturing"


def identity(tensor: torch.Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version


# ---- preparing ----


@torch.inference_mode(False)
@torch.no_grad()
def prepare(model: nn.Module, one: torch.Tensor) -> tuple[nn.Module | None, bool]:
    """(the prepared copy, channels last?); (None, False) where there is none, or it would be another function."""
    modules = [*model.modules()]
    convolutional = sum(isinstance(module, nn.Conv2d) for module in modules) >= CONVOLUTIONS
    normalized = any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in modules)
    if not (convolutional or normalized) or any(hasattr(m, "set_shift_and_window_size") for m in modules):
        return None, False  # the latter, Swin, are altered by being called, and have nothing to prepare
    noise = torch.rand(one.shape, generator=torch.Generator().manual_seed(0)).to(one)
    try:
        fast = copied(model)
        before, called = trace(fast, noise)
    except Exception as error:  # of code that cannot be copied, or takes other pictures
        logger.info(f"{type(model).__name__} is used as it is: {error}")
        return None, False
    tensors = [t for t in model.state_dict().values() if t.is_floating_point()]
    if all(t.dtype in (torch.float32, torch.float64) for t in tensors):  # fewer bits would be rounded again
        order = Order(fast, called)
        fold(order)
        if one.device.type == "cpu" and torch.backends.mkldnn.is_available():
            join(order)
        open_gates(fast)
    if convolutional:
        fast.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        noise = noise.contiguous(memory_format=torch.channels_last)
    try:
        after = outputs(fast.requires_grad_(False), noise)
    except Exception as error:  # of code that asks its layers for more than what they compute
        logger.info(f"{type(model).__name__} is used as it is, since prepared it fails: {error}")
        return None, False
    if not agree(before, after):
        logger.warning(f"{type(model).__name__} computes something else when it is prepared, so it is used as it is.")
        return None, False
    return fast, convolutional


def copied(model: nn.Module) -> nn.Module:
    """A copy with parameters and buffers of its own that share the model's memory."""
    memo: dict = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
    memo |= {id(b): b.detach() for b in model.buffers()}
    return copy.deepcopy(model, memo)


def trace(model: nn.Module, pixel_values: torch.Tensor) -> tuple[list[torch.Tensor], list[tuple]]:
    """(outputs, calls), the latter (module, inputs, output) of every module that gives one tensor."""
    called, handles = [], []

    def look(module, inputs, output):
        if isinstance(output, torch.Tensor):
            called.append((module, [x for x in inputs if isinstance(x, torch.Tensor)], output))

    try:
        handles += [module.register_forward_hook(look) for module in model.modules()]
        return outputs(model, pixel_values), called
    finally:
        for handle in handles:
            handle.remove()


def outputs(model: nn.Module, pixel_values: torch.Tensor) -> list[torch.Tensor]:
    """Logits and hidden states, whatever they are called."""
    found = model(pixel_values=pixel_values, output_hidden_states=True, return_dict=True)
    several = [value if isinstance(value, tuple | list) else (value,) for value in found.values()]
    return [tensor for values in several for tensor in values if isinstance(tensor, torch.Tensor)]


class Order:
    """Which layer of a model reads what another gives, as it was seen in one call."""

    def __init__(self, model: nn.Module, called: list):
        self.model = model
        self.leaves = [call for call in called if not any(True for _ in call[0].children())]
        times = Counter(id(module) for module, _, _ in self.leaves)
        paths: dict[int, list[str]] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            paths.setdefault(id(module), []).append(path)
        self.once = {key: found[0] for key, found in paths.items() if len(found) == times[key] == 1}
        self.readers: dict[int, list[nn.Module]] = {}
        self.given = {id(module): output for module, _, output in self.leaves}
        for module, inputs, _ in self.leaves:
            for memory in {x.untyped_storage().data_ptr() for x in inputs}:
                self.readers.setdefault(memory, []).append(module)

    def follows(self, layer: nn.Module) -> nn.Module | None:
        """The only reader of what a layer gives, where both are called once."""
        found = self.readers.get(self.given[id(layer)].untyped_storage().data_ptr(), [])
        return found[0] if len(found) == 1 and {id(layer), id(found[0])} <= self.once.keys() else None

    def now(self, layer: nn.Module) -> nn.Module:
        """What stands in the place of a layer that is called once."""
        return self.model.get_submodule(self.once[id(layer)])

    def put(self, layer: nn.Module, module: nn.Module) -> None:
        replace(self.model, self.once[id(layer)], module)


def fold(order: Order) -> None:
    """Folds each batch normalization into the layer before it, where nobody else reads what that gives."""
    for layer, _, _ in order.leaves:
        norm = order.follows(layer)
        if norm is None:
            continue
        for kind, norm_kind, fuse in FOLDED:
            if computes(layer, kind) and computes(norm, norm_kind) and getattr(norm, "running_mean", None) is not None:
                order.put(layer, fuse(layer, norm))
                order.put(norm, nn.Identity())


def join(order: Order) -> None:
    """Joins each convolution with the ReLU or ReLU6 that alone reads it, or its normalization, which is folded."""
    for layer, _, _ in order.leaves:
        then = order.follows(layer)
        if then is not None and isinstance(order.now(then), nn.Identity):
            then = order.follows(then)
        if then is None or not any(computes(then, kind) for kind in (nn.ReLU, nn.ReLU6)):
            continue
        convolution = order.now(layer)  # with the normalization in it
        if isinstance(convolution, nn.Conv2d) and computes(convolution, nn.Conv2d):
            order.put(layer, FusedConvolution(convolution, then))
            order.put(then, nn.Identity())


def computes(module: nn.Module | None, kind: type) -> bool:
    """Whether a module is of a kind whose forward it has not changed."""
    return isinstance(module, kind) and getattr(type(module), "forward", None) is getattr(kind, "forward", None)


def open_gates(model: nn.Module) -> None:
    """Takes out squeeze-and-excitation that multiplies by exactly 1, as of networks without any in such a class."""
    for path, module in [*model.named_modules()]:
        last = getattr(module, "expand", None)
        if not type(module).__name__.endswith("SqueezeExciteLayer") or not isinstance(last, nn.Conv2d):
            continue
        if last.bias is not None and not last.weight.any() and bool((last.bias.sigmoid() == 1).all()):
            replace(model, path, nn.Identity())


def replace(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module.eval())


def agree(before: list[torch.Tensor], after: list[torch.Tensor]) -> bool:
    """Whether all outputs are the same, but for rounding."""
    tolerance = TOLERANCE.get(before[0].device.type, 1e-2)
    return len(before) == len(after) and all(
        bool((a - b).abs().max() <= tolerance * a.abs().max().clamp(min=1e-6))
        for a, b in zip(before, after, strict=True)
    )
