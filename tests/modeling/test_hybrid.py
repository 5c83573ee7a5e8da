"""What explainers may have beside the head: the classifier's slope, and the neighborhood of finished maps."""

import json

import numpy as np
import pytest
import torch
from explainer_cases import make
from families import build, pictures, processor
from transformers import AutoModel

import hf_explain
from hf_explain import ExplainerError, ExplainerForImageClassification
from hf_explain.explaining.auto import EXPLAINERS
from hf_explain.modeling.modeling_ranking import add_neighborhood
from hf_explain.modeling.slopes import slopes
from hf_explain.training.draws import Draws
from hf_explain.training.objectives import find_objective, ranking_loss

# ---- hybrids, which also see the classifier's slope ----

several_kinds = pytest.mark.parametrize("family", ["vit", "swin", "resnet"])


def hybrid(family="swin", **kwargs):
    return make(hf_explain.RankingExplainerForImageClassification, family, hybrid=True, **kwargs)


@several_kinds
def test_a_hybrid_is_saved_and_loaded(family, tmp_path):
    explainer, targets = hybrid(family), [[0, 3], [1, 1]]
    explainer.save_pretrained(tmp_path)
    for load in (ExplainerForImageClassification, AutoModel):
        again, info = load.from_pretrained(tmp_path, output_loading_info=True)
        assert again.config.hybrid is True and not info["missing_keys"] and not info["unexpected_keys"]
        with torch.no_grad():
            one, other = (e(pictures(), targets=targets).attributions for e in (again, explainer))
        assert torch.equal(one, other)


@several_kinds
@torch.no_grad()
def test_a_hybrid_is_the_plain_head_and_what_the_slopes_say(family):
    """It has a few weights more, and mixes slopes into the maps of the others."""
    explainer, plain, x = hybrid(family), make(EXPLAINERS[0], family), pictures()
    missing, more = plain.head.load_state_dict(explainer.head.state_dict(), strict=False)
    assert missing == [] and more and all(name.startswith("mix.") for name in more)
    targets = torch.tensor([[0, 3], [1, 2]])
    found, base = (e(x, targets=targets).attributions for e in (explainer, plain))
    features = explainer.head.decoder(x, explainer.read(x)[1])[-1]
    mixed = explainer.head.mix(base, features, slopes(explainer.classifier, x, targets))
    assert torch.allclose(found, mixed, atol=1e-4) and (mixed - base).std() > 0.1


def test_checkpoints_of_plain_explainers_stay_as_they_are(tmp_path):
    """Also those from before there were hybrids, whose config does not say."""
    explainer = make(EXPLAINERS[0])
    explainer.save_pretrained(tmp_path)
    assert not any("mix" in name for name in explainer.state_dict())
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("hybrid", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    again, info = ExplainerForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert again.config.hybrid is False and not info["missing_keys"] and not info["unexpected_keys"]
    calls = []
    handle = again.classifier.model.register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        assert torch.equal(again(pictures()).attributions, explainer(pictures()).attributions)
    handle.remove()
    assert len(calls) == 1  # it pays for no slope


@several_kinds
@torch.no_grad()
def test_a_hybrid_explains_several_classes_as_one_by_one(family):
    explainer, x = hybrid(family), pictures(3)
    several = explainer(x, targets=[[0, 4, 2], [1, 1, 3], [2, 0, 4]]).attributions
    assert several.shape == (3, 3, 64, 64) and torch.isfinite(several).all()
    for t, column in enumerate(([0, 1, 2], [4, 1, 0], [2, 3, 4])):
        assert torch.allclose(explainer(x, targets=column).attributions, several[:, t], atol=1e-4)
    assert not torch.allclose(several[0, 0], several[0, 1], atol=1e-2)
    assert torch.allclose(several[1, 0], several[1, 1], atol=1e-4)


@several_kinds
@torch.no_grad()
def test_a_hybrid_never_depends_on_the_batch(family):
    explainer, x = hybrid(family), pictures(3)
    together = explainer(x, targets=[[0, 1]] * 3).attributions
    alone = torch.cat([explainer(x[i : i + 1], targets=[[0, 1]]).attributions for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-4)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_hybrid_works_where_gradients_are_off(context):
    explainer = hybrid("vit")
    expected = explainer(pictures(), targets=[[0, 1], [2, 3]]).attributions
    assert expected.requires_grad  # by the head's weights
    with context():
        found = explainer(pictures(), targets=torch.tensor([[0, 1], [2, 3]])).attributions
    assert not found.requires_grad and torch.allclose(found, expected.detach(), atol=1e-5)


def test_a_hybrid_of_a_bf16_classifier(tmp_path):
    make_hybrid = hf_explain.RankingExplainerForImageClassification.from_classifier
    explainer = make_hybrid(build("swin").to(torch.bfloat16), processor(64), preset="tiny", hybrid=True)
    explainer.save_pretrained(tmp_path)
    again = ExplainerForImageClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        one, other, full = (e(pictures(), targets=1).attributions for e in (explainer, again, hybrid("swin")))
    assert (
        explainer.head.mix.weigh.weight.dtype == torch.float32 == one.dtype and again.classifier.dtype == torch.bfloat16
    )
    assert torch.equal(one, other)
    assert torch.corrcoef(torch.stack([one.flatten(), full.flatten()]))[0, 1] > 0.98


@several_kinds
def test_only_the_head_of_a_hybrid_trains(family):
    """By the loss it is trained with: every weight of the head, the mix's too, and none of the classifier."""
    explainer = hybrid(family).train()
    before = {name: p.clone() for name, p in explainer.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in explainer.parameters() if p.requires_grad], lr=1e-2)
    loss, _ = ranking_loss(explainer, pictures(2), Draws(0), objective=find_objective("default", budgets=4))
    loss.backward()
    assert torch.isfinite(loss) and all(p.grad is None for p in explainer.classifier.parameters())
    assert all(p.grad.abs().sum() > 0 for p in explainer.head.mix.parameters())
    optimizer.step()
    moved = {name for name, p in explainer.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if name.startswith("head.")}


def test_the_loss_trains_the_mix():
    """With nothing but the weights of the slopes free, deletion and insertion of the same pictures improve."""
    explainer, x = hybrid("resnet").train(), pictures(2)
    with torch.no_grad():  # the logits of a random classifier hardly move; these do
        for p in explainer.classifier.model.classifier.parameters():
            p.mul_(20)
    objective = find_objective("default", budgets=4, grids=(16, 16), references=("black",), noise=0.0, runner_up=0.0)
    optimizer = torch.optim.AdamW(explainer.head.mix.parameters(), lr=0.2)
    losses = []
    for _ in range(6):
        loss, _ = ranking_loss(explainer, x, Draws(0), 1.0, objective)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.02, losses


def test_gradients_with_respect_to_pixels_of_a_hybrid():
    explainer = hybrid("vit")
    x = pictures().requires_grad_(True)
    (gradient,) = torch.autograd.grad(explainer(x, targets=0).attributions.square().sum(), x)
    assert (gradient.flatten(1).abs().sum(1) > 0).all()


def test_hybrid_is_true_or_false():
    with pytest.raises(ExplainerError, match="hybrid=1; give True or False"):
        make(EXPLAINERS[0], hybrid=1)


def test_a_hybrid_needs_to_know_how_colors_are_written():
    with pytest.raises(ExplainerError, match="hybrid=True shows the classifier black and white pictures"):
        hf_explain.RankingExplainerForImageClassification.from_classifier(build("resnet"), preset="tiny", hybrid=True)


def test_slope_references_travel_with_the_checkpoint(tmp_path):
    """A hybrid means what it was trained with, whatever the default becomes."""
    explainer = hf_explain.RankingExplainerForImageClassification.from_classifier(
        build("resnet"), processor(64), preset="tiny", hybrid=True, slope_references=["mean", 0.25]
    )
    explainer.save_pretrained(tmp_path)
    again = hf_explain.RankingExplainerForImageClassification.from_pretrained(tmp_path)
    assert again.config.slope_references == ["mean", 0.25] and again.head.mix.weigh.out_channels == 2 * 3
    torch.testing.assert_close(again(pictures(2)).attributions, explainer(pictures(2)).attributions)


# ---- the neighborhood that finished maps gain ----


def plain_neighborhood(values, size):
    """One map, pixel by pixel."""
    height, width, reach = *values.shape, size // 2
    means = np.empty_like(values)
    for i, j in np.ndindex(height, width):
        means[i, j] = values[max(i - reach, 0) : i + reach + 1, max(j - reach, 0) : j + reach + 1].mean()
    return sum((v - v.mean()) / v.std() for v in (values, means))


@pytest.mark.parametrize("size", [3, 15])
def test_the_mean_of_the_neighborhood_is_added(size):
    maps = torch.randn(2, 2, 12, 20)
    found = add_neighborhood(maps, size)
    for i, j in np.ndindex(2, 2):
        expected = plain_neighborhood(maps[i, j].double().numpy(), size)
        np.testing.assert_allclose(found[i, j].numpy(), expected, atol=1e-5)
    assert add_neighborhood(maps, 1) is maps
    assert torch.equal(add_neighborhood(torch.zeros(1, 1, 4, 4), 3), torch.zeros(1, 1, 4, 4))  # nothing to divide by


def test_an_object_comes_before_a_stray_pixel():
    maps = torch.zeros(1, 1, 32, 32)
    maps[..., 8:16, 8:16], maps[..., 28, 28] = 1.0, 1.1
    assert maps.flatten().argmax() == 28 * 32 + 28
    row, column = divmod(int(add_neighborhood(maps, 9).flatten().argmax()), 32)
    assert 8 <= row < 16 and 8 <= column < 16


def test_the_neighborhood_is_of_finished_maps_only(tmp_path):
    """Training does not see it; the checkpoint carries it, and it can be changed."""
    explainer, plain, x = hybrid(neighborhood=5), hybrid(), pictures()
    with torch.no_grad():
        one, other = (float(ranking_loss(e, x, Draws(seed=0))[0]) for e in (explainer, plain))
        assert one == other
        raw = plain(x, targets=[[0, 3], [1, 2]]).attributions
        found = explainer(x, targets=[[0, 3], [1, 2]]).attributions
        assert torch.equal(found, add_neighborhood(raw, 5)) and not torch.equal(found, raw)
        explainer.save_pretrained(tmp_path)
        again = ExplainerForImageClassification.from_pretrained(tmp_path)
        assert torch.equal(again(x, targets=[[0, 3], [1, 2]]).attributions, found)
        again.config.neighborhood = 1
        assert torch.equal(again(x, targets=[[0, 3], [1, 2]]).attributions, raw)


@pytest.mark.parametrize("size", [0, 2, -3, 1.0, True, "5"])
def test_the_neighborhood_is_an_odd_number(size):
    with pytest.raises(ExplainerError, match="give an odd number of pixels, 1 for none"):
        make(EXPLAINERS[0], neighborhood=size)


# ---- how fine the features are ----


@pytest.mark.parametrize(("size", "finest"), [(64, 1), (96, 2), (160, 2), (192, 4), (224, 4)])
def test_features_are_as_fine_as_the_picture_asks(size, finest, tmp_path):
    new = hf_explain.RankingExplainerForImageClassification.from_classifier
    explainer = new(build("resnet", size=size), processor(size), preset="tiny")
    assert explainer.config.finest == finest
    explainer.save_pretrained(tmp_path)
    again, x = ExplainerForImageClassification.from_pretrained(tmp_path), pictures(1, (size, size))
    one, other = explainer(x, targets=[0]).attributions, again(x, targets=[0]).attributions
    assert one.shape == (1, size, size) and torch.allclose(one, other, atol=1e-5)
    assert new(build("resnet", size=size), processor(size), preset="tiny", finest=1).config.finest == 1


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("finest", [1, 2, 4])
def test_maps_have_the_size_of_the_picture(finest, hybrid):
    new = hf_explain.RankingExplainerForImageClassification.from_classifier
    explainer = new(build("resnet"), processor(), preset="tiny", finest=finest, hybrid=hybrid)
    assert explainer(pictures(2), top_k=3).attributions.shape == (2, 3, 64, 64)
    with pytest.raises(ExplainerError, match="finest=3; give one of 1, 2, 4"):
        new(build("resnet"), processor(), preset="tiny", finest=3)
