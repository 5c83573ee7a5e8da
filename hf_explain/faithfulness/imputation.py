"""Missing pixels as the weighted mean of their eight neighbors, as in ROAD (Rong et al., arXiv 2202.00449).

1/6 for the four beside it, 1/12 for the diagonal ones, renormalized at the border. All missing pixels of a picture are
unknowns of one linear system. `impute` solves it exactly, one picture after the other; `impute_iteratively` solves many
at once to a tolerance, by conjugate gradients whose matrix is a convolution, which is what a GPU is good at.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from ..modeling.errors import ExplainerError

OFFSETS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
WEIGHTS = {(dy, dx): 1 / 12 if dy and dx else 1 / 6 for dy, dx in OFFSETS}


def check_missing(pixel_values: torch.Tensor, missing: torch.Tensor) -> None:
    if missing.dtype != torch.bool or missing.shape != (len(pixel_values), *pixel_values.shape[-2:]):
        raise ExplainerError(
            f"missing is {missing.dtype} of shape {tuple(missing.shape)} for pixel_values {tuple(pixel_values.shape)}; "
            "give one bool per pixel, (B, H, W)."
        )
    everything = missing.flatten(1).all(1).nonzero().flatten().tolist()
    if everything:
        raise ExplainerError(f"image {everything[0]} has no pixel left to impute from; remove fewer.")


# ---- exactly ----


def impute(pixel_values: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
    """Pictures (B, C, H, W) with the missing pixels (B, H, W) filled in, solved exactly on the CPU.

    >>> import torch
    >>> picture, hole = torch.ones(1, 3, 4, 4), torch.eye(4, dtype=torch.bool)[None]
    >>> bool(torch.allclose(impute(picture * ~hole, hole), picture))
    True
    """
    check_missing(pixel_values, missing)
    filled = pixel_values.detach().clone()
    for picture, hole in zip(filled, missing, strict=True):
        if hole.any():
            values = solve(picture.double().cpu().numpy(), hole.cpu().numpy())
            picture[:, hole] = torch.from_numpy(values).to(picture)
    return filled


def solve(picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Values (C, N) of the N missing pixels of one picture (C, H, W): one sparse system for all channels."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import splu

    height, width = hole.shape
    y, x = hole.nonzero()
    count, number = len(y), np.full(hole.shape, -1)
    number[y, x] = np.arange(count)
    diagonal, right = np.zeros(count), np.zeros((count, len(picture)))
    rows, columns, values = [], [], []
    for (dy, dx), weight in WEIGHTS.items():
        inside = (y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width)
        at = inside.nonzero()[0]
        there_y, there_x = y[at] + dy, x[at] + dx
        diagonal[at] += weight
        neighbor = number[there_y, there_x]
        unknown = neighbor >= 0
        rows.append(at[unknown])
        columns.append(neighbor[unknown])
        values.append(np.full(int(unknown.sum()), -weight))
        right[at[~unknown]] += weight * picture[:, there_y[~unknown], there_x[~unknown]].T
    rows.append(np.arange(count))
    columns.append(np.arange(count))
    values.append(diagonal)
    entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
    matrix = coo_matrix(entries, shape=(count, count)).tocsc()
    # Symmetric and diagonally dominant, so it needs no pivoting, and an ordering for symmetric matrices fills in least.
    # Its columns have little in common: panels of one are the fastest.
    order, options = "MMD_AT_PLUS_A", {"SymmetricMode": True}
    return splu(matrix, permc_spec=order, diag_pivot_thresh=0.0, panel_size=1, options=options).solve(right).T


# ---- to a tolerance, many at once ----


def impute_iteratively(
    pixel_values: torch.Tensor, missing: torch.Tensor, tolerance: float = 1e-6, max_iterations: int = 2000
) -> torch.Tensor:
    """`impute`, approximately, for all pictures at once and on their device.

    Args:
        tolerance: at which a picture is done: the largest residual of an equation, as a share of the range of its
            channel. The error of a pixel deep in a large hole can be a hundred times that.
    """
    check_missing(pixel_values, missing)
    pixels, hole = pixel_values.detach().float(), missing[:, None].to(pixel_values.device)
    filled = descend(pixels, hole, tolerance, max_iterations)
    return torch.where(hole, filled.to(pixel_values), pixel_values)


def descend(pixels: torch.Tensor, hole: torch.Tensor, tolerance: float, max_iterations: int) -> torch.Tensor:
    """Solved on a picture of half the size first, whose solution is where the full one starts."""
    known = (~hole).to(pixels)
    if min(pixels.shape[-2:]) > 4:
        weight = F.avg_pool2d(known, 2, ceil_mode=True)
        small = F.avg_pool2d(pixels * known, 2, ceil_mode=True) / weight.clamp(min=1e-6)
        small = descend(small, weight == 0, tolerance, max_iterations)
        start = F.interpolate(small, size=pixels.shape[-2:], mode="bilinear", align_corners=False)
    else:
        start = ((pixels * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True)).expand_as(pixels)
    return conjugate_gradients(pixels, hole, start, tolerance, max_iterations)


def conjugate_gradients(pixels, hole, start, tolerance: float, max_iterations: int) -> torch.Tensor:
    """Preconditioned by the diagonal; a channel that is done stands still, so the others of its batch do not matter."""
    unknown, kernel = hole.to(pixels), pixels.new_zeros(1, 1, 3, 3)
    for (dy, dx), weight in WEIGHTS.items():
        kernel[0, 0, dy + 1, dx + 1] = weight

    def neighbors(values):
        flat = values.flatten(0, 1)[:, None]
        return F.conv2d(flat, kernel, padding=1)[:, 0].view_as(values)

    diagonal = neighbors(torch.ones_like(unknown))
    high = torch.where(hole, -torch.inf, pixels).amax((2, 3), keepdim=True)
    low = torch.where(hole, torch.inf, pixels).amin((2, 3), keepdim=True)
    enough = tolerance * (high - low).clamp(min=1e-3)
    solution = torch.where(hole, start, pixels)
    residual = unknown * (neighbors(solution) - diagonal * solution)
    scaled = residual / diagonal
    direction, energy = scaled, (residual * scaled).sum((2, 3), keepdim=True)
    for _ in range(max_iterations):
        active = residual.abs().amax((2, 3), keepdim=True) > enough
        if not active.any():  # a sync with the device
            break
        curved = unknown * (diagonal * direction - neighbors(direction))
        along = (direction * curved).sum((2, 3), keepdim=True)
        step = torch.where(active & (along > 0), energy / along, 0.0)
        solution = solution + step * direction
        residual = residual - step * curved
        scaled = residual / diagonal
        before, energy = energy, (residual * scaled).sum((2, 3), keepdim=True)
        direction = scaled + torch.where(before > 0, energy / before, 0.0) * direction
    return solution
