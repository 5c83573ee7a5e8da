"""The smallest region of learned maps, and Vision DiffMask's minimal subset; of plain maps see test_protocols."""

import pytest
import torch
from families import build, processor

from hf_explain import (
    DiffMaskExplainerForImageClassification,
    ExplainerError,
    RankingExplainerForImageClassification,
    smallest_region,
)


@pytest.fixture(scope="module")
def gated():
    """With gates of any opening."""
    explainer = DiffMaskExplainerForImageClassification.from_classifier(build("vit"), processor(64), seed=1)
    with torch.no_grad():
        for gate in explainer.head.gates:
            gate.start.fill_(0.5)
    return explainer


def pictures(explainer, count=5):
    return torch.randn(count, 3, *explainer.config.image_size, generator=torch.Generator().manual_seed(0))


def test_the_minimal_subset_in_plain_loops(gated):
    """Cells in the order of their votes, all others the placeholder, down to the last that keeps the prediction."""
    x = pictures(gated)
    found, votes = smallest_region(gated, x), gated.votes(x)
    side = votes.kept.shape[1]
    for i in range(len(x)):
        order = votes.kept[i].flatten().argsort(descending=True)
        assert len(votes.kept[i].unique()) == side * side
        enough = side * side
        for count in range(side * side, -1, -1):
            gates = torch.zeros(side * side)
            gates[order[:count]] = 1
            with torch.no_grad():
                logits = gated.classify_gated(x[i : i + 1], gates.view(1, side, side))
            if int(logits.argmax()) != int(votes.logits[i].argmax()):
                break
            enough = count
        assert found.shares[i] * side * side == pytest.approx(enough)
        cells = torch.nn.functional.adaptive_avg_pool2d(found.masks[i][None].float(), side)[0]
        assert set(cells.flatten().nonzero().flatten().tolist()) == set(order[:enough].tolist())
    assert found.agreement[1.0] == 1 and found.protocol["reference"] == "placeholder"


def test_batches_change_nothing(gated):
    x = pictures(gated)
    one, other = (smallest_region(gated, x, batch_size=size) for size in (2, 32))
    assert torch.equal(one.masks, other.masks) and one.agreement == other.agreement


def test_an_explainer_gives_its_own_maps(gated):
    """Also Vision DiffMask, where a color is asked for."""
    ranking = RankingExplainerForImageClassification.from_classifier(build("vit"), processor(64), preset="tiny")
    for explainer in (ranking, gated):
        x = pictures(explainer)
        with torch.no_grad():
            maps = explainer(x).attributions
        own = smallest_region(explainer, x, reference="black", budgets=9)
        given = smallest_region(explainer.classifier, x, maps, reference="black", budgets=9)
        assert torch.equal(own.masks, given.masks) and own.protocol["reference"] == "black"


def test_what_is_missing(gated):
    x = pictures(gated)
    with pytest.raises(ExplainerError, match="attributions is missing; give maps"):
        smallest_region(gated.classifier, x)
    with pytest.raises(ExplainerError, match="leave attributions out"):
        smallest_region(gated, x, torch.rand(5, *x.shape[-2:]), reference="placeholder")
    with pytest.raises(ExplainerError, match="is not predicted as class"):
        smallest_region(gated, x, targets=(gated.votes(x).logits.argmax(-1) + 1) % gated.config.num_labels)
