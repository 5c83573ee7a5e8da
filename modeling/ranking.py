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

from .perturbation import ExplainerError


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
        """Soft "among the first" masks (B, K, N) of `budgets` (K,) or (B, K), in elements; fractions interpolate linearly.

        >>> import torch
        >>> soft = gumbel_sinkhorn(torch.rand(1, 9), 0.1, noise=0.0)
        >>> soft.masks(torch.tensor([2.0, 4.5])).sum(-1).round(decimals=3).tolist()
        [[2.0, 4.5]]
        """
        count = self.permutation.shape[1]
        rank = torch.arange(count, device=budgets.device, dtype=torch.float64)
        weights = (budgets.double()[..., None] - rank).clamp(0, 1).to(self.permutation)  # (K, N): rows that count
        with torch.autocast(weights.device.type, enabled=False):
            return torch.matmul(weights, self.permutation).clamp(0, 1)


def gumbel_sinkhorn(
    scores: torch.Tensor,
    tau: float,
    *,
    noise: float | torch.Tensor = 1.0,
    generator: torch.Generator | None = None,
    iterations: int | None = None,
) -> SoftPermutation:
    """The soft permutation that sorts `scores` (B, N), highest first (Mena et al., arXiv 1802.08665; AHA's form).

    Logits -(s_j - a_r)^2 with anchors a_r = 1 - (r - 1) / (N - 1), plus Gumbel noise, over tau; then Sinkhorn in log
    space, elements before ranks. Always in float32 (float64 stays), whatever the autocast. In the limit only the spread
    of the scores matters; scores centered at 0 get there soonest.

    Args:
        noise: scale of the Gumbel noise, which is added before the division by tau; 0 for none. A tensor (B, N, N) is
            the noise itself.
        generator: of the noise; needed if it is to be drawn.
        iterations: None for the rule 30, or ceil(kappa) up to 300 where kappa is larger, sample by sample.

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
        permutation = Sinkhorn.apply(scores, gumbel, tau, steps)
        error = float((permutation.detach().sum(1) - 1).abs().max())
    if error > 0.02:
        warnings.warn(
            "Sinkhorn left a column error above 2 %: scores of this spread need more iterations or a larger tau (the "
            "result tells column_error, kappa and iterations).",
            stacklevel=2,
        )
    return SoftPermutation(permutation, error, max(kappas), max(steps))


def check(scores: torch.Tensor, tau: float) -> None:
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ExplainerError(
            f"scores have the shape {tuple(scores.shape)}; give (batch, N) with at least two elements."
        )
    if not tau > 0:
        raise ExplainerError(f"tau={tau}; give a temperature above 0.")


def draw_gumbel(shape, generator: torch.Generator, like: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise, drawn in float32: low precision would truncate it."""
    uniform = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float32)
    tiny = torch.finfo(torch.float32).tiny
    return uniform.clamp_(tiny).log_().neg_().clamp_(tiny).log_().neg_().to(like)


class Sinkhorn(torch.autograd.Function):
    """The permutation, with the exact gradient of the unrolled iterations from 2 N numbers per iteration.

    An iteration is g = -LSE_r(L + f), f = -LSE_j(L + g), and P = exp(L + f + g). Its backward needs only L, f and g:
    the softmaxes inside are recomputed one at a time. So 5 N^2 floats are alive instead of two N^2 per iteration.
    Every sample stops after its own number of iterations, so it does not matter which others are in the batch.
    """

    @staticmethod
    def forward(ctx, scores, gumbel, tau, steps):
        (batch, count), iterations = scores.shape, max(steps)
        anchors = torch.linspace(1, 0, count, dtype=scores.dtype, device=scores.device)
        logits = anchors[None, :, None] - scores[:, None, :]  # (B, N ranks, N elements)
        logits.square_().neg_()
        if gumbel is not None:
            logits += gumbel
        logits /= tau
        f = scores.new_zeros(iterations + 1, batch, count)  # of ranks; f[0] = 0
        g = scores.new_zeros(iterations, batch, count)  # of elements
        work = torch.empty_like(logits)
        for t in range(iterations):
            g[t] = -log_sum_exp(torch.add(logits, f[t][:, :, None], out=work), 1)
            f[t + 1] = -log_sum_exp(torch.add(logits, g[t][:, None, :], out=work), 2)
        last = torch.tensor(steps, device=scores.device) - 1
        each = torch.arange(batch, device=scores.device)
        torch.add(logits, f[last + 1, each][:, :, None], out=work)
        permutation = work.add_(g[last, each][:, None, :]).exp_()
        ctx.save_for_backward(scores, logits, f, g, last)
        ctx.tau = tau
        return permutation

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        scores, logits, f, g, last = ctx.saved_tensors
        count, each = scores.shape[1], torch.arange(len(scores), device=scores.device)
        work = torch.empty_like(logits)

        def softmax(row, column):  # exp(L + row + column), in `work`
            return torch.add(logits, row[:, :, None], out=work).add_(column[:, None, :]).exp_()

        d_logits = softmax(f[last + 1, each], g[last, each]).clone().mul_(grad)
        end_f, end_g = d_logits.sum(2), d_logits.sum(1)
        d_f, d_g = torch.zeros_like(end_f), torch.zeros_like(end_g)
        for t in range(len(g) - 1, -1, -1):
            ends_here = (last == t)[:, None]
            d_f, d_g = torch.where(ends_here, end_f, d_f), torch.where(ends_here, end_g, d_g)
            step = softmax(f[t + 1], g[t]).mul_(d_f[:, :, None])  # of f[t + 1] = -LSE_j(L + g[t])
            d_logits -= step
            d_g -= step.sum(1)
            step = softmax(f[t], g[t]).mul_(d_g[:, None, :])  # of g[t] = -LSE_r(L + f[t])
            d_logits -= step
            d_f = -step.sum(2)
            d_g = torch.zeros_like(d_g)
        anchors = torch.linspace(1, 0, count, dtype=scores.dtype, device=scores.device)
        slope = torch.sub(anchors[None, :, None], scores[:, None, :], out=work)  # dL / ds = 2 (a_r - s_j) / tau
        return slope.mul_(d_logits).sum(1) * (2 / ctx.tau), None, None, None


def log_sum_exp(x: torch.Tensor, dim: int) -> torch.Tensor:
    """logsumexp that overwrites `x`."""
    top = x.amax(dim, keepdim=True)
    return x.sub_(top).exp_().sum(dim).log_().add_(top.squeeze(dim))


def soft_topk(scores: torch.Tensor, budgets: torch.Tensor, tau: float) -> torch.Tensor:
    """Soft "among the first k" masks (B, K, N) of `scores` (B, N): sigmoid((s_j - b_k) / tau), each summing to its k.

    `budgets` are (K,), or (B, K) for budgets of each sample's own. The threshold b_k that makes the sum exact is found by Newton steps inside a bracket; the gradient is the implicit
    one, d * (g - <g, d> / <1, d>) with d = m (1 - m) / tau. Time and memory O(K N).

    >>> import torch
    >>> soft_topk(torch.rand(2, 100), torch.tensor([10.0, 50.0]), 0.1).sum(-1).round(decimals=2).tolist()
    [[10.0, 50.0], [10.0, 50.0]]
    """
    check(scores, tau)
    budgets = torch.as_tensor(budgets, device=scores.device)
    fits = budgets.ndim == 1 or (budgets.ndim == 2 and len(budgets) == len(scores))
    if not fits or bool((budgets <= 0).any()) or bool((budgets >= scores.shape[1]).any()):
        raise ExplainerError(
            f"budgets {budgets.tolist()!s:.200} of {scores.shape[1]} elements; give (K,) or (batch, K) numbers between 0 "
            "and N, both excluded (there the mask is constant)."
        )
    with torch.autocast(scores.device.type, enabled=False):
        scores = scores if scores.dtype == torch.float64 else scores.float()
        return SoftTopK.apply(scores, budgets.to(torch.float64), tau)


class SoftTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores, budgets, tau):
        masks = (scores[:, None] - find_thresholds(scores, budgets, tau)[..., None].to(scores)).div_(tau).sigmoid_()
        ctx.save_for_backward(masks)
        ctx.tau = tau
        return masks

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (masks,) = ctx.saved_tensors
        density = masks * (1 - masks)
        total = density.sum(-1, keepdim=True).clamp_(min=torch.finfo(masks.dtype).tiny)
        share = (grad * density).sum(-1, keepdim=True) / total
        return (density.mul_(grad - share)).sum(1) / ctx.tau, None, None


def find_thresholds(scores: torch.Tensor, budgets: torch.Tensor, tau: float, steps: int = 60) -> torch.Tensor:
    """b (B, K), float64, with sum_j sigmoid((s_j - b) / tau) = k for budgets (K,) or (B, K)."""
    # Newton settles after a few steps at what rounding leaves: of the sum, and of the threshold itself.
    rounding = torch.finfo(scores.dtype).eps
    logit = torch.logit(budgets / scores.shape[1])  # were all scores equal, b = s - tau * logit
    low = scores.amin(1, keepdim=True).double() - tau * logit  # here the sum is at least k
    high = scores.amax(1, keepdim=True).double() - tau * logit
    # Start at the hard threshold: the k-th score.
    at = budgets.long().clamp(0, scores.shape[1] - 1).expand(len(scores), -1)  # (B, K)
    b = scores.sort(dim=1, descending=True).values.gather(1, at).double().clamp(low, high)
    for _ in range(steps):
        masks = ((scores[:, None] - b[..., None].to(scores)) / tau).sigmoid_()
        over = masks.sum(-1, dtype=torch.float64) - budgets  # falls as b grows
        slope = masks.mul_(1 - masks).sum(-1, dtype=torch.float64) / tau
        if bool((over.abs() <= rounding * (3 * budgets + slope * b.abs())).all()):  # device sync
            break
        low, high = torch.where(over > 0, b, low), torch.where(over > 0, high, b)
        newton = b + over / slope.clamp(min=1e-300)
        b = torch.where((newton > low) & (newton < high), newton, (low + high) / 2)
    return b
