"""LTX: the copy that learns, its objective, and fine-tuning on one picture."""

import math

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from families import build, pictures, processor
from method_cases import assert_unchanged, state_of
from transformers import pipeline

from hf_explain import ExplainerError, ExplainerForImageClassification, LtxExplainerForImageClassification
from hf_explain.modeling.references import reference_image
from hf_explain.training.config import TrainingConfig
from hf_explain.training.draws import Draws
from hf_explain.training.objectives import LTX_OBJECTIVES, LtxObjective
from hf_explain.training.tuning import tune

FAMILIES = ("vit", "deit", "dinov2", "swin", "pvt_v2", "convnext", "resnet")


def make(family="vit", trained=True, **options):
    """With the masks of a head that is not at its beginning, if `trained`."""
    made = LtxExplainerForImageClassification.from_classifier(build(family), processor(64), **options)
    if trained:
        torch.nn.init.normal_(made.head.score.weight, std=0.5, generator=torch.Generator().manual_seed(0))
    return made


@pytest.mark.parametrize("family", FAMILIES)
def test_masks_begin_at_one_half(family):
    """Whatever the size of a family's last states: masks of zeros and ones would have no gradient."""
    with torch.no_grad():
        maps = make(family, trained=False)(100 * pictures()).attributions
    assert torch.equal(maps, torch.full_like(maps, 0.5))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_trunk_is_a_copy_of_the_classifier(family, tmp_path):
    explainer = make(family)
    trunk, model = explainer.head.trunk, explainer.classifier.model
    assert trunk is not model and type(trunk) is type(model)
    for (name, ours), theirs in zip(trunk.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs) and ours.data_ptr() != theirs.data_ptr(), name
    learns = {name for name, p in trunk.named_parameters() if p.requires_grad}
    assert learns and not any("embeddings" in name.split(".") or name.startswith("classifier") for name in learns)
    with torch.no_grad():
        for parameter in explainer.head.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    explainer.save_pretrained(tmp_path, include_classifier=True)
    again = ExplainerForImageClassification.from_pretrained(tmp_path)
    for (name, ours), theirs in zip(explainer.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    assert {n for n, p in again.head.trunk.named_parameters() if p.requires_grad} == learns
    with torch.no_grad():
        assert torch.equal(again(pictures()).attributions, explainer(pictures()).attributions)


@pytest.mark.parametrize("family", FAMILIES)
def test_masks(family):
    explainer, x = make(family), pictures(2)
    with torch.no_grad():
        output = explainer(x)
        coarse = explainer.mask_logits(x, output.targets[:, None])[:, 0].sigmoid()
    assert output.attributions.min() >= 0 and output.attributions.max() <= 1
    large = F.interpolate(coarse[:, None], size=(64, 64), mode="bilinear", align_corners=False)[:, 0]
    assert torch.equal(output.attributions, large)


def test_it_stays_in_eval_mode_and_statistics_stay():
    explainer = make("resnet").train()
    assert not any(m.training for m in explainer.head.trunk.modules())
    before = {k: v.clone() for k, v in explainer.head.trunk.state_dict().items() if "running" in k}
    explainer(pictures(4)).attributions.sum().backward()
    assert before and all(torch.equal(v, explainer.head.trunk.state_dict()[k]) for k, v in before.items())


def test_classes_are_alike_until_training_tells_them_apart():
    explainer, x = make(), pictures(2)
    both = explainer(x, targets=[[0, 1], [2, 3]]).attributions
    assert torch.allclose(both[:, 0], both[:, 1], atol=1e-6)
    torch.nn.init.normal_(explainer.head.classes.weight)
    both = explainer(x, targets=[[0, 1], [2, 3]]).attributions
    assert not torch.allclose(both[:, 0], both[:, 1], atol=1e-2)


def test_the_release_has_no_classes():
    explainer = make(preset="ltx-release")
    assert explainer.head.classes is None and not explainer.config.class_conditional
    prediction = explainer(pictures(2)).targets
    with pytest.raises(ExplainerError, match="explains the prediction only"):
        explainer(pictures(2), targets=(prediction + 1) % 5)


# ---- the objective ----


def test_the_loss_in_plain_words():
    explainer, x = make("resnet"), pictures(2)
    targets = torch.tensor([1, 3])
    objective = LtxObjective(mask_weight=2.0, counterfactual=0.5)
    losses, parts = objective.of(explainer, x, targets)
    with torch.no_grad():
        coarse = explainer.mask_logits(x, targets[:, None])[:, 0].sigmoid()
        mask = explainer(x, targets=targets).attributions[:, None]
        blank = reference_image(x, explainer.classifier.pixel_space, "black")
        shown = F.cross_entropy(explainer.classifier(mask * x + (1 - mask) * blank), targets, reduction="none")
        hidden = F.cross_entropy(explainer.classifier((1 - mask) * x + mask * blank), targets, reduction="none")
    expected = shown + 2 * coarse.mean((1, 2)) - 0.5 * hidden.clamp(max=5)
    torch.testing.assert_close(losses.detach(), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(parts["mask"].detach(), coarse.mean((1, 2)))


def test_the_release_takes_a_probability_for_a_logit():
    """softplus of the mask: .693 where it is 0, 1.313 where it is 1."""
    explainer, x = make("resnet"), pictures(1)
    target = torch.tensor([1])
    release = LTX_OBJECTIVES["ltx-release"]
    for bias, penalty in ((-50.0, math.log(2)), (50.0, math.log(1 + math.e))):
        torch.nn.init.constant_(explainer.head.score.bias, bias)
        losses, parts = release.of(explainer, x, target)
        assert float(losses - parts["prediction"]) == pytest.approx(50 * penalty, rel=1e-4)


def test_what_is_hidden_is_capped():
    explainer, x = make("resnet"), pictures(1)
    explainer.classifier.model.classifier[-1].bias.data[2] = 100.0  # class 1 is hopeless, whatever is seen
    _, parts = LtxObjective(counterfactual=1.0).of(explainer, x, torch.tensor([1]))
    assert float(parts["hidden"]) == 5 < float(parts["prediction"])


def test_batches_change_nothing():
    explainer, x, objective = make("swin"), pictures(4), LtxObjective(counterfactual=0.3, runner_up=0.5)
    whole = objective.loss(explainer, x, Draws(0, 1))[0]
    parts = [objective.loss(explainer, x[i : i + 2], Draws(0, 1, i))[0] for i in (0, 2)]
    assert float(whole) == pytest.approx(float(sum(parts)) / 2, abs=1e-4)


def test_the_classes_explained():
    explainer, logits = make(), torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
    best = logits.topk(2).indices
    drawn = LtxObjective(runner_up=0.25).draw(explainer, logits, Draws(0))
    second = drawn == best[:, 1]
    assert (drawn == best[:, 0]).logical_or(second).all() and 0.15 < float(second.float().mean()) < 0.35
    release = make(preset="ltx-release")
    assert torch.equal(LtxObjective(runner_up=1.0).draw(release, logits, Draws(0)), best[:, 0])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: LtxObjective(penalty="l2"), "unknown penalty 'l2'"),
        (lambda: LtxObjective(mask_weight=-1), "mask_weight=-1"),
        (lambda: make(backbone="x"), "omit backbone="),
        (lambda: TrainingConfig(divergence=1.0).objective_for(make()), "divergence=1.0 is no setting of ltx"),
        (
            lambda: TrainingConfig(objective="aha-release").objective_for(make()),
            "unknown objective 'aha-release' of ltx",
        ),
        (lambda: TrainingConfig(objective="best"), "unknown objective 'best'"),
    ],
)
def test_wrong_settings(call, message):
    with pytest.raises(ExplainerError, match=message):
        call()


# ---- one picture ----


@pytest.mark.parametrize("family", ["vit", "resnet", "swin"])
def test_tuning_changes_nothing_and_lowers_its_own_loss(family):
    explainer, x = make(family), pictures(2)
    with torch.no_grad():
        plain = explainer(x).attributions
    head = {k: v.clone() for k, v in explainer.head.state_dict().items()}
    before = state_of(explainer.classifier.model)
    found = tune(explainer, x, steps=5, learning_rate=1e-3)
    assert_unchanged(explainer.classifier.model, before)
    assert all(torch.equal(v, head[k]) for k, v in explainer.head.state_dict().items())
    assert all(p.grad is None for p in explainer.head.parameters())
    assert found.losses.shape == (2, 6)
    best = found.losses.gather(1, found.chosen[:, None])[:, 0]
    assert torch.equal(best, found.losses.amin(1)) and (best < found.losses[:, 0]).all()
    with torch.no_grad():
        assert torch.equal(explainer(x).attributions, plain)
    assert not torch.allclose(found.maps, plain, atol=1e-4)


def test_no_steps_are_the_pretrained_mask():
    explainer, x = make("resnet"), pictures(3)
    found = tune(explainer, x, 2, steps=0)
    with torch.no_grad():
        torch.testing.assert_close(found.maps, explainer(x, targets=2).attributions, atol=1e-6, rtol=1e-5)
    assert found.chosen.tolist() == [0, 0, 0] and found.targets.tolist() == [2, 2, 2]


def test_every_picture_begins_anew():
    explainer, x = make("resnet"), pictures(3)
    together = tune(explainer, x, steps=3, learning_rate=1e-3)
    for i in range(3):
        alone = tune(explainer, x[i : i + 1], steps=3, learning_rate=1e-3)
        torch.testing.assert_close(alone.maps[0], together.maps[i], atol=1e-6, rtol=1e-4)


def test_selections():
    explainer, x = make("resnet"), pictures(2)
    last = tune(explainer, x, steps=3, learning_rate=1e-3, select="last")
    assert last.chosen.tolist() == [3, 3]
    by_metric = tune(explainer, x, steps=3, learning_rate=1e-3, select="positive", objective="ltx-release")
    assert all(0 <= step <= 3 for step in by_metric.chosen.tolist())


@pytest.mark.parametrize("options", [{"steps": -1}, {"learning_rate": 0}, {"select": "best"}])
def test_wrong_tuning(options):
    with pytest.raises(ExplainerError, match="give 0 or more steps"):
        tune(make("resnet"), pictures(1), **options)


def test_only_ltx_is_tuned(explainer):
    with pytest.raises(ExplainerError, match="RankingExplainerForImageClassification is not tuned per picture"):
        tune(explainer, pictures(1))


def test_refinement_in_the_pipeline_is_the_second_stage():
    """Of every class that is asked for, by `tune` on the picture as the classifier sees it."""
    explainer = make()
    pipe = pipeline("image-attribution", model=explainer)
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    found = pipe(image, target=[0, 1], refine_steps=3)
    x = explainer.image_processor(images=image, return_tensors="pt")["pixel_values"]
    for target, entry in enumerate(found):
        tuned = tune(explainer, x, [target], steps=3).maps
        np.testing.assert_allclose(entry["attribution"], tuned[0].numpy(), atol=1e-5)
    plain = pipe(image, target=[0, 1])
    assert any(np.abs(one["attribution"] - other["attribution"]).max() > 0 for one, other in zip(found, plain))
