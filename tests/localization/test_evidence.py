"""Scores of a map against known evidence, restated in plain loops."""

import pytest
import torch

from hf_explain import ExplainerError
from hf_explain.localization import average_precision, class_discrimination, pointing_game


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(count=6, side=4, seed=0, share=0.3):
    """Maps without ties, and masks with at least one pixel in and one out."""
    random = generator(seed)
    maps, masks = torch.randn(count, side, side, generator=random), torch.zeros(count, side, side, dtype=torch.bool)
    for mask in masks:
        inside = max(1, round(share * mask.numel()))
        mask.view(-1)[torch.randperm(mask.numel(), generator=random)[:inside]] = True
    return maps, masks


def apart(count=6, side=4, seed=0):
    """Maps of two classes, and masks of both that do not overlap."""
    random = generator(seed)
    order = torch.stack([torch.randperm(side * side, generator=random) for _ in range(count)]).view(-1, side, side)
    return *torch.randn(2, count, side, side, generator=random), order < 5, order >= 12


# ---- the formulas ----


def test_average_precision_in_plain_loops():
    maps, masks = draw()
    for value, one, mask in zip(average_precision(maps, masks), maps.flatten(1), masks.flatten(1), strict=True):
        one, mask = one.tolist(), mask.tolist()
        precisions = []
        for here, inside in zip(one, mask, strict=True):
            if inside:
                as_high = [m for other, m in zip(one, mask, strict=True) if other >= here]
                precisions.append(sum(as_high) / len(as_high))
        assert float(value) == pytest.approx(sum(precisions) / len(precisions), abs=1e-6)


def test_class_discrimination_in_plain_loops():
    """The Mann-Whitney statistic: all pairs of a pixel of the one's evidence and one of the other's."""

    def share(values, inside, outside):
        pairs = [(a, b) for a in values[inside].tolist() for b in values[outside].tolist()]
        return sum(a > b for a, b in pairs) / len(pairs)

    one, other, one_mask, other_mask = apart()
    found = class_discrimination(one, other, one_mask, other_mask)
    for i, value in enumerate(found.tolist()):
        expected = share(one[i], one_mask[i], other_mask[i]) + share(other[i], other_mask[i], one_mask[i])
        assert value == pytest.approx(expected / 2, abs=1e-6)
    assert found.std() > 0


def test_pointing_game_in_plain_loops():
    maps, masks = draw(40)
    for value, one, mask in zip(pointing_game(maps, masks).tolist(), maps, masks, strict=True):
        pixels = [(y, x) for y in range(4) for x in range(4)]
        y, x = max(pixels, key=lambda at: float(one[at]))
        assert value == float(mask[y, x])
    assert 0 < pointing_game(maps, masks).mean() < 1


# ---- identities ----


def test_the_mask_itself_is_perfect_and_its_opposite_the_worst():
    _, masks = draw(seed=1)
    assert average_precision(masks.float(), masks).tolist() == [1.0] * 6 == pointing_game(masks.float(), masks).tolist()
    assert pointing_game(-masks.float(), masks).tolist() == [0.0] * 6
    inside = int(masks[0].sum())  # they come last: the k-th of them at place 16 - inside + k
    worst = sum(k / (16 - inside + k) for k in range(1, inside + 1)) / inside
    assert average_precision(-masks.float(), masks).tolist() == pytest.approx([worst] * 6)
    everything = torch.ones(2, 4, 4, dtype=torch.bool)
    assert average_precision(torch.randn(2, 4, 4), everything).tolist() == [1.0, 1.0]


def test_only_the_order_counts():
    maps, masks = draw(seed=2)
    for score in (average_precision, pointing_game):
        assert torch.equal(score(maps, masks), score(maps.mul(3).exp() - 7, masks))
        assert torch.equal(score(maps, masks), score(maps.double(), masks))


def test_discrimination_of_right_wrong_and_blind_maps():
    one, other, one_mask, other_mask = apart(seed=3)
    right = class_discrimination(one_mask.float(), other_mask.float(), one_mask, other_mask)
    wrong = class_discrimination(other_mask.float(), one_mask.float(), one_mask, other_mask)
    assert right.tolist() == [1.0] * 6 and wrong.tolist() == [0.0] * 6
    blind = class_discrimination(one, one, one_mask, other_mask)  # the same map whatever the class
    assert blind.tolist() == pytest.approx([0.5] * 6)
    straight, swapped = (
        class_discrimination(one, other, one_mask, other_mask),
        class_discrimination(other, one, other_mask, one_mask),
    )
    assert torch.allclose(straight, swapped)
    assert torch.allclose(class_discrimination(-one, -other, one_mask, other_mask), 1 - straight)


def test_random_maps_score_as_chance():
    maps, masks = draw(200, side=16, share=0.2)
    assert float(average_precision(maps, masks).mean()) == pytest.approx(0.2, abs=0.02)
    assert float(pointing_game(maps, masks).mean()) == pytest.approx(0.2, abs=0.07)
    others = draw(200, side=16, seed=1)[0]
    assert float(class_discrimination(maps, others, masks, ~masks).mean()) == pytest.approx(0.5, abs=0.01)


# ---- ties ----


def test_ties_are_broken_by_the_seed():
    """A constant map scores as chance over the seeds, not as reading order would have it."""
    flat, corner = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool)
    corner[0, 0, :2] = True
    hits, precision, told = [], [], []
    for seed in range(200):
        hits.append(float(pointing_game(flat, corner, seed)))
        precision.append(float(average_precision(flat, corner, seed)))
        told.append(float(class_discrimination(flat, flat, corner, corner.flip(1), seed)))
    assert sum(hits) / 200 == pytest.approx(1 / 8, abs=0.06)
    assert sum(told) / 200 == pytest.approx(0.5, abs=0.05)
    assert len(set(precision)) > 20 and max(precision) == 1.0 and min(precision) < 0.15
    assert average_precision(flat, corner, 5) == average_precision(flat, corner, 5) == precision[5]


def test_ties_between_two_levels_stay_between_them():
    """Noise orders equal pixels only: the mask's two pixels share the top level with two others."""
    levels, mask = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool)
    levels[0, 0], mask[0, 0, 2:] = 1.0, True
    found = {round(float(average_precision(levels, mask, seed)), 3) for seed in range(60)}
    orders = [(a, b) for a in range(1, 5) for b in range(a + 1, 5)]
    assert found == {round((1 / a + 2 / b) / 2, 3) for a, b in orders}


# ---- edges ----


def test_a_picture_never_depends_on_its_batch():
    """Also where ties are broken."""
    maps, masks = draw(8, seed=4)
    maps = maps.round()
    for score in (average_precision, pointing_game):
        alone = torch.cat([score(maps[i : i + 1], masks[i : i + 1]) for i in range(8)])
        assert torch.equal(score(maps, masks), alone)


def test_pixels_nobody_looked_at_come_last():
    maps, masks = draw(1)
    maps[masks] = torch.nan
    worst = average_precision(-masks.float(), masks)
    assert torch.equal(average_precision(maps, masks), worst) and pointing_game(maps, masks) == 0


def test_not_square_and_not_contiguous():
    maps = torch.randn(3, 6, 5, generator=generator())
    masks = maps.transpose(1, 2) > 0.5
    assert average_precision(maps.transpose(1, 2), masks).tolist() == [1.0] * 3
    assert torch.equal(
        average_precision(-maps.transpose(1, 2), masks), average_precision(-maps.transpose(1, 2).contiguous(), masks)
    )


def test_no_pictures_have_no_scores():
    """Where no prediction was found in its picture there is nothing to measure, and nothing to fail on."""
    none, masks = torch.zeros(0, 4, 4), torch.zeros(0, 4, 4, dtype=torch.bool)
    assert average_precision(none, masks).tolist() == pointing_game(none, masks).tolist() == []
    assert class_discrimination(none, none, masks, masks).tolist() == []


@pytest.mark.parametrize("score", [average_precision, pointing_game])
def test_wrong_input(score):
    maps, masks = draw(3)
    with pytest.raises(ExplainerError, match=r"maps \(3, 4, 4\) and masks \(2, 4, 4\); give \(B, H, W\)"):
        score(maps, masks[:2])
    with pytest.raises(ExplainerError, match=r"maps \(4, 4\) and masks \(4, 4\); give"):
        score(maps[0], masks[0])
    masks[1] = False
    with pytest.raises(ExplainerError, match=r"the mask of image 1 is empty, .*; leave it out"):
        score(maps, masks)


def test_wrong_input_of_two_classes():
    one, other, one_mask, other_mask = apart(3)
    with pytest.raises(ExplainerError, match="the mask of image 2 is empty"):
        other_mask[2] = False
        class_discrimination(one, other, one_mask, other_mask)
