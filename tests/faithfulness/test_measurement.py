"""Deletion and insertion against plain loops, and what must hold for any model."""

import itertools

import pytest
import torch
from families import build, pictures, processor
from metric_cases import tiny

from hf_explain import Classifier, ExplainerError
from hf_explain.faithfulness import PRESETS, measure
from hf_explain.modeling.pixel_space import PixelSpace
from hf_explain.modeling.references import reference_image


def plain_loops(logits, x, maps, targets, reference, points):
    """The `aha` protocol on tiny pictures, one pixel at a time."""
    deletion, insertion = [], []
    count = maps[0].numel()
    for picture, attribution, target in zip(x, maps, targets, strict=True):
        order = sorted(range(count), key=lambda i: -float(attribution.flatten()[i]))
        curves = ([], [])
        for step in range(points):
            k = round(step / (points - 1) * count)
            removed, inserted = picture.clone(), reference.clone()
            for i in order[:k]:
                row, column = divmod(i, attribution.shape[1])
                removed[:, row, column] = reference[:, row, column]
                inserted[:, row, column] = picture[:, row, column]
            for curve, image in zip(curves, (removed, inserted), strict=True):
                curve.append(float(logits(image[None]).softmax(-1)[0, target]))
        for areas, curve in zip((deletion, insertion), curves, strict=True):
            areas.append(sum((a + b) / 2 for a, b in itertools.pairwise(curve)) / (points - 1))
    return torch.tensor(deletion), torch.tensor(insertion)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_it_is_the_protocol_in_plain_loops(batch_size):
    weights = torch.randn(3 * 16, 5, generator=torch.Generator().manual_seed(0))
    logits = lambda x: x.flatten(1) @ weights  # noqa: E731
    x, maps = pictures(3, (4, 4)), torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(2))
    targets = torch.tensor([0, 4, 2])
    report = measure(tiny(logits), x, maps, targets, reference=0.5, budgets=9, batch_size=batch_size)
    gray = reference_image(x[:1], PixelSpace((2, 2, 2), (-1, -1, -1)), 0.5)[0]
    deletion, insertion = plain_loops(logits, x, maps, targets, gray, 9)
    assert torch.allclose(report.deletion, deletion, atol=1e-6)
    assert torch.allclose(report.insertion, insertion, atol=1e-6)


@pytest.mark.parametrize("reference", ["black", "mean", "blur", "noise", 0.3])
def test_a_batch_is_its_pictures(reference):
    classifier, x = Classifier(build("vit"), processor(64)), pictures(3)
    maps = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1))
    together = measure(classifier, x, maps, reference=reference, budgets=5, batch_size=2)
    for i in range(3):
        alone = measure(classifier, x[i : i + 1], maps[i : i + 1], reference=reference, budgets=5)
        assert torch.allclose(alone.curves["deletion"][0], together.curves["deletion"][i], atol=1e-5)
        assert torch.allclose(alone.insertion[0], together.insertion[i], atol=1e-5)


def test_exactly_k_whole_pixels_change():
    """Exactly round(p * P) pixels are gone at each point, all channels of each, also where the map has ties."""
    classifier = tiny(lambda x: torch.stack([x.sum((1, 2, 3)), -x.sum((1, 2, 3))], 1))
    x, maps = pictures(1, (10, 10)), torch.zeros(1, 10, 10)
    maps[0, :3] = torch.rand(3, 10)  # 70 % ties
    measure(classifier, x, maps, reference="black", budgets=5, batch_size=1)
    changed = [(seen != x).sum((1, 2, 3)).item() for seen in classifier.seen]
    whole = [(seen != x).any(1).sum().item() * 3 for seen in classifier.seen]
    assert (
        changed == whole == [0, 300, 75, 150, 225, 75, 150, 225]
    )  # clean, blank, then deletion, and insertion read backwards


def test_ends_are_shared_and_forwarded_once():
    classifier = tiny(lambda x: torch.stack([x.sum((1, 2, 3)), x[:, 0].sum((1, 2))], 1))
    report = measure(classifier, pictures(2, (8, 8)), torch.rand(2, 8, 8), budgets=6, batch_size=100)
    assert sum(len(seen) for seen in classifier.seen) == 2 * (2 * 6 - 2) - 1  # a color is the same for both
    assert torch.equal(report.curves["deletion"][:, 0], report.curves["insertion"][:, -1])
    assert torch.equal(report.curves["deletion"][:, -1], report.curves["insertion"][:, 0])


def test_a_constant_model_is_constant():
    report = measure(
        tiny(lambda x: torch.tensor([[1.0, 0.0]]).expand(len(x), 2)), pictures(2, (8, 8)), torch.rand(2, 8, 8)
    )
    p = torch.tensor([1.0, 0.0]).softmax(0)[0]
    assert torch.allclose(report.deletion, p.expand(2)) and torch.allclose(report.insertion, p.expand(2))


def test_a_known_cell_is_best_and_its_opposite_worst():
    """A classifier that reads one cell: the map that knows it deletes at once, its negative never before the end."""
    classifier = tiny(lambda x: torch.stack([20 * x[:, :, 2:4, 2:4].mean((1, 2, 3)), torch.zeros(len(x))], 1))
    x = torch.ones(1, 3, 10, 10)
    known = torch.zeros(1, 10, 10)
    known[0, 2:4, 2:4] = 1
    good, bad = (measure(classifier, x, m, reference="black") for m in (known, -known))
    assert good.deletion < 0.06 and good.insertion > 0.94 and bad.deletion > 0.94 and bad.insertion < 0.06


def test_insertion_is_the_reverse_of_removing_the_least_important_first():
    classifier, x = Classifier(build("vit"), processor(64)), pictures(2)
    maps = torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(1))
    one = measure(classifier, x, maps, [1, 2], budgets=17)
    other = measure(classifier, x, -maps, [1, 2], budgets=17)
    assert torch.allclose(one.insertion, other.deletion, atol=1e-6)
    assert torch.allclose(one.curves["insertion"].flip(1), other.curves["deletion"], atol=1e-5)


def test_ties_are_broken_by_the_seed_only():
    classifier, x = Classifier(build("vit"), processor(64)), pictures(2)
    maps = torch.zeros(2, 64, 64)
    maps[:, :8] = 1
    one, same, other = (measure(classifier, x, maps, seed=s) for s in (0, 0, 1))
    assert torch.equal(one.deletion, same.deletion) and not torch.equal(one.deletion, other.deletion)


def test_one_target_for_all_and_the_prediction_by_default():
    classifier, x = Classifier(build("vit"), processor(64)), pictures(3)
    maps = torch.rand(3, 64, 64)
    assert torch.equal(measure(classifier, x, maps, 1).deletion, measure(classifier, x, maps, [1, 1, 1]).deletion)
    with torch.no_grad():
        assert measure(classifier, x, maps).targets.equal(classifier(x).argmax(-1))


def test_a_bare_model_needs_its_processor():
    x, maps = pictures(1), torch.rand(1, 64, 64)
    with_it = measure(build("vit"), x, maps, image_processor=processor(64))
    assert torch.equal(with_it.deletion, measure(Classifier(build("vit"), processor(64)), x, maps).deletion)
    with pytest.raises(ExplainerError, match="give image_processor="):
        measure(build("vit"), x, maps)


def test_the_protocol_comes_with_the_numbers():
    report = measure(Classifier(build("vit"), processor(64)), pictures(2), torch.rand(2, 64, 64), reference="blur")
    assert report.protocol == {
        "name": "aha", "curves": {"deletion": "deletion, probability", "insertion": "insertion, probability"},
        "reference": "blur", "start": None, "budgets": 21, "step": None, "end": 1.0, "rounding": "round",
        "level": "pixel", "patch": None, "clean": True, "area": "unit", "label": "explained", "seed": 0, "pictures": 2,
        "size": [64, 64],
    }  # fmt: skip
    assert report.curves["deletion"].shape == (2, 21) and set(report.mean()) == {"deletion", "insertion"}
    assert PRESETS["aha"].reference == "mean"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"attributions": torch.rand(2, 8, 8)}, "give one map"),
        ({"attributions": torch.full((2, 64, 64), float("nan"))}, "image 0 holds NaN"),
        ({"attributions": torch.cat([torch.rand(1, 64, 64), torch.ones(1, 64, 64)])}, "image 1 is constant"),
        ({"preset": "best"}, "unknown preset 'best'; choose from aha"),
        ({"reference": "grey"}, "unknown reference 'grey'"),
        ({"steps": 3}, "unknown argument steps"),
        ({"budgets": 2}, "at least 3 points"),
        ({"score": "accuracy"}, "unknown score 'accuracy'; choose from probability"),
        ({"level": "patch"}, "a size of patches belongs to level='patch'"),
        ({"patch": 7}, "patch=7 does not divide pictures of 64 x 64"),
        ({"budgets": None}, "give one of the two"),
        ({"budgets": 5, "step": 5}, "give one of the two"),
        ({"step": 0}, "at least 1, or 'row'"),
        ({"end": 1.5}, "the last share"),
        ({"area": "sum"}, "area='sum'; choose from unit"),
        ({"preset": "ltx"}, "scores the true class; give targets="),
        ({"targets": [0, 1, 2]}, "targets of shape .3,. for 2 images"),
        ({"targets": [0, 9]}, "target 9 is no class"),
        ({"targets": [[0, 1], [1, 0]]}, "give one class per map"),
    ],
)
def test_wrong_input(change, message):
    arguments = {"pixel_values": pictures(2), "attributions": torch.rand(2, 64, 64), **change}
    with pytest.raises(ExplainerError, match=message):
        measure(Classifier(build("vit"), processor(64)), **arguments)
