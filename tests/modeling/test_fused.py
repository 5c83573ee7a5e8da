"""A convolution and its activation as one layer: the same numbers, and two layers for whoever looks."""

import pytest
import torch
from families import build, pictures, processor
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from hf_explain import Classifier
from hf_explain.methods import METHODS
from hf_explain.modeling.fused import FusedConvolution
from hf_explain.modeling.preparing import prepared

CONVOLUTIONS = {
    "same": {"kernel_size": 3, "padding": "same"},
    "same of an even kernel": {"kernel_size": 4, "padding": "same"},
    "same, dilated": {"kernel_size": 3, "padding": "same", "dilation": 2},
    "valid": {"kernel_size": 3, "padding": "valid", "stride": 2},
    "depthwise": {"kernel_size": 5, "padding": 2, "stride": 2, "groups": 4},
    "without a bias": {"kernel_size": 1, "bias": False},
    "reflected": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
}


def make(kind, activation):
    layer = nn.Conv2d(4, 8, **CONVOLUTIONS[kind]).requires_grad_(False)
    return layer, FusedConvolution(layer, activation).eval()


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6()])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_values_and_slopes(kind, layout, activation):
    layer, fused = make(kind, activation)
    x = (8 * torch.randn(2, 4, 9, 9)).contiguous(memory_format=layout).requires_grad_()
    one, other = activation(layer(x)), fused(x)
    assert (one == 0).any() and ((one == 6).any() or isinstance(activation, nn.ReLU))
    assert torch.allclose(one, other, atol=1e-5)
    weights = torch.randn_like(one)
    (mine,), (theirs,) = (torch.autograd.grad((weights * y).sum(), x) for y in (one, other))
    assert torch.allclose(mine, theirs, atol=1e-5)


def names_inside(mode, call):
    seen = []

    class Look(mode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(function.__name__)
            return function(*args, **(kwargs or {}))

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    with Look():
        call()
    return " ".join(seen)


@pytest.mark.parametrize("mode", [TorchFunctionMode, TorchDispatchMode])
def test_who_looks_at_functions_sees_two(mode):
    _, fused = make("same", nn.ReLU())
    seen = names_inside(mode, lambda: fused(torch.rand(1, 4, 8, 8)))
    assert "conv" in seen and "relu" in seen


def test_other_precisions():
    layer, fused = make("same", nn.ReLU6())
    x = torch.rand(1, 4, 8, 8)
    assert fused.double()(x.double()).dtype == torch.float64
    fused.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert fused(x).dtype == torch.bfloat16
    assert torch.allclose(fused(x), nn.ReLU6()(layer(x)), atol=1e-6)


@pytest.mark.parametrize(("model_type", "least"), [("mobilenet_v2", 20), ("resnet", 4), ("regnet", 4)])
def test_models_have_them(model_type, least):
    model = build(model_type).requires_grad_(False)
    fast, _ = prepared(model, pictures())
    assert sum(isinstance(m, FusedConvolution) for m in fast.modules()) >= least


@pytest.mark.parametrize("name", ["gradient", "guided_backprop", "semantic_pullback", "grad_cam", "occlusion"])
def test_methods_of_every_kind(name, monkeypatch):
    """Rules by function, hooks, gradients, forwards: the maps are those of the model as it is."""
    classifier, x = Classifier(build("resnet"), processor()).freeze(), pictures()
    fast = METHODS[name](classifier, x, targets=0)
    monkeypatch.setattr("hf_explain.modeling.model_call.prepared", lambda model, x: (model, False))
    slow = METHODS[name](classifier, x, targets=0)
    assert (fast - slow).abs().max() <= 1e-5 * slow.abs().max() > 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_is_not_lost(value):
    """A ReLU of oneDNN makes 0 of it; who gives such a picture has to find out."""
    classifier, x = Classifier(build("resnet")).freeze(), pictures()
    x[1, 0, 3, 3] = value
    with torch.no_grad():
        assert not classifier(x)[1].isfinite().all() and classifier(x[:1]).isfinite().all()
    assert prepared(classifier.model, x) == (classifier.model, False)
