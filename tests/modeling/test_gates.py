"""The stretched binary concrete, the gates of Vision DiffMask and their constraint."""

import math

import pytest
import torch
from families import build, pictures, processor

from hf_explain import Classifier, DiffMaskExplainerForImageClassification, ExplainerError
from hf_explain.modeling.gates import log_open, sample_gates
from hf_explain.modeling.modeling_diffmask import find_stem
from hf_explain.training import train
from hf_explain.training.config import TrainingConfig
from hf_explain.training.draws import Draws
from hf_explain.training.objectives import DiffMaskObjective
from hf_explain.training.objectives.diffmask import divergence

ONE_LENGTH = ("vit", "deit", "beit", "dinov2", "dinov2_with_registers", "siglip", "clip")
PYRAMIDS = ("swin", "pvt_v2", "convnext", "resnet")


def make(family="vit", **options):
    return DiffMaskExplainerForImageClassification.from_classifier(build(family), processor(64), **options)


@pytest.mark.parametrize("location", [-7.0, -2.0, 0.0, 2.0, 8.0])
def test_probabilities_against_sampling(location):
    """P(z > 0) = sigmoid(a + 0.3219), the note's numbers, and the share of 400 000 samples."""
    a = torch.tensor(location)
    z = sample_gates(a.expand(400_000), torch.rand(400_000, generator=torch.Generator().manual_seed(0)))
    probability = float(log_open(a).exp())
    assert probability == pytest.approx(1 / (1 + math.exp(-(location + 0.2 * math.log(5)))), abs=1e-6)
    assert float((z > 0).float().mean()) == pytest.approx(probability, abs=3e-3)
    expected = {-7.0: 0.0013, -2.0: 0.157, 0.0: 0.580, 2.0: 0.911, 8.0: 0.9998}
    assert probability == pytest.approx(expected[location], abs=6e-4)
    assert float(z.min()) >= 0 and float(z.max()) <= 1


def test_the_right_end_is_not_stretched():
    z = sample_gates(torch.full((100_000,), 3.0), torch.rand(100_000, generator=torch.Generator().manual_seed(0)))
    assert (z == 0).any() and float((z > 0.999999).float().mean()) < 0.9  # an atom at 0, none at 1 but by rounding


def test_samples_have_gradients():
    a = torch.zeros(1000, requires_grad=True)
    z = sample_gates(a, torch.rand(1000, generator=torch.Generator().manual_seed(0)))
    (gradient,) = torch.autograd.grad(z.sum(), a)
    assert (gradient[z == 0] == 0).all() and (gradient[(z > 0) & (z < 0.999)] > 0).all()  # clipped ones have none


@pytest.mark.parametrize("family", ONE_LENGTH + PYRAMIDS)
def test_the_identity_splice_gives_identical_logits(family):
    explainer, x = make(family), pictures(2)
    with torch.no_grad():
        logits, maps = explainer.read(x)
        ones = torch.ones(2, *maps[0].shape[-2:])
        assert torch.allclose(explainer.classify_gated(x, ones), logits, atol=1e-5)
        assert not torch.allclose(explainer.classify_gated(x, 0 * ones), logits, atol=1e-4)
        shut = explainer.classify_gated(x, 0 * ones)
        assert torch.allclose(shut[0], shut[1], atol=1e-5)  # nothing of the picture is left
        assert torch.allclose(explainer.classifier(x), logits, atol=1e-5)  # and the hook is gone


@pytest.mark.parametrize("family", ONE_LENGTH)
def test_states_are_those_of_the_paper(family):
    """h_0, the patch projection without positions, and the input of every block and the output of the last."""
    explainer, x = make(family), pictures(1)
    model = explainer.classifier.model
    with torch.no_grad():
        _, maps = explainer.read(x)
        states = model(pixel_values=x, output_hidden_states=True).hidden_states
        projection = model.get_submodule(explainer.config.stem)(x)
    assert torch.equal(maps[0], projection) and len(maps) - 1 == len(states) == len(explainer.head.gates) - 1
    assert explainer.head.multipliers.tolist() == [20.0] * len(maps)
    prefix = states[0].shape[1] - projection.shape[2] * projection.shape[3]
    for state, one in zip(states, maps[1:], strict=True):
        assert torch.equal(one.flatten(2).transpose(1, 2), state[:, prefix:])


def test_votes_and_the_aggregated_mask():
    explainer, x = make(gate_start=0.0), pictures(2)
    votes = explainer.votes(x)
    assert votes.layers.shape == (2, 6, 8, 8) and votes.kept.shape == (2, 8, 8)
    torch.testing.assert_close(votes.layers.prod(1), votes.kept)
    with torch.no_grad():
        output = explainer(x)
    torch.testing.assert_close(output.attributions, votes.kept.repeat_interleave(8, 1).repeat_interleave(8, 2))


def test_gates_begin_open():
    explainer = make()
    assert explainer.votes(pictures(2)).kept.min() > 0.9


# ---- the objective ----


def test_the_multiplier_rises_while_the_constraint_is_violated():
    explainer, objective = make(), DiffMaskObjective()
    head = explainer.head
    objective.after_step(explainer, {"layer": 2.0, "divergence": 0.5})
    assert head.multipliers.tolist() == pytest.approx([20, 20, 20 + 0.3 * 0.4, 20, 20, 20])
    objective.after_step(explainer, {"layer": 2.0, "divergence": 0.0})
    assert float(head.multipliers[2]) == pytest.approx(20 + 0.3 * 0.4 - 0.3 * 0.1)
    for _ in range(20):
        objective.after_step(explainer, {"layer": 1.0, "divergence": 1e3})
        objective.after_step(explainer, {"layer": 0.0, "divergence": -1e3})
    assert float(head.multipliers[1]) == 200 and float(head.multipliers[0]) == 0


def test_it_rises_in_a_training_too():
    """With nothing but the placeholder left, the output is far from what it was."""
    explainer = make(gate_start=-20.0)
    before = explainer.head.multipliers.clone()
    rows = [{"pixel_values": x} for x in 3 * pictures(8)]
    objective = TrainingConfig(divergence=1e-6).objective_for(explainer)
    assert divergence(explainer.classifier, *spoiled(explainer)).mean() > objective.divergence
    result = train(
        explainer, rows, TrainingConfig(max_steps=5, per_device_train_batch_size=4, learning_rate=1e-6, num_workers=0,
                                        divergence=1e-6, logging_steps=1), progress_bar=False,
    )  # fmt: skip
    drawn = {int(line["train/layer"]) for line in result.log}
    risen = (explainer.head.multipliers > before).nonzero().flatten().tolist()
    assert set(risen) == drawn


def spoiled(explainer):
    x = 3 * pictures(8)
    with torch.no_grad():
        logits, maps = explainer.read(x)
        return logits, explainer.classify_gated(x, torch.zeros(8, *maps[0].shape[-2:]))


def test_divergence_in_plain_loops():
    classifier = Classifier(build("vit"), processor(64))
    one, other = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    found = divergence(classifier, one, other)
    for b in range(3):
        p, q = one[b].softmax(0), other[b].softmax(0)
        assert float(found[b]) == pytest.approx(sum(float(p[c] * (p[c] / q[c]).log()) for c in range(5)), abs=1e-5)
    classifier.config.problem_type = "multi_label_classification"
    found = divergence(classifier, one, other)
    for b in range(3):
        p, q = one[b].sigmoid(), other[b].sigmoid()
        by_label = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
        assert float(found[b]) == pytest.approx(float(by_label.sum()), abs=1e-4)


def test_the_loss_in_plain_words():
    """multiplier x (divergence - bound) + mean log-probability of being open, of the layers up to the drawn one."""
    explainer, x, objective = make(gate_start=1.0), pictures(3), DiffMaskObjective()
    loss, log = objective.loss(explainer, x, Draws(0, 4))
    with torch.no_grad():
        _, maps = explainer.read(x)
        opened = log_open(explainer.head(maps[0], maps[1:])[:, : int(log["layer"]) + 1]).sum(1)
    assert float(loss) == pytest.approx(20 * (log["divergence"] - 0.1) + float(opened.mean()), abs=1e-4)
    assert log["kept"] == pytest.approx(float(opened.exp().mean()), abs=1e-5)


def test_batches_change_nothing():
    explainer, x, objective = make("swin", gate_start=1.0), pictures(4), DiffMaskObjective()
    whole = objective.loss(explainer, x, Draws(0, 1))[0]
    parts = [objective.loss(explainer, x[i : i + 2], Draws(0, 1, i))[0] for i in (0, 2)]
    assert float(whole) == pytest.approx(float(sum(parts)) / 2, abs=1e-4)


def test_the_placeholder_learns_faster():
    explainer = make()
    slow, fast = DiffMaskObjective().groups(explainer)
    assert fast["params"] == [explainer.head.placeholder] and fast["scale"] == 50
    assert len(slow["params"]) + 1 == len(list(explainer.head.parameters()))


@pytest.mark.parametrize("family", ONE_LENGTH + PYRAMIDS)
def test_the_stem_is_found(family):
    classifier = Classifier(build(family), processor(64))
    path, channels = find_stem(classifier, (64, 64))
    module = classifier.model.get_submodule(path)
    assert isinstance(module, torch.nn.Conv2d) and module.in_channels == 3 and module.out_channels == channels


@pytest.mark.parametrize("name", ["divergence", "ascent", "highest", "placeholder"])
def test_wrong_settings(name):
    with pytest.raises(ExplainerError, match=f"{name}=0; give a positive number"):
        DiffMaskObjective(**{name: 0})
