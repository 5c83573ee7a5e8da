"""Masked confidence and information curves against plain loops."""

import io
import itertools
import math

import numpy as np
import PIL.Image
import pytest
import torch
from metric_cases import bent, case, pixels, score, tiny

from hf_explain import ExplainerError
from hf_explain.faithfulness.information import THRESHOLDS, file_size, information_curves, interpolate, why_skipped
from hf_explain.faithfulness.masked_confidence import LTX, masked_confidence

# ---- a picture under its mask ----


@pytest.mark.parametrize("batch_size", [1, 3, 6, 4])
@pytest.mark.parametrize("normalize", [False, True])
def test_average_drop_and_increase_in_plain_loops(normalize, batch_size):
    x, maps, targets = case()
    maps = maps if normalize else maps.sigmoid()
    found = masked_confidence(tiny(), x, maps, targets, normalize=normalize, batch_size=batch_size)
    drops, increases = [], []
    for picture, mask, target in zip(x, maps, targets, strict=True):
        altered = picture.clone()
        for y, u in pixels():
            m = float(mask[y, u])
            if normalize:
                m = (m - float(mask.min())) / float(mask.max() - mask.min())
            rgb = (picture[:, y, u] + 1) / 2  # black is 0 in pixel space, -1 in the processor's
            altered[:, y, u] = 2 * (rgb * m) - 1
        full, masked = score(picture, target, "probability"), score(altered, target, "probability")
        drops.append(100 * max(0, full - masked) / full)
        increases.append(100.0 * (full < masked))
    assert found.drop.tolist() == pytest.approx(drops, abs=1e-3) and found.increase.tolist() == increases
    assert 0 < sum(increases) < 600
    assert found.mean() == pytest.approx(
        {"average_drop": sum(drops) / 6, "increase_in_confidence": sum(increases) / 6}, abs=1e-3
    )


def test_a_mask_of_nearly_ones_changes_nothing():
    x, _, targets = case()
    masks = torch.ones(6, 4, 4)
    masks[:, 0, 0] = 1 - 1e-6
    found = masked_confidence(tiny(), x, masks, targets, **LTX)
    assert torch.allclose(found.full, found.masked, atol=1e-5) and found.drop.max() < 1e-2


def test_masks_are_in_their_range_and_rank_something():
    x, maps, targets = case()
    with pytest.raises(ExplainerError, match=r"image 0 goes from .* give normalize=True"):
        masked_confidence(tiny(), x, maps, targets)
    for bad, message in ((torch.nan, "image 1 holds NaN"), (0.5, "image 1 is constant")):
        broken = maps.sigmoid()
        broken[1] = bad
        with pytest.raises(ExplainerError, match=message):
            masked_confidence(tiny(), x, broken, targets)
        with pytest.raises(ExplainerError, match=message):
            information_curves(tiny(), x, broken, targets)


# ---- information curves ----


def sure(x):
    """Logits of a classifier that is sure of class 0 where pictures are what they are, and unsure when they blur."""
    detail = (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3))
    return torch.stack([20 * (detail - 0.25), torch.zeros(len(x))], 1)


def photographs(count=6, side=16):
    """Noise of rising strength, as 8-bit pictures in the processor's space; the weakest have little detail."""
    random = torch.Generator().manual_seed(0)
    strength = torch.linspace(0.05, 1, count).view(-1, 1, 1, 1)
    rgb = ((torch.rand(count, 3, side, side, generator=random) - 0.5) * strength + 0.5).mul(255).round() / 255
    maps = torch.randn(count, side, side, generator=random)
    return 2 * rgb - 1, maps


def size_of(picture):
    file = io.BytesIO()
    PIL.Image.fromarray(picture).save(file, format="webp", lossless=True, quality=100)
    return len(file.getvalue())


def curve_in_loops(x, attribution, thresholds, kind, seed, points):
    """One picture, after the released description: quantiles of the map, sizes and scores scaled, then interpolated."""
    side = len(attribution)
    picture = ((x + 1) / 2 * 255).round().byte().permute(1, 2, 0).numpy()
    always = np.zeros(side * side, bool)
    always[torch.randperm(side * side, generator=torch.Generator().manual_seed(seed))[: int(0.1 * side * side)]] = True
    always = always.reshape(side, side)

    def judge(shown):
        return score((torch.from_numpy(shown).float() / 255 * 2 - 1).permute(2, 0, 1), 0, kind, sure)

    def blurred(known):
        known = known.copy()
        for y in (0, -1):
            for u in (0, -1):
                known[y, u] = True
        return interpolate(picture, known)

    start = blurred(always)
    low, high = judge(start), judge(picture)
    small, large = size_of(start), size_of(picture)
    if high < 0.8 or small >= large or low >= high:
        return None
    knots, best = [], 0.0
    for threshold in thresholds:
        shown = blurred(always | (attribution.numpy() >= np.quantile(attribution.numpy(), 1 - threshold)))
        at = min(max((size_of(shown) - small) / (large - small), 0), 1)
        best = max(best, min(max((judge(shown) - low) / (high - low), 0), 1))
        knots.append((at, best))
    knots = sorted([*knots, (0, 0), (1, 1)], key=lambda knot: knot[0])
    curve = []
    for step in range(points):
        curve.append(float(np.interp(step / points, *zip(*knots, strict=True))))
    return [*curve, 1.0]


@pytest.mark.parametrize("batch_size", [1, 3, 6, 4])
def test_information_curves_in_plain_loops(batch_size):
    x, maps = photographs()
    thresholds = (0.1, 0.3, 0.55, 0.8)
    found = information_curves(
        tiny(sure), x, maps, 0, thresholds=thresholds, start_share=0.1, points=20, seed=3, batch_size=batch_size
    )
    skipped = 0
    for name, kind in (("sic", "probability"), ("aic", "indicator")):
        for i in range(6):
            expected = curve_in_loops(x[i], maps[i], thresholds, kind, 3, 20)
            if expected is None:
                skipped += 1
                assert found[name].area[i].isnan() and found[name].curve[i].isnan().all()
            else:
                assert found[name].curve[i].tolist() == pytest.approx(expected, abs=1e-5)
                area = sum((a + b) / 2 / 20 for a, b in itertools.pairwise(expected))
                assert float(found[name].area[i]) == pytest.approx(area, abs=1e-5)
    assert 0 < skipped < 12
    assert sum(sum(result.skipped.values()) for result in found.values()) == skipped
    kept = found["sic"].area[~found["sic"].area.isnan()]
    assert found["sic"].mean() == pytest.approx(float(kept.mean()), abs=1e-6)
    assert 0 <= found["sic"].of_median_curve() <= 1


def test_what_is_skipped_is_counted_by_reason():
    sizes, scores = np.array([10.0, 15, 20]), np.array([0.1, 0.5, 0.9])
    assert why_skipped(sizes, scores, 0.8) is None
    assert why_skipped(sizes, scores - 0.2, 0.8) == "score too low"
    assert why_skipped(sizes[::-1], scores, 0.8) == "no smaller file"
    assert why_skipped(sizes, np.array([0.95, 0.5, 0.9]), 0.8) == "no lower score"
    x, maps = photographs()
    all_out = information_curves(tiny(bent_of(x)), x, maps, 0, least_score=1.1)["sic"]
    assert (
        all_out.skipped["score too low"] == 6 and math.isnan(all_out.mean()) and math.isnan(all_out.of_median_curve())
    )


def bent_of(x):
    weights = torch.randn(x[0].numel(), 5, generator=torch.Generator().manual_seed(0))
    return lambda x: x.flatten(1) @ weights


def test_interpolation_keeps_what_is_known_and_planes():
    plane = np.stack([np.add.outer(np.arange(8), 2 * np.arange(8)) + c for c in range(3)], -1).astype(np.uint8)
    known = np.zeros((8, 8), bool)
    known[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    assert np.array_equal(interpolate(plane, known), plane)
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    known |= np.random.default_rng(1).random((8, 8)) < 0.4
    assert np.array_equal(interpolate(noise, known)[known], noise[known])
    assert file_size(noise) == size_of(noise) > file_size(plane)


def test_ties_and_seeds_of_information_curves():
    """With ties in the map, as many pixels are shown as without."""
    x, maps = photographs()
    tied = torch.zeros_like(maps)
    tied[:, 0] = 1
    one, same, other = (information_curves(tiny(sure), x, tied, 0, seed=s)["sic"].area for s in (0, 0, 1))
    assert torch.equal(one.nan_to_num(), same.nan_to_num()) and not torch.equal(one.nan_to_num(), other.nan_to_num())
    alone = information_curves(tiny(sure), x[5:], tied[5:], 0)["sic"].area
    assert torch.allclose(alone, one[5:], atol=1e-6)


@pytest.mark.parametrize("thresholds", [(), (0.5, 0.1), (0.0, 0.5), (0.5, 1.0)])
def test_thresholds_rise(thresholds):
    with pytest.raises(ExplainerError, match="give rising shares"):
        information_curves(tiny(bent), *case(), thresholds=thresholds)
    assert list(THRESHOLDS) == sorted(THRESHOLDS)
