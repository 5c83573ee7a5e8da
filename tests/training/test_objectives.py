"""Deletion and insertion as a loss."""

import pytest
import torch
import torch.nn.functional as F
from families import build, pictures, processor
from red_cases import FindsRed, generator, red_cells

from hf_explain import ExplainerError, RankingExplainerForImageClassification
from hf_explain.faithfulness import measure
from hf_explain.training.draws import Draws, draw_budgets
from hf_explain.training.objectives import OBJECTIVES, find_objective, peak_penalty, ranking_loss, smooth, soft_masks

OPERATORS = ("sinkhorn", "topk", "coarse_to_fine")


def make(family="resnet", **kwargs):
    return RankingExplainerForImageClassification.from_classifier(build(family), processor(64), preset="tiny", **kwargs)


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_map_finds_known_evidence(operator):
    """After a few steps of the loss the best cell of the map is the one the classifier reads, on new pictures too."""
    torch.manual_seed(0)
    plain = build("resnet")
    plain.config.id2label = {0: "red", 1: "other"}
    classifier = FindsRed(plain.config).eval()
    explainer = RankingExplainerForImageClassification.from_classifier(classifier, processor(64), preset="tiny")
    optimizer = torch.optim.AdamW(explainer.head.parameters(), lr=1e-2)
    objective = find_objective("default", operator=operator, grids=(8, 16), sampled=0, budgets=6)
    steps, losses = 40, []
    explainer.train()
    for step in range(steps):
        loss, _ = ranking_loss(explainer, red_cells(8, step)[0], Draws(0, step), step / steps, objective)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    x, where = red_cells(32, 10_000)
    with torch.no_grad():
        maps = explainer.eval()(x, targets=0).attributions
    best = F.adaptive_avg_pool2d(maps[:, None], 8).flatten(1).argmax(1)
    assert (best == where).float().mean() > 0.9
    assert sum(losses[-5:]) < sum(losses[:5])
    report = measure(explainer.classifier, x, maps, 0, reference="black")
    random = measure(explainer.classifier, x, torch.rand(32, 64, 64, generator=generator()), 0, reference="black")
    assert report.deletion.mean() < random.deletion.mean() - 0.2
    assert report.insertion.mean() > random.insertion.mean() + 0.1


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("family", ["vit", "swin", "resnet"])
def test_only_the_head_gets_a_gradient(name, family):
    explainer = make(family).train()
    loss, log = ranking_loss(explainer, pictures(2), Draws(0), objective=find_objective(name, budgets=5))
    loss.backward()
    assert torch.isfinite(loss) and set(log) == {"deletion", "insertion", "kappa", "column_error", "grid", "tau"}
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in explainer.head.parameters())
    assert all(p.grad is None for p in explainer.classifier.parameters())


def test_the_draws_alone_decide():
    explainer = make()
    one, same, other = (float(ranking_loss(explainer, pictures(2), Draws(s))[0]) for s in (0, 0, 1))
    assert one == same != other


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("reference", ["noise", "blur"])
def test_micro_batches_change_nothing(name, reference):
    """Grid, reference, classes and noise belong to a step and a place in the global batch, not to a batch."""
    explainer = make("vit").train()
    objective = find_objective(name, budgets=4, grids=(4, 12), references=(reference,))

    def gradient(size):
        explainer.zero_grad()
        for first in range(0, 4, size):
            loss, _ = ranking_loss(explainer, x[first : first + size], Draws(7, 3, first), 0.9, objective)
            (loss * size / 4).backward()
        return torch.cat([p.grad.flatten() for p in explainer.head.parameters()])

    x = pictures(4)
    whole = gradient(4)
    for size in (1, 2):
        torch.testing.assert_close(gradient(size), whole, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("operator", ["sinkhorn", "topk"])
def test_the_soft_areas_become_the_hard_ones(operator):
    """At a low temperature, down to single cells: the loss's deletion and insertion are those of `measure`."""
    explainer, x = make("vit"), pictures(2)
    with torch.no_grad():
        output = explainer(x)
    cells = torch.randperm(64, generator=generator()).view(1, 8, 8).float().expand(2, 8, 8)
    maps = cells.repeat_interleave(8, 1).repeat_interleave(8, 2)
    explainer.attribute = lambda *_: maps[:, None]
    objective = find_objective(
        "default",
        operator=operator,
        grids=(8, 8),
        sampled=0,
        budgets=9,
        references=("black",),
        noise=0.0,
        score_both=True,
    )
    seen = {}
    for tau in (1.0, 0.1, 0.01):
        changed = find_objective("default", **{**objective.__dict__, "tau": (tau, tau)})
        log = ranking_loss(explainer, x, Draws(0), objective=changed)[1]
        seen[tau] = torch.tensor([log["deletion"], log["insertion"]])
    classes = output.logits.topk(2).indices
    hard = [measure(explainer.classifier, x, maps, classes[:, c], reference="black", budgets=9) for c in (0, 1)]
    expected = torch.tensor([[float(h.deletion.mean()), float(h.insertion.mean())] for h in hard]).mean(0)
    distances = [float((seen[tau] - expected).abs().max()) for tau in (1.0, 0.1, 0.01)]
    assert distances[0] >= distances[2] and distances[2] < 2e-3


def grids_of(objective, progress):
    return {ranking_loss(make(), pictures(1), Draws(s), progress, objective)[1]["grid"] for s in range(12)}


def test_grids_are_coarse_first_and_single_pixels_then():
    """Unless grids are asked for, or an operator whose memory would not do: those are for the whole run."""
    default = OBJECTIVES["default"]
    first = grids_of(default, 0.1)
    assert min(first) >= 7 and max(first) <= 28 and len(first) > 4
    assert grids_of(default, 0.5) == {64}
    assert grids_of(find_objective("default", operator="topk"), 0.5) == {64}
    assert max(grids_of(find_objective("default", operator="sinkhorn", budgets=3), 1.0)) <= 28
    assert max(grids_of(OBJECTIVES["aha-release"], 1.0)) <= 28
    assert grids_of(find_objective("default", grids=(5, 6)), 1.0) == {5, 6}
    assert grids_of(find_objective("default", grids=(5, 6), coarse=0.5), 0.5) == {64}
    mixed = grids_of(find_objective("default", grids=(7, None)), 1.0)
    assert min(mixed) >= 7 and max(mixed) > 28 and len(mixed) > 4


def test_masks_of_single_pixels():
    shares = torch.linspace(0, 1, 8)[None, 1:-1]
    masks, _, _ = soft_masks(torch.randn(1, 64, 64), shares, 64, 0.01, find_objective("default", noise=0.0), Draws(0))
    assert masks.shape == (1, 6, 64, 64)
    assert torch.allclose(masks.sum((2, 3))[0], torch.linspace(0, 1, 8)[1:-1] * 4096, rtol=1e-3)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"sampled": -1}, "sampled=-1; give 0 for even budgets"),
        ({"references": ()}, "references is empty"),
        ({"tau": (0.0, 0.1)}, "two temperatures above 0"),
        ({"noise": float("nan")}, "noise=nan; give a scale"),
        ({"budgets": 2}, "at least 3 points"),
        ({"operator": "sort"}, "unknown operator 'sort'"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, said):
    with pytest.raises(ExplainerError, match=said):
        find_objective("default", **changes)


def test_sampled_areas_are_right_on_average():
    """Over many draws the mean of a curve at sampled budgets is the area under it."""
    like = torch.zeros(4000, 1)
    shares, weights = draw_budgets(like, Draws(0), sampled=3, even=8)
    assert shares.shape == weights.shape == (4000, 3) and (shares.diff(dim=1) > 0).all()
    assert float((weights * shares**2).sum(1).mean()) == pytest.approx(1 / 3, abs=0.005)
    assert float(weights.sum(1).mean()) == pytest.approx(1, abs=1e-6)


def test_pictures_that_are_not_square():
    explainer = make()
    loss, _ = ranking_loss(explainer, pictures(2, (64, 96)), Draws(0))
    assert torch.isfinite(loss)


def test_one_logit_heads_have_no_runner_up():
    model = build("resnet", num_labels=1)
    model.config.id2label = {0: "cat"}
    model.classifier[1] = torch.nn.Linear(model.classifier[1].in_features, 1)
    explainer = RankingExplainerForImageClassification.from_classifier(model, processor(64), preset="tiny")
    assert torch.isfinite(ranking_loss(explainer, pictures(2), Draws(0))[0])


def test_peak_penalty_in_plain_loops():
    values = torch.randn(1, 6, 6, generator=generator())
    padded = F.pad(values[:, None], [5] * 4, mode="reflect")[0, 0]
    total = 0.0
    for y in range(6):
        for x in range(6):
            total += max(0.0, float(values[0, y, x] - padded[y : y + 11, x : x + 11].mean())) ** 2
    assert abs(float(peak_penalty(values)) - total / 36) < 1e-5


def test_smoothing_keeps_constants_and_ranges():
    masks = torch.rand(1, 3, 16, 16, generator=generator())
    smoothed = smooth(masks, 1.0)
    assert smoothed.shape == masks.shape and smoothed.min() >= 0 and smoothed.max() <= 1
    assert torch.allclose(smooth(torch.ones(1, 1, 9, 9), 1.0), torch.ones(1, 1, 9, 9)) and smoothed.std() < masks.std()


def test_the_release_preset_is_the_release():
    release = OBJECTIVES["aha-release"]
    assert (release.operator, release.grids, release.budgets, release.tau) == ("sinkhorn", (7, 28), 16, (1.0, 0.3))
    assert (release.noise, release.smooth, release.peak) == (1.0, 1.0, 0.0025)
    assert release.references == ("black", "mean", "blur") and release.score_both and release.rank_twice
    assert not release.standardize


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: find_objective("best"), "unknown objective 'best'; choose from default, aha-release"),
        (lambda: find_objective("default", operator="magic"), "unknown operator 'magic'; choose from"),
        (lambda: find_objective("default", budgets=2), "budgets=2; a curve needs"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ExplainerError, match=message):
        call()
