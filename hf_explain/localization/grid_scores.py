"""How much of a map lies in the right cells of a grid of pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..methods.smoothing import gaussian
from ..modeling.errors import ExplainerError

# ---- grids of n x n pictures ----


@dataclass(frozen=True)
class GridScores:
    """Scores of maps of grids, one each: (S,).

    Args:
        values: share of the positive mass that is inside the cell; 1 / n^2 by chance.
        inside: that mass itself.
        empty: maps with no positive mass, which score 0 and say nothing; `summary()` counts them.
    """

    values: torch.Tensor
    inside: torch.Tensor
    empty: torch.Tensor

    def summary(self) -> dict[str, float]:
        """Mean, median and quartiles, of how many, and how many of those had no mass."""
        quartiles = torch.quantile(self.values.double(), torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
        names = ("low_quartile", "median", "high_quartile")
        counts = {"n": len(self.values), "empty": int(self.empty.sum())}
        return {"mean": float(self.values.mean()), **dict(zip(names, quartiles, strict=True)), **counts}


def localization_score(
    maps: torch.Tensor,
    cells: torch.Tensor,
    n: int = 2,
    size: tuple[int, int] | None = None,
    smooth: int | None = None,
    cellwise: bool = False,
    batch_size: int = 64,
) -> GridScores:
    """Share of each map's positive mass inside its cell (arXiv 2205.10435, eq. 1).

    Sum over the channels, smooth if wanted, enlarge bilinearly to the grid's pixels, drop what is negative, divide.

    >>> scores = localization_score(torch.ones(3, 8, 8), torch.tensor([0, 1, 3]))
    >>> scores.values.tolist(), scores.summary()["empty"]
    ([0.25, 0.25, 0.25], 0)

    Args:
        maps: signed, (S, h, w) or (S, C, h, w), as small as the layer they are of.
        cells: (S,), the cell that is asked for, counted row by row.
        size: of the grid in pixels; by default that of the maps.
        smooth: side of a Gaussian at the maps' own resolution, odd, with sigma = smooth / 4; None for none.
        cellwise: smooth each cell alone, so that nothing leaks over a border.
        batch_size: maps that are enlarged at once.
    """
    maps, size = check_grid_maps(maps, cells, n, size)
    found = [torch.zeros(0), torch.zeros(0), torch.zeros(0, dtype=torch.bool)]
    for some, which in zip(maps.split(batch_size), cells.to(maps.device).split(batch_size), strict=True):
        large = enlarge(smoothed(some, n, smooth, cellwise), size)
        largest, positive = large.abs().flatten(1).amax(1), large.clamp(min=0)
        mass = torch.stack([cut(positive, n, cell).flatten(1).sum(1) for cell in range(n * n)], 1)  # (S, n * n)
        total, inside = mass.sum(1), mass.gather(1, which[:, None])[:, 0]  # so a map within its cell scores exactly 1
        empty = total <= 1e-7 * largest  # relative: a fixed threshold would drop tiny but good maps
        values = torch.where(empty, 0, inside / total.where(~empty, torch.ones_like(total)))
        found = [torch.cat([old, new.cpu()]) for old, new in zip(found, (values, inside, empty), strict=True)]
    return GridScores(*found)


def check_grid_maps(maps: torch.Tensor, cells: torch.Tensor, n: int, size) -> tuple[torch.Tensor, tuple[int, int]]:
    """The maps summed over their channels, and the size they are brought to."""
    if maps.ndim not in (3, 4) or len(maps) != len(cells) or cells.ndim != 1:
        raise ExplainerError(
            f"maps {tuple(maps.shape)} and cells {tuple(cells.shape)}; give (S, h, w) or (S, C, h, w), and (S,)."
        )
    maps = (maps.sum(1) if maps.ndim == 4 else maps).float()
    size = (int(size[0]), int(size[1])) if size is not None else (maps.shape[1], maps.shape[2])
    if n < 1 or any(length % n for length in size) or not ((cells >= 0) & (cells < n * n)).all():
        raise ExplainerError(
            f"cells {cells.unique().tolist()[:8]} of {n} x {n} in {size[0]} x {size[1]} pixels; give cells from 0 to "
            f"{n * n - 1} and a size that {n} divides."
        )
    if not torch.isfinite(maps).all():
        bad = int((~torch.isfinite(maps.flatten(1)).all(1)).nonzero()[0])
        raise ExplainerError(f"map {bad} holds NaN or infinite values, which have no share; leave it out.")
    return maps, size


def smoothed(maps: torch.Tensor, n: int, smooth: int | None, cellwise: bool) -> torch.Tensor:
    if smooth is None:
        return maps
    if not cellwise:
        return gaussian(maps, smooth)
    return stitch(gaussian(cut_all(maps[:, None], n)[:, 0], smooth)[:, None], n)[:, 0]


def enlarge(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(B, h, w) -> (B, H, W), bilinear."""
    if tuple(maps.shape[1:]) == tuple(size):
        return maps
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def cell_masks(cells: torch.Tensor, n: int, size: tuple[int, int]) -> torch.Tensor:
    """Where the cells (S,) of an n x n grid are: (S, H, W) bool, the masks of `average_precision`.

    >>> cell_masks(torch.tensor([3]), 2, (4, 4))[0].int().tolist()
    [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    """
    each = torch.eye(n * n, dtype=torch.bool)[cells.cpu()].view(-1, n, n)
    return each.repeat_interleave(size[0] // n, 1).repeat_interleave(size[1] // n, 2)


def cut(maps: torch.Tensor, n: int, cell: int) -> torch.Tensor:
    """One cell of grids (..., nH, nW): (..., H, W)."""
    height, width = maps.shape[-2] // n, maps.shape[-1] // n
    y, x = divmod(cell, n)
    return maps[..., y * height : (y + 1) * height, x * width : (x + 1) * width]


def cut_all(maps: torch.Tensor, n: int) -> torch.Tensor:
    """All cells of grids (B, C, nH, nW), row by row: (B n n, C, H, W)."""
    return maps.unflatten(3, (n, -1)).unflatten(2, (n, -1)).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def stitch(cells: torch.Tensor, n: int) -> torch.Tensor:
    """Grids (B, C, nH, nW) of their cells (B n n, C, H, W): what `cut_all` undoes."""
    return cells.unflatten(0, (-1, n, n)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
