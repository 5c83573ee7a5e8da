"""ROAD against plain loops, its imputation against a dense solve, and what its peers get wrong in silence."""

import pytest
import torch
from metric_cases import bent, case, pixels, score, tiny

from hf_explain import ExplainerError
from hf_explain.faithfulness.imputation import impute, impute_iteratively
from hf_explain.faithfulness.road import road
from hf_explain.modeling.perturbation import rank_each, top_mask


def in_loops(picture, missing):
    """One equation per missing pixel, solved as a dense system."""
    height, width = missing.shape
    holes = [(y, x) for y in range(height) for x in range(width) if missing[y, x]]
    matrix = torch.zeros(len(holes), len(holes), dtype=torch.float64)
    right = torch.zeros(len(holes), 3, dtype=torch.float64)
    for row, (y, x) in enumerate(holes):
        near = [(y + dy, x + dx, 1 / 12 if dy and dx else 1 / 6) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
        near = [(v, u, weight) for v, u, weight in near if 0 <= v < height and 0 <= u < width]
        total = sum(weight for _, _, weight in near)
        matrix[row, row] = 1
        for v, u, weight in near:
            if missing[v, u]:
                matrix[row, holes.index((v, u))] -= weight / total
            else:
                right[row] += weight / total * picture[:, v, u].double()
    filled = picture.clone()
    for values, (y, x) in zip(torch.linalg.solve(matrix, right), holes, strict=True):
        filled[:, y, x] = values.float()
    return filled


def holes(kind, size, share, count=3):
    random = torch.Generator().manual_seed(3)
    if kind == "scattered":
        values = torch.rand(count, size, size, generator=random)
    else:
        coarse = torch.rand(count, 1, 6, 6, generator=random)
        values = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")[:, 0]
    return top_mask(rank_each(values, 0), share)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_imputation_is_the_dense_system(share):
    x = case(3, 6)[0]
    missing = holes("scattered", 6, share)
    expected = torch.stack([in_loops(*pair) for pair in zip(x, missing, strict=True)])
    assert torch.allclose(impute(x, missing), expected, atol=1e-6)
    assert torch.allclose(impute_iteratively(x, missing), expected, atol=1e-4)
    kept = ~missing[:, None].expand_as(x)
    assert torch.equal(impute(x, missing)[kept], x[kept])


@pytest.mark.parametrize("kind", ["scattered", "blocks"])
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_the_iterative_solution_is_the_exact_one_to_its_tolerance(kind, share):
    x = case(3, 45)[0]  # an odd size, so that halving rounds
    x[1] = x[1] * 100 + 30
    missing = holes(kind, 45, share)
    exact, span = impute(x, missing), (x.amax((1, 2, 3)) - x.amin((1, 2, 3))).view(-1, 1, 1, 1)
    assert ((impute_iteratively(x, missing) - exact) / span).abs().max() < 2e-4
    assert ((impute_iteratively(x, missing, tolerance=1e-3) - exact) / span).abs().max() > 2e-4
    alone = torch.cat([impute_iteratively(x[i : i + 1], missing[i : i + 1]) for i in range(3)])
    assert ((impute_iteratively(x, missing) - alone) / span).abs().max() < 1e-4


def test_nothing_missing_and_everything_missing():
    x = case(2)[0]
    nothing = torch.zeros(2, 4, 4, dtype=torch.bool)
    assert torch.equal(impute(x, nothing), x) and torch.equal(impute_iteratively(x, nothing), x)
    nothing[1] = True
    for solve in (impute, impute_iteratively):
        with pytest.raises(ExplainerError, match="image 1 has no pixel left"):
            solve(x, nothing)
        with pytest.raises(ExplainerError, match="give one bool per pixel"):
            solve(x, nothing[:, :2])


def road_in_loops(x, maps, targets, percentiles, kind, noise, seed):
    drawn = torch.randn(2 * len(percentiles), 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    curves = []
    for picture, attribution, target in zip(x, maps, targets, strict=True):
        falling = sorted(pixels(), key=lambda at: -float(attribution[at]))
        clean = score(picture, target, "probability")
        for side, order in enumerate((falling, falling[::-1])):
            for number, percentile in enumerate(percentiles):
                missing = torch.zeros(4, 4, dtype=torch.bool)
                for at in order[: round(percentile / 100 * 16)]:
                    missing[at] = True
                filled = in_loops(picture, missing)
                filled += noise * 2 * drawn[side * len(percentiles) + number] * missing  # 2: the gain of the processor
                if kind == "difference":
                    curves.append(score(filled, target, "probability") - clean)
                else:
                    curves.append(score(filled, target, kind))
    return torch.tensor(curves).view(len(x), 2, len(percentiles))


@pytest.mark.parametrize("kind", ["probability", "difference", "indicator"])
@pytest.mark.parametrize("batch_size", [1, 3, 6, 4])
def test_it_is_the_protocol_in_plain_loops(kind, batch_size):
    """RGB pictures and maps (B, H, W), more than one batch, a short last one: where peers raise or drop pictures."""
    x, maps, targets = case()
    expected = road_in_loops(x, maps, targets, (10, 50, 80), kind, 0.05, 7)
    classifier = tiny()
    found = road(
        classifier, x, maps, targets, percentiles=(10, 50, 80), score=kind, noise=0.05, seed=7, batch_size=batch_size
    )
    assert torch.allclose(found.curves["most_first"], expected[:, 0], atol=1e-5)
    assert torch.allclose(found.curves["least_first"], expected[:, 1], atol=1e-5)
    most, least = expected.mean(2).unbind(1)
    assert torch.allclose(found.most_first, most, atol=1e-5) and torch.allclose(found.least_first, least, atol=1e-5)
    assert torch.allclose(found.combined, (least - most) / 2, atol=1e-5)
    assert max(len(seen) for seen in classifier.seen) == batch_size


@pytest.mark.parametrize("solver", ["exact", "iterative"])
def test_exactly_that_many_whole_pixels_go_under_ties(solver):
    """70 % of the map is one value; the least relevant are the most relevant from the other end, also below zero."""
    classifier, (x, _, _) = tiny(lambda x: x.flatten(2).mean(2)), case(1, 10)
    maps = torch.zeros(1, 10, 10)
    maps[0, :3] = -torch.rand(3, 10)
    road(classifier, x, maps, percentiles=(10, 50, 90), noise=0, solver=solver, batch_size=1)
    gone = torch.cat([(seen != x).any(1) for seen in classifier.seen[1:]])
    assert gone.sum((1, 2)).tolist() == [10, 50, 90, 10, 50, 90]
    most, least = gone[:3], gone[3:]
    assert torch.equal(most, ~least.flip(0))  # what is left when the other end has gone


def test_the_order_is_shared():
    x, maps, targets = case()
    rank = rank_each(maps, 0)
    given = road(tiny(), x, maps, targets, rank=rank)
    assert torch.equal(given.combined, road(tiny(), x, maps, targets).combined)
    reverse, straight = road(tiny(), x, maps, targets, rank=15 - rank, noise=0), road(tiny(), x, maps, targets, noise=0)
    assert torch.allclose(reverse.most_first, straight.least_first, atol=1e-6)


def test_seeds_and_pictures():
    x, maps, targets = case()
    one, same, other = (road(tiny(), x, maps, targets, seed=seed, noise=0.3) for seed in (0, 0, 1))
    assert torch.equal(one.combined, same.combined) and not torch.equal(one.combined, other.combined)
    alone = road(tiny(), x[3:4], maps[3:4], targets[3:4], noise=0.3)
    assert torch.allclose(alone.combined[0], one.combined[3], atol=1e-6)
    assert one.protocol["noise"] == 0.3 and one.protocol["pictures"] == 6 and set(one.mean()) > {"combined"}
    assert torch.equal(road(tiny(), x, maps).targets, bent(x).argmax(-1))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"attributions": torch.full((6, 4, 4), torch.nan)}, "image 0 holds NaN"),
        ({"attributions": torch.cat([case(5)[1], torch.ones(1, 4, 4)])}, "image 5 is constant"),
        ({"attributions": torch.rand(6, 2, 2)}, "give one map"),
        ({"percentiles": (50, 100)}, "percentile 100 of 16 pixels"),
        ({"percentiles": ()}, "no percentile"),
        ({"score": "accuracy"}, "unknown score 'accuracy'"),
        ({"solver": "fast"}, "unknown solver 'fast'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"targets": torch.zeros(6, 2, dtype=torch.int64)}, "one class per image"),
    ],
)
def test_wrong_input(change, message):
    x, maps, targets = case()
    with pytest.raises(ExplainerError, match=message):
        road(tiny(), **({"pixel_values": x, "attributions": maps, "targets": targets} | change))
