"""Softened backward rules: the forward pass stays what it is, only what flows back through a non-linearity changes.

A network is read as input-conditioned affine: every non-linearity is a coefficient times its input. Backwards the
coefficients are softened and count as constants (Semantic Pullbacks, arXiv 2507.22832). One torch function mode sees
every call of one thread; no module is touched, so nothing has to be restored.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch.overrides import TorchFunctionMode

from ..modeling.errors import ExplainerError
from .soft_rules import RULES, UNCOVERED

NORMS, GATES = ("reference", "adjoint"), ("gradient", "constant")


@dataclass(frozen=True)
class Rules:
    """How what flows back is softened. A temperature near 0 is the hard rule.

    Args:
        relu, gelu, silu, max_pool, attention: temperatures; ReLU6 has that of ReLU, hard-swish that of SiLU.
        norm: "reference" treats mean and variance of a normalization as constants, "adjoint" only its variance, which
            is the exact adjoint of the affine map.
        gates: what multiplies a branch by another one (squeeze-and-excitation, SwiGLU) keeps its "gradient", or is a
            "constant" factor: a sigmoid, SiLU, what was pooled, a divisor. Of two that are alike, each is by half.
    """

    relu: float = 0.6
    gelu: float = 1.0
    silu: float = 1.6
    max_pool: float = 0.3
    attention: float = 1.0
    norm: str = "reference"
    gates: str = "gradient"

    def __post_init__(self):
        for name in ("relu", "gelu", "silu", "max_pool", "attention"):
            if not getattr(self, name) > 0:
                raise ExplainerError(f"temperature {name}={getattr(self, name)}; give a positive number.")
        for name, known in (("norm", NORMS), ("gates", GATES)):
            if getattr(self, name) not in known:
                raise ExplainerError(f"unknown {name}={getattr(self, name)!r}; choose from {', '.join(known)}.")


class SoftBackward(TorchFunctionMode):
    """Inside, calls of this thread are computed as always and differentiated by the rules.

    Args:
        rules: temperatures and choices.

    `counts` says how often each rule was used; `uncovered` names the non-linearities without a rule through which a
    gradient was taken.
    """

    def __init__(self, rules: Rules | None = None):
        super().__init__()
        self.rules = rules or Rules()
        self.counts: Counter[str] = Counter()
        self.uncovered: Counter[str] = Counter()

    def kept(self, name: str, value):
        """`value` with its gradient; once one flows back through it, `name` counts as uncovered."""
        found = value[0] if isinstance(value, tuple) else value
        if found.requires_grad:
            found.register_hook(lambda _: self.uncovered.update([name]))
        return value

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        rule, name = RULES.get(function), UNCOVERED.get(function)
        if (rule is None and name is None) or not torch.is_grad_enabled() or not differentiated(args, kwargs):
            return function(*args, **kwargs)
        return rule(self, function, args, kwargs) if rule else self.kept(name, function(*args, **kwargs))


def differentiated(args, kwargs) -> bool:
    return any(isinstance(value, torch.Tensor) and value.requires_grad for value in (*args, *kwargs.values()))
