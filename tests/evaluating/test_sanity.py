"""Maps should follow the class and the weights; the checks should leave the classifier as it was."""

import metric_cases
import pytest
import torch
from families import build, pictures, processor
from metric_cases import ranks

from hf_explain import METHODS, Classifier, ExplainerError, RankingExplainerForImageClassification
from hf_explain.evaluating.sanity import (
    class_sensitivity,
    correlation,
    modules_in_order,
    parameter_randomization,
    summary,
)


def classifier_of(family):
    return Classifier(build(family), processor(64)).freeze()


def edges(classifier, pixel_values, targets):
    """A map that knows the picture only."""
    return pixel_values.float().abs().sum(1)


def test_correlation_in_plain_loops():
    """Ties share the middle of their ranks."""
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randint(0, 6, (2, 5, 4, 4), generator=generator).float()
    for value, a, b in zip(correlation(one, other).tolist(), one.flatten(1), other.flatten(1), strict=True):
        assert value == pytest.approx(metric_cases.correlation(*(ranks(v.tolist()) for v in (a, b))), abs=1e-6)
    assert correlation(one, one.exp()).tolist() == pytest.approx([1.0] * 5)
    assert correlation(one, -one).tolist() == pytest.approx([-1.0] * 5)
    with pytest.raises(ExplainerError, match=r"maps \(2, 4, 4\) and \(4, 4\); give"):
        correlation(one[:2], one[0])


def test_constant_maps_are_counted():
    flat = torch.zeros(2, 4, 4)
    values = correlation(torch.cat([flat, torch.randn(1, 4, 4)]), torch.randn(3, 4, 4))
    assert values.isnan().tolist() == [True, True, False]
    found = summary(values)
    assert found["n"] == 3 and found["constant"] == 2 and found["mean"] == pytest.approx(float(values[2]))
    assert summary(values[:2])["mean"] != summary(values[:2])["mean"]  # NaN, and no error


def test_class_sensitivity():
    classifier, x = classifier_of("resnet"), pictures(3)
    assert class_sensitivity(classifier, x, edges).tolist() == pytest.approx([1.0] * 3)
    values = class_sensitivity(classifier, x, "input_x_gradient", batch_size=2)
    with torch.no_grad():
        logits = classifier(x)
    maps = [METHODS["input_x_gradient"](classifier, x, t) for t in (logits.argmax(1), logits.argmin(1))]
    assert torch.allclose(values, correlation(*maps), atol=1e-4) and values.max() < 0.99
    explainer = RankingExplainerForImageClassification.from_classifier(classifier, preset="tiny")
    assert class_sensitivity(classifier, x, explainer).shape == (3,)
    one_logit = Classifier(build("resnet"), processor(64))
    one_logit.model.config.id2label, one_logit.model.classifier[1] = {0: "x"}, torch.nn.Linear(24, 1)
    with pytest.raises(ExplainerError, match="one logit, so there is no other class; give"):
        class_sensitivity(one_logit, x, "gradient")


@pytest.mark.parametrize("family", ["vit", "resnet", "swin"])
def test_parameter_randomization(family):
    classifier, x = classifier_of(family), pictures(2)
    before = {k: v.clone() for k, v in classifier.model.state_dict().items()}
    steps = parameter_randomization(classifier, x, "input_x_gradient", steps=4, batch_size=1)
    assert len(steps) == 4 and steps[-1].share == pytest.approx(1.0)
    shares = [step.share for step in steps]
    assert shares == sorted(shares) and shares[0] > 0
    assert steps[-1].correlation.abs().max() < 0.3 and all(step.correlation.shape == (2,) for step in steps)
    after = classifier.model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[k], before[k]) for k in before)
    again = parameter_randomization(classifier, x, "input_x_gradient", steps=4, batch_size=2)
    assert torch.allclose(again[1].correlation, steps[1].correlation, atol=1e-2)
    blind = parameter_randomization(classifier, x, edges, steps=1)
    assert blind[0].correlation.tolist() == pytest.approx([1.0, 1.0])
    assert not any(p.requires_grad for p in classifier.parameters()) and not classifier.model.training


def test_the_head_comes_first_and_nothing_is_left_out():
    for family in ("vit", "resnet"):
        classifier = classifier_of(family)
        modules = modules_in_order(classifier, pictures(1))
        assert modules[-1][0].startswith("classifier") and "embed" in modules[0][0]
        counted = sum(p.numel() for _, m in modules for p in m.parameters(recurse=False))
        assert counted == sum(p.numel() for p in classifier.model.parameters())
        assert not any(m._forward_hooks for m in classifier.model.modules())
    first = parameter_randomization(classifier, pictures(1), "gradient", steps=len(modules))[0]
    assert first.module.startswith("classifier")


def test_the_weights_come_back_also_when_a_method_raises():
    classifier = classifier_of("resnet")
    before = {k: v.clone() for k, v in classifier.model.state_dict().items()}
    calls = []

    def fail(*call):
        calls.append(1)
        if len(calls) > 1:
            changed.append(any(not torch.equal(v, before[k]) for k, v in classifier.model.state_dict().items()))
            raise RuntimeError("in a method")
        return torch.rand(2, 8, 8)

    changed = []
    with pytest.raises(RuntimeError, match="in a method"):
        parameter_randomization(classifier, pictures(2), fail)
    assert changed == [True]
    assert all(torch.equal(v, before[k]) for k, v in classifier.model.state_dict().items())


def test_an_explainer_of_the_same_classifier():
    classifier, x = classifier_of("swin"), pictures(2)
    explainer = RankingExplainerForImageClassification.from_classifier(classifier, preset="tiny")
    head = {k: v.clone() for k, v in explainer.state_dict().items()}
    found = parameter_randomization(classifier, x, explainer, targets=1, steps=2)
    assert found[-1].correlation.max() < 0.999
    assert all(torch.equal(v, head[k]) for k, v in explainer.state_dict().items())
    with pytest.raises(ExplainerError, match=r"has another classifier; give explainer\.classifier"):
        parameter_randomization(classifier_of("swin"), x, explainer)


def test_wrong_requests():
    with pytest.raises(ExplainerError, match=r"unknown method 'gradcam'; did you mean 'grad_cam'\? choose"):
        class_sensitivity(classifier_of("resnet"), pictures(), "gradcam")
    with pytest.raises(ExplainerError, match="unknown method 'magic'; choose from random"):
        class_sensitivity(classifier_of("resnet"), pictures(), "magic")
    with pytest.raises(ExplainerError, match=r"steps=0 for .* modules with weights; give from 1"):
        parameter_randomization(classifier_of("resnet"), pictures(), edges, steps=0)
