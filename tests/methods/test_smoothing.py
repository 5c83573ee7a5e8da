"""Post-smoothing against plain loops."""

import math

import pytest
import torch

from hf_explain import ExplainerError
from hf_explain.methods.smoothing import box, gaussian


@pytest.mark.parametrize("smooth", [box, gaussian])
def test_plain_loops(smooth):
    maps, size = torch.randn(2, 7, 9, generator=torch.Generator().manual_seed(0)), 5
    result = smooth(maps, size)
    weight = (lambda d: 1.0) if smooth is box else (lambda d: math.exp(-0.5 * (d / (size / 4)) ** 2))
    inside = lambda i, n: min(abs(i), 2 * (n - 1) - abs(i))  # noqa: E731 (reflection)
    for b, y, x in ((0, 0, 0), (1, 3, 4), (0, 6, 8)):
        total = weights = 0.0
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                w = weight(dy) * weight(dx)
                total += w * float(maps[b, inside(y + dy, 7), inside(x + dx, 9)])
                weights += w
        assert abs(float(result[b, y, x]) - total / weights) < 1e-5


@pytest.mark.parametrize("smooth", [box, gaussian])
def test_identities(smooth):
    maps = torch.rand(1, 16, 16)
    assert torch.allclose(smooth(torch.ones(1, 16, 16), 7), torch.ones(1, 16, 16))
    assert torch.allclose(smooth(maps, 1), maps) and smooth(maps, 7).std() < maps.std()


@pytest.mark.parametrize("size", [0, 2, 33])
def test_wrong_sizes(size):
    with pytest.raises(ExplainerError, match=f"size={size} for maps of 16 x 16; give an odd size"):
        box(torch.rand(1, 16, 16), size)
