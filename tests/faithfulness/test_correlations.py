"""Correlation metrics against plain loops."""

import functools
import itertools
import random

import pytest
import torch
from metric_cases import bent, case, correlation, pixels, ranks, score, tiny

from hf_explain import ExplainerError
from hf_explain.faithfulness.correlations import (
    SP,
    faithfulness_correlation,
    faithfulness_estimate,
    monotonicity_correlation,
    other_classes,
    random_logit,
)
from hf_explain.faithfulness.similarity import pearson, spearman, ssim

METRICS = {
    "faithfulness_correlation": functools.partial(faithfulness_correlation, runs=12, subset_size=5),
    "faithfulness_estimate": functools.partial(faithfulness_estimate, steps=5),
    "monotonicity_correlation": functools.partial(monotonicity_correlation, steps=5, draws=3),
    "random_logit": functools.partial(random_logit, method=lambda _, x, t: torch.sin(7 * x[:, 0] + t[:, None, None])),
}


def replaced(picture, places, gray):
    """With pixels of a gray in [0, 1], in the processor's space of -1 to 1."""
    altered = picture.clone()
    for y, x in places:
        altered[:, y, x] = 2 * gray - 1
    return altered


def split(attribution, steps):
    order = sorted(pixels(), key=lambda at: -float(attribution[at]))
    cuts = [round(step * 16 / steps) for step in range(steps + 1)]
    return [order[a:b] for a, b in itertools.pairwise(cuts)]


@pytest.mark.parametrize("batch_size", [1, 3, 6, 4])
def test_faithfulness_correlation_in_plain_loops(batch_size):
    x, maps, targets = case()
    classifier = tiny()
    found = faithfulness_correlation(
        classifier, x, maps, targets, runs=12, subset_size=5, absolute=True, reference=0.25, seed=4,
        batch_size=batch_size,
    )  # fmt: skip
    order = torch.rand(12, 16, generator=torch.Generator().manual_seed(4)).argsort(1)
    subsets = [[pixels()[i] for i in range(16) if row[i] < 5] for row in order]
    assert all(len(subset) == 5 for subset in subsets) and len({tuple(s) for s in subsets}) > 6
    for value, picture, attribution, target in zip(found, x, maps, targets, strict=True):
        sums = [sum(abs(float(attribution[at])) for at in subset) for subset in subsets]
        drops = [score(picture, target) - score(replaced(picture, s, 0.25), target) for s in subsets]
        assert float(value) == pytest.approx(correlation(sums, drops), abs=1e-5)
    assert max(len(seen) for seen in classifier.seen) == batch_size


def test_faithfulness_correlation_over_a_grid():
    x, maps, targets = case()
    found = faithfulness_correlation(tiny(), x, maps, targets, grid=2, score="probability", similarity="spearman")
    cells = [[(y, x) for y in (v, v + 1) for x in (u, u + 1)] for v in (0, 2) for u in (0, 2)]
    for value, picture, attribution, target in zip(found, x, maps, targets, strict=True):
        sums = [sum(float(attribution[at]) for at in cell) for cell in cells]
        drops = [-score(replaced(picture, cell, 0), target, "probability") for cell in cells]
        assert float(value) == pytest.approx(correlation(ranks(sums), ranks(drops)), abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 6, 4])
def test_faithfulness_estimate_in_plain_loops(batch_size):
    x, maps, targets = case()
    found = faithfulness_estimate(tiny(), x, maps, targets, steps=5, reference=0.5, batch_size=batch_size)
    for value, picture, attribution, target in zip(found, x, maps, targets, strict=True):
        groups = split(attribution, 5)
        sums = [sum(float(attribution[at]) for at in group) for group in groups]
        drops = [score(picture, target) - score(replaced(picture, group, 0.5), target) for group in groups]
        assert float(value) == pytest.approx(correlation(sums, drops), abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 6, 4])
def test_monotonicity_correlation_in_plain_loops(batch_size):
    x, maps, targets = case()
    found = monotonicity_correlation(
        tiny(), x, maps, targets, steps=6, draws=3, grays=(0.2, 0.7), seed=5, batch_size=batch_size
    )
    grays = (0.2 + 0.5 * torch.rand(18, generator=torch.Generator().manual_seed(5))).tolist()
    for value, picture, attribution, target in zip(found, x, maps.abs(), targets, strict=True):
        clean, groups, changes = score(picture, target, "probability"), split(attribution, 6), []
        for number, group in enumerate(groups):
            altered = [replaced(picture, group, gray) for gray in grays[3 * number : 3 * number + 3]]
            changes.append(sum((score(a, target, "probability") - clean) ** 2 for a in altered) / 3 / clean**2)
        sums = [sum(float(attribution[at]) for at in group) for group in groups]
        assert float(value) == pytest.approx(correlation(ranks(sums), ranks(changes)), abs=1e-5)


def test_random_logit_compares_with_another_class():
    x, maps, targets = case()
    asked = []

    def method(classifier, pixel_values, classes):
        asked.extend(classes.tolist())
        return torch.stack([torch.sin(7 * p[0] + int(c)) for p, c in zip(pixel_values, classes, strict=True)])

    found = random_logit(tiny(), x, maps, targets, method=method, similarity="pearson", batch_size=4)
    assert all(a != t and 0 <= a < 5 for a, t in zip(asked, targets.tolist(), strict=True))
    for value, picture, attribution, other in zip(found, x, maps, asked, strict=True):
        another = torch.sin(7 * picture[0] + other)
        expected = correlation(attribution.flatten().tolist(), another.flatten().tolist())
        assert float(value) == pytest.approx(expected, abs=1e-5)
    assert random_logit(tiny(), x, maps, targets, method=lambda *_: maps, similarity="ssim").tolist() == [1.0] * 6


def test_every_other_class_is_drawn():
    drawn = {(t, int(other_classes(torch.tensor([t]), 3, seed))) for t in range(3) for seed in range(40)}
    assert drawn == {(t, o) for t in range(3) for o in range(3) if t != o}


# ---- similarities ----


def test_spearman_shares_ranks():
    numbers = random.Random(0)
    for _ in range(20):
        a, b = ([numbers.randrange(4) for _ in range(9)] for _ in range(2))
        found = spearman(torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64))
        assert float(found) == pytest.approx(correlation(ranks(a), ranks(b)), abs=1e-6)


def test_a_correlation_with_something_constant_is_undefined():
    rows, flat = torch.randn(2, 5), torch.full((2, 5), 0.3)
    for similarity in (pearson, spearman):
        assert similarity(rows, flat).isnan().all() and similarity(flat, rows).isnan().all()
    x, maps, targets = case(2)
    still = tiny(lambda x: torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0]]).expand(len(x), 5))
    assert faithfulness_estimate(still, x, maps, targets, steps=5).isnan().all()


def test_ssim_in_plain_loops():
    a, b = case(2)[1].flatten(1)
    a, b = (v.double() / v.double().abs().max() for v in (a, b))
    extent = float(torch.cat([a, b]).max() - torch.cat([a, b]).min())
    values = []
    for start in range(10):
        one, other = a[start : start + 7].tolist(), b[start : start + 7].tolist()
        mean_a, mean_b = sum(one) / 7, sum(other) / 7
        var_a, var_b = (sum((v - m) ** 2 for v in w) / 6 for w, m in ((one, mean_a), (other, mean_b)))
        both = sum((v - mean_a) * (u - mean_b) for v, u in zip(one, other, strict=True)) / 6
        c1, c2 = (0.01 * extent) ** 2, (0.03 * extent) ** 2
        top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
        values.append(top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
    assert float(ssim(a[None], b[None])) == pytest.approx(sum(values) / 10, abs=1e-6)


# ---- what holds for all ----


@pytest.mark.parametrize("name", METRICS)
def test_seeds_pictures_and_ties(name):
    metric, (x, maps, targets) = METRICS[name], case()
    maps = maps.round()  # ties
    one, same = (metric(tiny(), x, maps, targets, seed=0) for _ in range(2))
    assert torch.equal(one, same)
    assert any(not torch.equal(one, metric(tiny(), x, maps, targets, seed=seed)) for seed in (1, 2, 3))
    alone = metric(tiny(), x[4:5], maps[4:5], targets[4:5], seed=0)
    assert torch.allclose(alone, one[4:5], atol=1e-5)
    for bad, message in ((torch.nan, "image 1 holds NaN"), (0.5, "image 1 is constant")):
        broken = maps.clone()
        broken[1] = bad
        with pytest.raises(ExplainerError, match=message):
            metric(tiny(), x, broken, targets)
    with pytest.raises(ExplainerError, match="unknown similarity 'r2'"):
        metric(tiny(), x, maps, targets, similarity="r2")


@pytest.mark.parametrize("name", ["faithfulness_correlation", "faithfulness_estimate", "monotonicity_correlation"])
def test_settings_of_semantic_pullbacks(name):
    metric = {
        "faithfulness_correlation": faithfulness_correlation,
        "faithfulness_estimate": faithfulness_estimate,
        "monotonicity_correlation": monotonicity_correlation,
    }[name]
    weights = torch.randn(3 * 64, 5, generator=torch.Generator().manual_seed(1)) / 5
    classifier = tiny(lambda x: torch.tanh(x.flatten(1)) @ weights)
    x, maps, targets = case(2, 8)
    found = metric(classifier, x, maps, targets, **SP[name])
    assert found.shape == (2,) and (found.abs() <= 1).all()


@pytest.mark.parametrize(
    "metric, change, message",
    [
        (faithfulness_correlation, {"subset_size": 17}, "subset_size=17 for 4 x 4 pixels"),
        (faithfulness_correlation, {"grid": 5}, "grid=5 for 4 x 4 pixels"),
        (faithfulness_estimate, {"steps": 17}, "steps=17 for 16 pixels"),
        (faithfulness_estimate, {"steps": 4, "reference": "noise"}, "random for every pixel"),
    ],
)
def test_wrong_input(metric, change, message):
    with pytest.raises(ExplainerError, match=message):
        metric(tiny(bent), *case(), **change)
