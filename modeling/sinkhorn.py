"""Sinkhorn's iterations with their exact gradient, in little memory; `ranking.gumbel_sinkhorn` is how to call them."""

from __future__ import annotations

import math

import torch

from .precision import full_precision


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
