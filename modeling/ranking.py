"""Differentiable ranking: scores in, soft permutation or nested soft masks out. Tensors only.

Both operators answer "which elements are among the first k?" for K budgets at once, with masks in [0, 1] that sum to
their budget and are nested. `gumbel_sinkhorn` relaxes the whole permutation (N x N per sample); `soft_topk` only finds
one threshold per budget (K x N), so it ranks the single pixels of a large picture. kappa = range(scores) / tau tells
how sharp either is: about chance at 1, nearly hard at 100.
"""

from __future__ import annotations

import contextlib
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
        """Soft "among the first" masks (B, K, N) of `budgets` (K,) or (B, K), in elements; fractions interpolate.

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
    everything else is recomputed. Every sample stops after its own number of iterations, so it does not matter which
    others are in the batch.

    N^2 exponentials per half step would take most of the time. So a block of iterations shares the kernel
    K = exp(L + f0 + g0), at the potentials where the block starts, and iterates on the scalings u = exp(f - f0) and
    v = exp(g - g0): v = 1 / (u K), u = 1 / (K v). In the backward a softmax is K with scaled rows and columns, and what
    a block adds to the gradient of L is K times a matrix of low rank. A block ends before a scaling leaves
    exp(+-REACH): there K still has every entry that matters. An iteration that leaves it at once, as the first does,
    is done in log space.
    """

    REACH = 20.0  # float32 exponents end at -87: what K lacks is at most N exp(2 REACH - 80) of a sum

    @staticmethod
    def forward(ctx, scores, gumbel, tau, steps):
        (batch, count), iterations = scores.shape, max(steps)
        # -(s - a)^2 acts as 2 (a - 1/2) s - a^2: the iterations remove what depends on an element alone. What depends
        # on a rank alone goes to f[0]. So logits stay small, which float32 needs: slopes were 20 % off at kappa 300.
        anchors = torch.linspace(1, 0, count, dtype=scores.dtype, device=scores.device)
        middle = scores.mean(1, keepdim=True)
        logits = (2 * anchors - 1)[None, :, None] * (scores - middle)[:, None, :]  # (B, N ranks, N elements)
        if gumbel is not None:
            logits += gumbel
        logits /= tau
        f = scores.new_zeros(iterations + 1, batch, count)  # of ranks
        f[0] = ((2 * anchors - 1) * middle - anchors.square()) / tau
        g = scores.new_zeros(iterations, batch, count)  # of elements
        work = torch.empty_like(logits)
        t, size = 0, 8
        while t < iterations:
            near = 0
            if t:
                row, column, end = f[t], g[t - 1], min(t + size, iterations)
                kernel = exponential(logits, row, column, work)
                u = torch.ones_like(row)[:, None]
                for s in range(t, end):  # f and g hold the scalings for now
                    v = torch.bmm(u, kernel, out=g[s][:, None]).reciprocal_()
                    u = torch.bmm(v, kernel.mT, out=f[s + 1][:, None]).reciprocal_()
                log_u, log_v = f[t + 1 : end + 1].log_(), g[t:end].log_()
                near = count_near(log_u, log_v)
                log_u += row
                log_v += column
                size = 2 * size if near == size else max(near, 4)
            if not near:
                g[t] = -log_sum_exp(torch.add(logits, f[t][:, :, None], out=work), 1)
                f[t + 1] = -log_sum_exp(torch.add(logits, g[t][:, None, :], out=work), 2)
            t += max(near, 1)  # what lies beyond is overwritten
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
        with torch.autocast(grad.device.type, enabled=False), full_precision():
            return Sinkhorn.gradient(ctx, grad), None, None, None

    @staticmethod
    def gradient(ctx, grad):
        scores, logits, f, g, last = ctx.saved_tensors
        (batch, count), each = scores.shape, torch.arange(len(scores), device=scores.device)
        work, low_rank = torch.empty_like(logits), torch.empty_like(logits)

        def softmax(row, column):  # exp(L + row + column), in `work`
            return torch.add(logits, row[:, :, None], out=work).add_(column[:, None, :]).exp_()

        d_logits = softmax(f[last + 1, each], g[last, each]).mul(grad)
        end_f, end_g = d_logits.sum(2), d_logits.sum(1)
        ends = (last == torch.arange(len(g), device=last.device)[:, None]).to(logits)[:, :, None]  # (T, B, 1)
        d_f, t = torch.zeros_like(end_f), len(g)
        while t > 0:
            start, row, column = max(0, t - 32), f[t], g[t - 1]
            log_u, log_v = f[start : t + 1] - row, g[start:t] - column
            near = count_near(log_u[:-1].flip(0), log_v.flip(0))
            if near:
                kernel = exponential(logits, row, column, work)
                u, v = log_u[-near - 1 :].exp_(), log_v[-near:].exp_()
                left, right = (logits.new_empty(batch, 2 * near, count) for _ in range(2))
                for s in range(near - 1, -1, -1):
                    d_f = torch.addcmul(d_f, end_f, ends[t - near + s])
                    d_g = end_g * ends[t - near + s]
                    left[:, 2 * s], right[:, 2 * s] = torch.mul(d_f, u[s + 1]), v[s]  # of u[s + 1] = 1 / (K v[s])
                    d_g -= torch.bmm(left[:, 2 * s, None], kernel)[:, 0].mul_(v[s])
                    left[:, 2 * s + 1], right[:, 2 * s + 1] = u[s], torch.mul(d_g, v[s])  # of v[s] = 1 / (u[s] K)
                    d_f = torch.bmm(right[:, 2 * s + 1, None], kernel.mT)[:, 0].mul_(u[s]).neg_()
                d_logits.addcmul_(kernel, torch.bmm(left.mT, right, out=low_rank), value=-1)
            else:
                d_f = torch.addcmul(d_f, end_f, ends[t - 1])
                step = softmax(f[t], g[t - 1]).mul_(d_f[:, :, None])  # of f[t] = -LSE_j(L + g[t - 1])
                d_logits -= step
                d_g = end_g * ends[t - 1] - step.sum(1)
                step = softmax(f[t - 1], g[t - 1]).mul_(d_g[:, None, :])  # of g[t - 1] = -LSE_r(L + f[t - 1])
                d_logits -= step
                d_f = -step.sum(2)
            t -= max(near, 1)
        slope = torch.linspace(1, -1, count, dtype=scores.dtype, device=scores.device) / ctx.tau  # dL / ds
        return d_logits.mul_(slope[:, None]).sum(1)


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


def exponential(logits, row, column, out):
    """exp(logits + row + column), into `out`; never denormal, which is slow on some processors."""
    floor = math.log(torch.finfo(logits.dtype).tiny) + 7
    return torch.add(logits, row[:, :, None], out=out).add_(column[:, None, :]).clamp_(min=floor).exp_()


def count_near(log_u: torch.Tensor, log_v: torch.Tensor) -> int:
    """How many iterations of (T, B, N) scalings, from the first on, are in reach; NaN is not."""
    far = torch.maximum(log_u.abs().amax((1, 2)), log_v.abs().amax((1, 2))).tolist()  # device sync
    return next((t for t, value in enumerate(far) if not value <= Sinkhorn.REACH), len(far))


def log_sum_exp(x: torch.Tensor, dim: int) -> torch.Tensor:
    """logsumexp that overwrites `x`."""
    top = x.amax(dim, keepdim=True)
    return x.sub_(top).exp_().sum(dim).log_().add_(top.squeeze(dim))


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
    budgets = torch.as_tensor(budgets, device=scores.device)
    fits = budgets.ndim == 1 or (budgets.ndim == 2 and len(budgets) == len(scores))
    if not fits or bool((budgets <= 0).any()) or bool((budgets >= scores.shape[1]).any()):
        raise ExplainerError(
            f"budgets {budgets.tolist()!s:.200} of {scores.shape[1]} elements; give (K,) or (batch, K) numbers between "
            "0 and N, both excluded (there the mask is constant)."
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
