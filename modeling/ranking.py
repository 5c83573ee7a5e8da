"""Differentiable ranking: scores in, soft permutation or nested soft masks out. Tensors only.

Both operators answer "which elements are among the first k?" for K budgets at once, with masks in [0, 1] that sum to
their budget and are nested. `gumbel_sinkhorn` relaxes the whole permutation (N x N per sample); `soft_topk` only finds
one threshold per budget (K x N), so it ranks the single pixels of a large picture. kappa = range(scores) / tau tells
how sharp either is: about chance at 1, nearly hard at 100.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch

from .errors import ExplainerError
from .precision import full_precision, widest_float
from .sinkhorn import Sinkhorn
from .topk import SoftTopK


@dataclass
class SoftPermutation:
    """What `gumbel_sinkhorn` returns.

    permutation: (B, N, N), [b, r, j] = how much element j is the r-th to go; rows sum to 1, columns nearly.
    column_error: the largest deviation of a column sum from 1; above 0.02 the iterations did not suffice.
    kappa: the largest range(scores) / tau of the batch.
    iterations: how many were run.
    """

    permutation: torch.Tensor
    column_error: float
    kappa: float
    iterations: int

    def masks(self, budgets: torch.Tensor) -> torch.Tensor:
        """Soft "among the first" masks (B, K, N) of `budgets` (K,) or (B, K), in elements; fractions interpolate.

        >>> import torch
        >>> soft = gumbel_sinkhorn(torch.rand(1, 9), 0.1, noise=0.0)
        >>> soft.masks(torch.tensor([2.0, 4.5])).sum(-1).round(decimals=3).tolist()
        [[2.0, 4.5]]
        """
        budgets = budgets.to(widest_float(budgets.device))
        rank = torch.arange(self.permutation.shape[1], device=budgets.device, dtype=budgets.dtype)
        weights = (budgets[..., None] - rank).clamp(0, 1).to(self.permutation)  # (K, N): rows that count
        with torch.autocast(weights.device.type, enabled=False):
            return torch.matmul(weights, self.permutation).clamp(0, 1)


def gumbel_sinkhorn(
    scores: torch.Tensor,
    tau: float,
    *,
    noise: float | torch.Tensor = 1.0,
    generator: torch.Generator | None = None,
    iterations: int | None = None,
    warn: bool = True,
) -> SoftPermutation:
    """The soft permutation that sorts `scores` (B, N), highest first (Mena et al., arXiv 1802.08665; AHA's form).

    Logits -(s_j - a_r)^2 with anchors a_r = 1 - (r - 1) / (N - 1), plus Gumbel noise, over tau; then Sinkhorn, elements
    before ranks, as robust as in log space. Always in float32 (float64 stays), whatever the autocast. In the limit only
    the spread of the scores matters; scores centered at 0 get there soonest.

    Args:
        noise: scale of the Gumbel noise, which is added before the division by tau; 0 for none. A tensor (B, N, N) is
            the noise itself.
        generator: of the noise; needed if it is to be drawn.
        iterations: None for the rule 30, or ceil(kappa) up to 300 where kappa is larger, sample by sample.
        warn: of a column error above 2 %; the result tells it anyway.

    >>> import torch
    >>> gumbel_sinkhorn(torch.rand(2, 16), 0.5, noise=0.0).permutation.shape
    torch.Size([2, 16, 16])
    """
    check(scores, tau)
    if not isinstance(noise, torch.Tensor) and noise and generator is None:
        raise ExplainerError("the Gumbel noise is random: give generator=torch.Generator(), seeded, or noise=0.")
    with torch.autocast(scores.device.type, enabled=False):
        scores = scores if scores.dtype == torch.float64 else scores.float()
        batch, count = scores.shape
        kappas = ((scores.detach().amax(1) - scores.detach().amin(1)) / tau).tolist()  # device sync
        rule = [30 if not kappa > 30 else min(300, math.ceil(kappa)) for kappa in kappas]
        steps = rule if iterations is None else [iterations] * batch
        gumbel = None
        if isinstance(noise, torch.Tensor):
            gumbel = noise.to(scores)
        elif noise and generator is not None:
            gumbel = draw_gumbel((batch, count, count), generator, scores).mul_(noise)
        with full_precision():
            permutation = Sinkhorn.apply(scores, gumbel, tau, steps)
        error = float((permutation.detach().sum(1) - 1).abs().max())
    if warn and error > 0.02:
        warnings.warn(
            "Sinkhorn left a column error above 2 %: scores of this spread need more iterations or a larger tau (the "
            "result tells column_error, kappa and iterations).",
            stacklevel=2,
        )
    return SoftPermutation(permutation, error, max(kappas), max(steps))


def soft_topk(scores: torch.Tensor, budgets: torch.Tensor, tau: float) -> torch.Tensor:
    """Soft "among the first k" masks (B, K, N) of `scores` (B, N): sigmoid((s_j - b_k) / tau), each summing to its k.

    `budgets` are (K,), or (B, K) for budgets of each sample's own. The threshold b_k that makes the sum exact is found
    by Newton steps inside a bracket; the gradient is the implicit one, d * (g - <g, d> / <1, d>) with
    d = m (1 - m) / tau. Time and memory O(K N).

    >>> import torch
    >>> soft_topk(torch.rand(2, 100), torch.tensor([10.0, 50.0]), 0.1).sum(-1).round(decimals=2).tolist()
    [[10.0, 50.0], [10.0, 50.0]]
    """
    check(scores, tau)
    budgets = torch.as_tensor(budgets)
    fits = budgets.ndim == 1 or (budgets.ndim == 2 and len(budgets) == len(scores))
    if not fits or bool((budgets <= 0).any()) or bool((budgets >= scores.shape[1]).any()):
        raise ExplainerError(
            f"budgets {budgets.tolist()!s:.200} of {scores.shape[1]} elements; give (K,) or (batch, K) numbers between "
            "0 and N, both excluded (there the mask is constant)."
        )
    with torch.autocast(scores.device.type, enabled=False):
        scores = scores if scores.dtype == torch.float64 else scores.float()
        return SoftTopK.apply(scores, budgets.to(widest_float(scores.device)).to(scores.device), tau)


def draw_gumbel(shape, generator: torch.Generator, like: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise, drawn in float32: low precision would truncate it.

    >>> draw_gumbel((2, 4), torch.Generator().manual_seed(0), torch.zeros(1)).shape
    torch.Size([2, 4])
    """
    uniform = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float32)
    tiny = torch.finfo(torch.float32).tiny
    return uniform.clamp_(tiny).log_().neg_().clamp_(tiny).log_().neg_().to(like)


def check(scores: torch.Tensor, tau: float) -> None:
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ExplainerError(
            f"scores have the shape {tuple(scores.shape)}; give (batch, N) with at least two elements."
        )
    if not tau > 0:
        raise ExplainerError(f"tau={tau}; give a temperature above 0.")
