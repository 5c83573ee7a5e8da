"""A prepared copy computes the same, and the model itself never notices."""

import copy

import pytest
import torch
from families import CONFIGS, build, pictures
from torch import nn
from transformers.models.resnet.modeling_resnet import ResNetConvLayer

from hf_explain import Classifier, RankingExplainerForImageClassification
from hf_explain.modeling.frozen_models import fingerprint
from hf_explain.modeling.model_call import call, counted
from hf_explain.modeling.preparing import prepared

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
LEFT = {"levit": 1, "swiftformer": 5, "textnet": 2}  # normalizations with nothing before them to be folded into


def lively(model_type, **kwargs):
    """A frozen classifier whose normalizations do something."""
    model = build(model_type, **kwargs).requires_grad_(False)
    random = torch.Generator().manual_seed(0)
    for norm in (m for m in model.modules() if isinstance(m, NORMS)):
        norm.running_mean.copy_(0.2 * torch.randn(norm.num_features, generator=random))
        norm.running_var.copy_(0.5 + torch.rand(norm.num_features, generator=random))
        norm.weight.copy_(0.5 + torch.rand(norm.num_features, generator=random))
        norm.bias.copy_(0.2 * torch.randn(norm.num_features, generator=random))
    return model


def norms(model):
    return sum(isinstance(m, NORMS) for m in model.modules())


def trace_of(model):
    """Everything of it that a call could change."""
    tensors = {
        k: (id(t), t.data_ptr(), t.stride(), t.clone()) for k, t in [*model.named_parameters(), *model.named_buffers()]
    }
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()]
    return tensors, hooks, [(id(m), m.training, sorted(m.__dict__)) for m in model.modules()]


def same_trace(one, other):
    (a, *rest), (b, *others) = one, other
    return rest == others and all(a[k][:3] == b[k][:3] and torch.equal(a[k][3], b[k][3]) for k in {*a, *b})


@pytest.mark.parametrize("model_type", CONFIGS)
def test_same_function_and_an_untouched_model(model_type):
    model, x = lively(model_type).double(), pictures().double()
    before = trace_of(model)
    fast, _ = prepared(model, x)
    logits = []
    for run in (lambda y: model(pixel_values=y), lambda y: call(model, y)):
        y = x.clone().requires_grad_()
        found = run(y).logits
        (slope,) = torch.autograd.grad(found.sum(), y)
        logits.append((found.detach(), slope))
    assert same_trace(before, trace_of(model))
    for one, other in zip(*logits, strict=True):
        assert (one - other).abs().max() <= 1e-9 * one.abs().max()
    if norms(model):
        assert fast is not model and norms(fast) == LEFT.get(model_type, 0)


@pytest.mark.parametrize("model_type", ["resnet", "efficientnet", "convnext"])
def test_maps_agree(model_type, monkeypatch):
    """Also those of hidden states, and the fingerprint is that of the model."""
    classifier = Classifier(lively(model_type))
    before = fingerprint(classifier.model)
    explainer = RankingExplainerForImageClassification.from_classifier(classifier, preset="tiny")
    fast = explainer(pictures()).attributions
    assert explainer.config.classifier_fingerprint == before == fingerprint(classifier.model)
    with monkeypatch.context() as patch:
        patch.setattr("hf_explain.modeling.model_call.prepared", lambda model, x: (model, False))
        slow = explainer(pictures()).attributions
    assert (fast - slow).abs().max() <= 1e-5 * slow.abs().max()
    assert prepared(classifier.model, pictures())[0] is not classifier.model


def test_shares_the_memory_that_it_does_not_change():
    model = lively("resnet")
    fast, _ = prepared(model, pictures())
    assert fast.classifier[1].weight.data_ptr() == model.classifier[1].weight.data_ptr()
    assert prepared(model, pictures())[0] is fast


def test_a_transformer_is_its_own_prepared_copy():
    model = lively("vit")
    assert prepared(model, pictures()) == (model, False)


@torch.no_grad()
def weights_in_place(model):
    model.classifier[1].weight.mul_(2)


def a_state_dict(model):
    model.load_state_dict({k: 0.5 * v if v.is_floating_point() else v for k, v in model.state_dict().items()})


def another_module(model):
    model.classifier[1] = nn.Linear(24, 5)
    model.requires_grad_(False).eval()


def statistics(model):
    next(m for m in model.modules() if isinstance(m, NORMS)).running_mean.add_(1.0)


def a_step_of_training(model):
    model.requires_grad_(True)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(pixel_values=pictures()).logits.square().sum().backward()
    optimizer.step()
    model.requires_grad_(False)


@pytest.mark.parametrize("change", [weights_in_place, a_state_dict, another_module, statistics, a_step_of_training])
def test_new_weights_are_used_at_once(change):
    model, x = lively("resnet"), pictures()
    old = call(model, x).logits
    change(model)
    new = call(model, x).logits
    assert torch.allclose(new, model(pixel_values=x).logits, atol=1e-5) and not torch.allclose(new, old, atol=1e-3)
    assert norms(prepared(model, x)[0]) == 0


def test_who_watches_a_model_sees_its_calls():
    model, x, seen = lively("resnet"), pictures(), []
    norm = next(m for m in model.modules() if isinstance(m, NORMS))
    handle = norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    call(model, x)
    assert len(seen) == 1 and prepared(model, x)[0] is model
    handle.remove()
    call(model, x)
    assert len(seen) == 1 and prepared(model, x)[0] is not model


def test_a_model_that_learns_is_used_itself():
    model, x = lively("resnet").requires_grad_(True), pictures()
    call(model, x).logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    with torch.no_grad():
        assert prepared(model, x)[0] is not model
    assert prepared(model.train(), x)[0] is model


def beside(block, x):
    """Reads the convolution beside the normalization, out of sight of any module."""
    seen = block.convolution(x)
    return block.activation(block.normalization(seen) + 3 * seen)


def test_what_would_be_another_function_is_not_used(caplog, monkeypatch):
    model, x = lively("resnet"), pictures()
    monkeypatch.setattr(ResNetConvLayer, "forward", beside)
    assert prepared(model, x) == (model, False)
    assert "computes something else when it is prepared, so it is used as it is" in caplog.text


def test_a_forward_that_somebody_replaced(monkeypatch):
    """It would look at the modules of the model, not at those of the copy."""
    model, x = lively("resnet"), pictures()
    block = next(m for m in model.modules() if isinstance(m, ResNetConvLayer))
    monkeypatch.setattr(block, "forward", lambda x: beside(block, x))
    assert prepared(model, x) == (model, False)


def test_low_precision_is_not_folded():
    model = lively("resnet").to(torch.bfloat16)
    fast, channels_last = prepared(model, pictures().bfloat16())
    assert norms(fast) == norms(model) > 0 and channels_last


def open_gate(model, weight=0.0, bias=40.0):
    for module in model.modules():
        if type(module).__name__ == "EfficientNetSqueezeExciteLayer":
            module.expand.weight.fill_(weight)
            module.expand.bias.fill_(bias)
    return model


def gates(model):
    return sum(type(m).__name__ == "EfficientNetSqueezeExciteLayer" for m in model.modules())


def test_gates_that_are_always_open_are_taken_out():
    x = pictures()
    assert gates(prepared(open_gate(lively("efficientnet")), x)[0]) == 0
    assert gates(prepared(open_gate(lively("efficientnet"), bias=2.0), x)[0]) > 0
    assert gates(prepared(open_gate(lively("efficientnet"), weight=0.1), x)[0]) > 0


def test_calls_are_counted_and_only_those_of_the_model():
    one, other, x = lively("resnet"), lively("vit"), pictures(3)
    with counted(one) as seen, counted(one, other) as both:
        call(one, x)
        call(other, x[:2])
    call(one, x)
    assert seen == [3] and both == [3, 2]


def test_copies_of_a_model_are_prepared_for_themselves():
    model, x = lively("resnet"), pictures()
    again = copy.deepcopy(model)
    weights_in_place(again)
    assert prepared(model, x)[0] is not prepared(again, x)[0]
    assert torch.allclose(call(again, x).logits, again(pixel_values=x).logits, atol=1e-5)


@pytest.mark.parametrize("model_type", ["resnet", "convnext", "pvt_v2"])
def test_hidden_states_are_collected_once_whoever_was_called_first(model_type):
    """transformers' hooks for them, of which a second set would double the hidden states."""
    x, counts = pictures(), []
    for eager_first in (True, False):
        model = lively(model_type)
        if eager_first:
            model(pixel_values=x, output_hidden_states=True)
        call(model, x, output_hidden_states=True)
        fast, _ = prepared(model, x)
        for one in (model, fast, model):
            counts.append(len(one(pixel_values=x, output_hidden_states=True).hidden_states))
        weights_of_norms_in_place(model)
        counts.append(len(call(model, x, output_hidden_states=True).hidden_states))
    assert len(set(counts)) == 1


@torch.no_grad()
def weights_of_norms_in_place(model):
    for module in model.modules():
        if isinstance(module, (*NORMS, nn.LayerNorm)):
            module.weight.mul_(1.1)
