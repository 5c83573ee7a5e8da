"""Maps sorted, cut and averaged, in plain loops; and the figure, pixel by pixel where it says something."""

import numpy as np
import PIL.Image
import pytest
import torch

from hf_explain import ExplainerError
from hf_explain.localization import localization_score
from hf_explain.localization.aggatt import aggatt_sheet, paint
from hf_explain.localization.aggregation import CUTS, aggregate, bin_edges, sort_maps


def draw(count, side=4, seed=0):
    return torch.randn(count, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 25, 33, 99, 100, 500, 1000, 2001])
def test_any_number_of_maps_is_cut(count):
    edges = bin_edges(count)
    assert edges[0] == 0 and edges[-1] == count and edges == sorted(edges)
    for edge, cut in zip(edges, CUTS, strict=True):
        assert abs(edge - cut * count) <= 0.5 + 1e-6
    found = aggregate(draw(count))
    assert sum(b.count for b in found.bins) == count and all(b.count for b in found.bins)


def test_the_papers_numbers():
    assert bin_edges(500) == [0, 10, 25, 250, 475, 490, 500]
    assert bin_edges(1000) == [0, 20, 50, 500, 950, 980, 1000]


def test_equal_scores_are_sorted_by_the_mass_inside():
    values, inside = torch.tensor([1.0, 0.5, 1.0, 1.0]), torch.tensor([2.0, 9.0, 3.0, 1.0])
    assert sort_maps(values, inside) == [2, 0, 3, 1]
    maps = torch.zeros(4, 4, 4)
    maps[:, 0, 0] = torch.tensor([2.0, 1.0, 4.0, 3.0])  # all score 1
    found = aggregate(maps, cuts=(0, 0.25, 0.5, 0.75, 1))
    assert [b.example for b in found.bins] == [2, 3, 0, 1] and [b.score for b in found.bins] == [1.0] * 4


@pytest.mark.parametrize("signed", [False, True])
def test_aggregate_in_plain_loops(signed):
    maps, cuts = draw(10), (0, 0.2, 0.7, 1)
    maps[3] = -1.0  # no positive mass
    scores = localization_score(maps, torch.full((10,), 2)).values.tolist()
    order = sorted(range(10), key=lambda i: -scores[i])
    found = aggregate(maps, cell=2, cuts=cuts, signed=signed)
    means = []
    for one, (first, last) in zip(found.bins, [(0, 2), (2, 7), (7, 10)], strict=True):
        shown = [[[v if signed else max(v, 0) for v in row] for row in maps[i].tolist()] for i in order[first:last]]
        mean = np.array([[sum(m[y][x] for m in shown) / len(shown) for x in range(4)] for y in range(4)])
        assert np.allclose(one.mean, mean, atol=1e-6)
        assert one.example == order[(first + last - 1) // 2] and one.score == pytest.approx(scores[one.example])
        assert np.allclose(one.map, shown[(last - first - 1) // 2])
        means += [abs(v) for v in mean.ravel()]
    assert found.scale == pytest.approx(sorted(means)[47])  # the 99.5-percentile of 48 values
    assert found.score == pytest.approx(sum(scores) / 10) and scores[3] == 0


def test_the_scale_is_the_value_that_99_5_percent_do_not_exceed():
    maps = torch.zeros(1, 20, 20)
    maps.view(-1)[:] = torch.arange(400.0)
    assert aggregate(maps).scale == 397.0  # the 398th of 400


def test_maps_are_enlarged_and_smoothed_as_they_are_scored():
    maps = draw(6)
    found = aggregate(maps, size=(16, 16), smooth=3, cuts=(0, 1))
    assert found.bins[0].mean.shape == (16, 16)
    expected = localization_score(maps, torch.zeros(6, dtype=torch.long), 2, (16, 16), 3).values.mean()
    assert found.score == pytest.approx(float(expected))
    assert not np.allclose(found.bins[0].mean, aggregate(maps, size=(16, 16), cuts=(0, 1)).bins[0].mean)


def test_colors():
    colors = paint(np.array([[-1.0, 0.0, 0.5, 1.0, 7.0]]))[0].astype(int)
    assert colors[1].tolist() == [255] * 3
    assert colors[0][0] > 150 > colors[0][1] and colors[3][1] > 2 * colors[3][0]  # red against, green for
    assert colors[4].tolist() == colors[3].tolist() and (colors[3] < colors[2]).all()


def test_the_sheet():
    """One line of means and one of examples per method; the frame is around the cell, and only there is color."""
    inside = torch.zeros(40, 8, 8)
    inside[:, 4:, 4:] = 1.0
    pictures = [PIL.Image.new("RGB", (16, 16), "#808080")] * 40
    one = ("gradient", aggregate(inside, cell=3))
    sheet = aggatt_sheet([one], pictures, cell=3, n=2, title="DiFull")
    two = aggatt_sheet([one, one], pictures, cell=3, n=2, title="DiFull")
    assert sheet.size[0] == two.size[0] and two.size[1] > sheet.size[1] + 200
    colors = np.asarray(sheet).astype(int)
    green = (colors[..., 1] - colors[..., 0] > 80).any(0)
    columns = np.flatnonzero(np.diff(np.r_[0, green, 0]) == 1)
    assert len(columns) == len(one[1].bins) == 6
    whole = aggatt_sheet([("noise", aggregate(torch.rand(3, 8, 8)))])
    assert whole.size[0] < sheet.size[0]  # of three maps four bins are empty
    assert aggatt_sheet([("nothing", aggregate(torch.zeros(7, 8, 8)))]).size[0] > 0


def test_wrong_input():
    with pytest.raises(ExplainerError, match=r"0 maps and cuts=.*; give at least one map"):
        aggregate(torch.zeros(0, 4, 4))
    for cuts in ((0, 0.5), (0, 0.7, 0.5, 1), (1,)):
        with pytest.raises(ExplainerError, match="cuts that rise from 0 to 1"):
            bin_edges(10, cuts)
    with pytest.raises(ExplainerError, match="at least one method"):
        aggatt_sheet([])
    with pytest.raises(ExplainerError, match="the same bins in all"):
        aggatt_sheet([("a", aggregate(draw(3))), ("b", aggregate(draw(100)))])
