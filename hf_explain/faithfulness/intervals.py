"""95 % intervals by the bootstrap: of a mean, and of a paired difference."""

from __future__ import annotations

import numpy as np

DRAWS = 2000
ROOM = 2**24  # indices in memory


def interval(groups, seed: int = 0) -> dict[str, float]:
    """Mean of per-picture values with its 95 % interval: {"mean", "low", "high"}.

    Args:
        groups: values (n,), or a list of them, one array per trained model. Of several groups the models are drawn
            anew too, not only the pictures, so the interval tells of another training as well.

    >>> interval([0.0, 1.0, 0.0, 1.0])["mean"]
    0.5
    """
    groups = [np.asarray(g, float) for g in (groups if np.ndim(groups[0]) else [groups])]
    random = np.random.default_rng(seed)
    resampled = np.stack([means_of_draws(g, random) for g in groups], axis=1)
    if len(groups) > 1:
        chosen = random.integers(len(groups), size=(DRAWS, len(groups)))
        resampled = np.take_along_axis(resampled, chosen, axis=1)
    low, high = np.quantile(resampled.mean(1), [0.025, 0.975])
    return {"mean": float(np.mean([g.mean() for g in groups])), "low": float(low), "high": float(high)}


def means_of_draws(values: np.ndarray, random) -> np.ndarray:
    """Of as many values each, drawn with replacement; not all draws at once, which many values would not bear."""
    rows = max(1, ROOM // len(values))
    sizes = [min(rows, DRAWS - first) for first in range(0, DRAWS, rows)]
    return np.concatenate([values[random.integers(len(values), size=(n, len(values)))].mean(1) for n in sizes])


def paired(ours, theirs, seed: int = 0) -> dict[str, float]:
    """Mean of ours - theirs, picture by picture, with its 95 % interval.

    >>> found = paired(np.array([0.5, 0.7, 0.9]), np.array([0.4, 0.6, 0.8]))
    >>> round(found["mean"], 3)
    0.1
    """
    pairs = zip(ours, theirs, strict=True) if np.ndim(ours[0]) else [(ours, theirs)]  # several models, or one
    return interval([np.asarray(a) - np.asarray(b) for a, b in pairs], seed)
