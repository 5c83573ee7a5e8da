"""The thresholds of soft top-k masks, with their implicit gradient; `ranking.soft_topk` is how to call them."""

from __future__ import annotations

import torch


class SoftTopK(torch.autograd.Function):
    """Masks of `scores` (B, N) that each sum to one of `budgets`; only the masks are kept for the gradient."""

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
    """b (B, K) with sum_j sigmoid((s_j - b) / tau) = k for budgets (K,) or (B, K), as precise as these are."""
    # Newton settles after a few steps at what rounding leaves: of the sum, and of the threshold itself.
    wide, rounding = budgets.dtype, torch.finfo(scores.dtype).eps
    flat = max(1e-300, torch.finfo(wide).tiny)  # no slope is smaller, so that nothing is divided by 0
    logit = torch.logit(budgets / scores.shape[1])  # were all scores equal, b = s - tau * logit
    low = scores.amin(1, keepdim=True).to(wide) - tau * logit  # here the sum is at least k
    high = scores.amax(1, keepdim=True).to(wide) - tau * logit
    # Start at the hard threshold: the k-th score.
    at = budgets.long().clamp(0, scores.shape[1] - 1).expand(len(scores), -1)  # (B, K)
    b = scores.sort(dim=1, descending=True).values.gather(1, at).to(wide).clamp(low, high)
    for _ in range(steps):
        masks = ((scores[:, None] - b[..., None].to(scores)) / tau).sigmoid_()
        over = masks.sum(-1, dtype=wide) - budgets  # falls as b grows
        slope = masks.mul_(1 - masks).sum(-1, dtype=wide) / tau
        if bool((over.abs() <= rounding * (3 * budgets + slope * b.abs())).all()):  # device sync
            break
        low, high = torch.where(over > 0, b, low), torch.where(over > 0, high, b)
        newton = b + over / slope.clamp(min=flat)
        b = torch.where((newton > low) & (newton < high), newton, (low + high) / 2)
    return b
