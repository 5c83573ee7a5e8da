"""Bootstrap intervals: do they hold what they say?"""

import numpy as np
import pytest

from hf_explain.faithfulness.intervals import interval, paired


def width(found):
    return found["high"] - found["low"]


# ---- the intervals cover ----


@pytest.mark.parametrize("draw", ["normal", "exponential", "beta"])
def test_they_cover_a_known_mean(draw):
    """In about 95 % of repeated experiments the truth is inside; of skewed values in somewhat fewer."""
    random = np.random.default_rng(0)
    truth, sample = {
        "normal": (0.3, lambda: random.normal(0.3, 0.2, 60)),
        "exponential": (0.5, lambda: random.exponential(0.5, 60)),
        "beta": (1 / 6, lambda: random.beta(0.5, 2.5, 60)),  # as deletion areas are
    }[draw]
    found = [interval(sample(), seed) for seed in range(200)]
    inside = np.mean([f["low"] <= truth <= f["high"] for f in found])
    assert 0.90 <= inside <= 0.98
    assert np.mean([f["low"] > truth for f in found]) < 0.09 > np.mean([f["high"] < truth for f in found])


def test_of_several_models_they_cover_another_training():
    """Models differ more than pictures here: pooling the pictures would promise far too much."""
    random, groups, pooled = np.random.default_rng(0), [], []
    for seed in range(60):
        runs = [random.normal(random.normal(0.5, 0.1), 0.2, 40) for _ in range(8)]
        groups.append(interval(runs, seed))
        pooled.append(interval(np.concatenate(runs), seed))
    covered, too_narrow = (np.mean([f["low"] <= 0.5 <= f["high"] for f in all_]) for all_ in (groups, pooled))
    assert 0.85 <= covered < 1 and too_narrow < 0.75


def test_large_samples_have_the_normal_interval():
    values = np.random.default_rng(1).normal(2.0, 0.5, 1000)
    found = interval(values)
    assert width(found) == pytest.approx(2 * 1.96 * values.std() / 1000**0.5, rel=0.08)
    assert found["high"] - found["mean"] == pytest.approx(found["mean"] - found["low"], rel=0.2)


# ---- identities ----


def test_the_mean_of_models_weighs_each_the_same():
    assert interval([[0.0] * 2, [1.0] * 6])["mean"] == 0.5
    assert interval([1.0, 3.0, 5.0])["mean"] == 3.0


def test_one_model_in_a_list_is_one_model():
    values = np.random.default_rng(2).random(30)
    assert interval([values]) == interval(values) == interval(values.tolist())


def test_shifts_and_scales_go_through():
    values = np.random.default_rng(3).random(30)
    plain, other = interval(values), interval(10 * values - 4)
    assert all(other[key] == pytest.approx(10 * plain[key] - 4) for key in plain)


def test_what_does_not_vary_is_a_point():
    for found in (interval([0.25] * 9), interval([[0.25] * 3, [0.25] * 5]), interval([0.25])):
        assert found == {"mean": 0.25, "low": 0.25, "high": 0.25}


def test_more_pictures_narrow_it_and_the_mean_is_inside():
    values = np.random.default_rng(4).random(400)
    few, many = interval(values[:25]), interval(values)
    assert width(many) < 0.4 * width(few)
    assert all(f["low"] < f["mean"] < f["high"] for f in (few, many))


def test_only_the_seed_is_random():
    values = np.random.default_rng(5).random(20)
    np.random.seed(0)
    one = interval(values, seed=7)
    np.random.seed(1)
    assert one == interval(values, seed=7) and one != interval(values, seed=8)


# ---- paired differences ----


def test_a_paired_difference_has_the_sign_of_ours_minus_theirs():
    assert paired([0.5, 0.6, 0.7], [0.1, 0.2, 0.3]) == {key: pytest.approx(0.4) for key in ("mean", "low", "high")}
    assert paired([0.1], [0.5])["mean"] == pytest.approx(-0.4)
    assert paired([[0.5, 0.6], [0.7, 0.8]], [[0.1, 0.2], [0.3, 0.4]])["low"] == pytest.approx(0.4)


def test_pairing_removes_what_the_pictures_have_in_common():
    random = np.random.default_rng(6)
    hard = random.random(100)  # some pictures are hard for every method
    ours, theirs = hard + 0.05 + random.normal(0, 0.02, 100), hard + random.normal(0, 0.02, 100)
    together = paired(ours, theirs)
    unpaired = (width(interval(ours)) ** 2 + width(interval(theirs)) ** 2) ** 0.5
    assert width(together) < 0.15 * unpaired
    assert 0 < together["low"] < 0.05 < together["high"]
    assert together["mean"] == pytest.approx(ours.mean() - theirs.mean())


def test_paired_is_the_interval_of_differences():
    random = np.random.default_rng(7)
    ours, theirs = random.random((3, 20)), random.random((3, 20))
    assert paired(ours, theirs) == interval(list(ours - theirs))
    assert paired(ours[0], theirs[0], seed=3) == interval(ours[0] - theirs[0], seed=3)
    assert paired(ours, ours) == {"mean": 0.0, "low": 0.0, "high": 0.0}


def test_what_is_not_paired_is_refused():
    with pytest.raises(ValueError, match="zip"):
        paired([[0.1, 0.2], [0.3, 0.4]], [[0.1, 0.2]])
    with pytest.raises(ValueError, match="broadcast"):
        paired([0.1, 0.2, 0.3], [0.1, 0.2])
