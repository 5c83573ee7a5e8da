"""Infidelity and max-sensitivity against plain loops."""

import pytest
import torch
from metric_cases import bent, case, score, tiny

from hf_explain import METHODS, ExplainerError
from hf_explain.faithfulness.robustness import SP, infidelity, max_sensitivity


def noises(draws, seed, deviation):
    return deviation * 2 * torch.randn(draws, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def blocks(picture, draws, grids, seed):
    """What cell after cell of a random gray leaves of a picture."""
    random, states = torch.Generator().manual_seed(seed), []
    for _ in range(draws):
        for grid in grids:
            altered, side = picture.clone(), 4 // grid
            grays = torch.rand(grid * grid, generator=random).tolist()
            for cell, gray in enumerate(grays):
                top, left = cell // grid * side, cell % grid * side
                altered[:, top : top + side, left : left + side] = 2 * gray - 1
                states.append(altered.clone())
    return states


def infidelity_in_loops(picture, attribution, target, states, normalize):
    said, done = [], []
    for altered in states:
        said.append(
            sum(float(attribution[y, x] * (picture - altered)[:, y, x].sum()) for y in range(4) for x in range(4))
        )
        done.append(score(picture, target) - score(altered, target))
    beta = sum(a * b for a, b in zip(said, done, strict=True)) / sum(a * a for a in said) if normalize else 1
    return sum((beta * a - b) ** 2 for a, b in zip(said, done, strict=True)) / len(states)


@pytest.mark.parametrize("batch_size", [1, 3, 6, 40])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("perturbation", ["noise", "blocks"])
def test_infidelity_in_plain_loops(perturbation, normalize, batch_size):
    x, maps, targets = case()
    classifier = tiny()
    found = infidelity(
        classifier, x, maps, targets, perturbation=perturbation, draws=4 if perturbation == "noise" else 1,
        deviation=0.2, normalize=normalize, seed=3, batch_size=batch_size,
    )  # fmt: skip
    for value, picture, attribution, target in zip(found, x, maps, targets, strict=True):
        if perturbation == "noise":
            states = [picture - noise for noise in noises(4, 3, 0.2)]
        else:
            states = blocks(picture, 1, (2, 4), 3)
        expected = infidelity_in_loops(picture, attribution, target, states, normalize)
        assert float(value) == pytest.approx(expected, rel=1e-4)
    assert max(len(seen) for seen in classifier.seen) <= batch_size


def test_a_linear_model_is_explained_by_its_weights():
    """The same weight for all channels, which is what a map of one value per pixel can say."""
    weights = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
    x, _, _ = case()
    linear = tiny(lambda x: torch.stack([(x * weights).sum((1, 2, 3)), torch.zeros(len(x))], 1))
    maps = weights.expand(6, 4, 4)
    for perturbation in ("noise", "blocks"):
        assert infidelity(linear, x, maps, 0, perturbation=perturbation).max() < 1e-9
        assert infidelity(linear, x, 3 * maps, 0, perturbation=perturbation).min() > 1e-3
        assert infidelity(linear, x, 3 * maps, 0, perturbation=perturbation, normalize=True).max() < 1e-9


def curved(classifier, pixel_values, targets):
    """Maps that depend on the picture and the class."""
    return torch.sin(3 * pixel_values).sum(1) * (1 + targets)[:, None, None] + pixel_values[:, 0] ** 2


@pytest.mark.parametrize("batch_size", [1, 3, 6, 40])
def test_max_sensitivity_in_plain_loops(batch_size):
    x, _, targets = case()
    largest = []

    def method(classifier, pixel_values, targets):
        largest.append(len(pixel_values))
        return curved(classifier, pixel_values, targets)

    found = max_sensitivity(tiny(), x, targets, method=method, draws=5, radius=0.05, seed=2, batch_size=batch_size)
    drawn = 0.05 * (2 * torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(2)) - 1)
    for value, picture, target in zip(found, x, targets[:, None], strict=True):
        clean = curved(None, picture[None], target)[0]
        moved = [curved(None, (picture - 2 * noise)[None], target)[0] - clean for noise in drawn]
        length = lambda v: sum(float(n) ** 2 for n in v.flatten()) ** 0.5  # noqa: E731
        assert float(value) == pytest.approx(max(map(length, moved)) / length(clean), rel=1e-4)
    assert max(largest) <= batch_size


def test_seeds_pictures_and_settings():
    x, maps, targets = case()
    metrics = {
        "infidelity": lambda at, **more: infidelity(tiny(), x[at], maps[at], targets[at], **more),
        "max_sensitivity": lambda at, **more: max_sensitivity(tiny(), x[at], targets[at], method=curved, **more),
    }
    for name, metric in metrics.items():
        one, same, other = (metric(slice(None), seed=seed) for seed in (0, 0, 1))
        assert torch.equal(one, same) and not torch.equal(one, other)
        assert torch.allclose(metric(slice(4, 5)), one[4:5], rtol=1e-4)
        assert metric(slice(None), **SP[name]).shape == (6,)


def test_a_real_method():
    weights = torch.randn(3 * 16, 5, generator=torch.Generator().manual_seed(1))
    classifier = tiny(lambda x: x.flatten(1) @ weights)
    x, _, targets = case()
    for batch_size in (1, 5, 32):  # also where a batch is of one picture
        found = max_sensitivity(classifier, x, targets, method=METHODS["gradient"], batch_size=batch_size)
        assert found.tolist() == [0.0] * 6


@pytest.mark.parametrize("bad, message", [(torch.nan, "image 1 holds NaN"), (0.5, "image 1 is constant")])
def test_broken_maps(bad, message):
    x, maps, targets = case()
    maps[1] = bad
    with pytest.raises(ExplainerError, match=message):
        infidelity(tiny(bent), x, maps, targets)
    with pytest.raises(ExplainerError, match=message):
        max_sensitivity(tiny(bent), x, targets, method=lambda *_: maps)


def test_wrong_input():
    with pytest.raises(ExplainerError, match="unknown perturbation 'squares'"):
        infidelity(tiny(), *case(), perturbation="squares")
    with pytest.raises(ExplainerError, match="draws=0"):
        infidelity(tiny(), *case(), draws=0)
    with pytest.raises(ExplainerError, match="draws=0"):
        max_sensitivity(tiny(), case()[0], method=curved, draws=0)
