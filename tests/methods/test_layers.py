"""The same methods at the input, in the middle and at the end: where that is, and what they give there."""

from functools import cache

import pytest
import torch
from families import build, pictures, processor

from hf_explain import METHODS, Classifier, ExplainerError
from hf_explain.methods.inner import INNER_METHODS, attribute_at
from hf_explain.methods.layers import LayerClassifier, find_layers, record

# Module and side of the map at 64 pixels of the middle and the final layer.
PLACES = {
    "vit": (("vit.layers.1", 8), ("vit.layers.2", 8)),  # after the last block only [CLS] counts
    "deit": (("deit.layers.1", 8), ("deit.layers.2", 8)),
    "beit": (("beit.layers.1", 8), ("beit.layers.3", 8)),
    "dinov2": (("dinov2.encoder.layer.1", 8), ("dinov2.encoder.layer.3", 8)),
    "swin": (("swin.encoder.layers.1", 4), ("swin.encoder.layers.2", 4)),
    "convnext": (("convnext.encoder.stages.1", 8), ("convnext.encoder.stages.3", 2)),
    "resnet": (("resnet.encoder.stages.1", 8), ("resnet.encoder.stages.3", 2)),
    "pvt_v2": (("pvt_v2.encoder.layers.2", 4), ("pvt_v2.encoder.layers.3", 2)),
}


WIDE = {family: {"initializer_range": 0.2} for family in ("vit", "deit", "beit", "dinov2")}  # so that patches matter


@cache
def classifier_of(family):
    return Classifier(build(family, **WIDE.get(family, {})), processor(64)).freeze()


def hooks(model):
    return sum(len(m._forward_hooks) for m in model.modules())


@pytest.mark.parametrize("family", PLACES)
def test_where_the_layers_are(family):
    classifier, x = classifier_of(family), pictures()
    classifier.model(x, output_hidden_states=True)  # installs the hooks of transformers
    before = hooks(classifier.model)
    layers = find_layers(classifier)
    assert layers["input"] is None
    for (module, side), name in zip(PLACES[family], ("middle", "final"), strict=True):
        assert layers[name].module.startswith(module), name
        z = record(classifier, layers[name], x)
        assert z.shape[2:] == (side, side) and z.shape[1] == layers[name].feature.channels
    assert hooks(classifier.model) == before


@pytest.mark.parametrize("family", PLACES)
def test_a_split_classifier_is_the_classifier(family):
    """With the recorded map it gives the same logits; with that of another picture, that one's, but for [CLS]."""
    classifier, x = classifier_of(family), pictures(3)
    with torch.no_grad():
        logits = classifier(x)
        for name, layer in find_layers(classifier).items():
            if name == "input":
                continue
            rest = LayerClassifier(classifier, layer, x)
            assert torch.allclose(rest(rest.maps), logits, atol=1e-6)
            assert torch.allclose(rest(rest.maps.repeat(2, 1, 1, 1)), logits.repeat(2, 1), atol=1e-6)
            if layer.feature.prefix == 0:
                assert torch.allclose(rest(rest.maps.flip(0)), logits.flip(0), atol=1e-6)
            assert not torch.allclose(rest(torch.zeros_like(rest.maps)), logits, atol=1e-9)


@pytest.mark.parametrize("method", INNER_METHODS)
@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_form(family, method):
    classifier, x = classifier_of(family), pictures(3)
    options = {"masks": 20} if method == "rise" else {}
    side = PLACES[family][0][1]
    maps = attribute_at(classifier, x, 1, method, "middle", batch_size=2, **options)
    assert maps.shape == (3, side, side) and maps.dtype == torch.float32 and not maps.requires_grad
    assert torch.isfinite(maps).all()
    if method != "random":
        alone = torch.cat([attribute_at(classifier, x[i : i + 1], 1, method, "middle", **options) for i in range(3)])
        assert torch.allclose(maps, alone, atol=1e-3 * float(maps.abs().max()) + 1e-12)


def test_the_input_is_a_layer_like_the_others():
    classifier, x = classifier_of("resnet"), pictures()
    for method in ("input_x_gradient", METHODS["input_x_gradient"]):
        assert torch.equal(
            attribute_at(classifier, x, 1, method, "input"), METHODS["input_x_gradient"](classifier, x, 1)
        )
    assert torch.allclose(
        attribute_at(classifier, x, 1, METHODS["gradient"], "input"), METHODS["gradient"](classifier, x, 1)
    )


# ---- methods, restated ----


def linear(z_channels=2, side=4, classes=3):
    """logit_k = sum(w_k * z), a classifier of maps."""
    weight = torch.randn(classes, z_channels, side, side, generator=torch.Generator().manual_seed(0))

    class Linear:
        dtype, device, pixel_space = torch.float32, torch.device("cpu"), None
        scores = staticmethod(lambda logits: logits.softmax(-1))

        def __call__(self, z):
            return torch.einsum("bchw,kchw->bk", z, weight)

    return Linear(), weight


def test_methods_of_a_linear_classifier_in_plain_loops():
    classifier, weight = linear()
    z, targets = torch.randn(2, 2, 4, 4), torch.tensor([0, 2])
    w = weight[targets]
    contribution = (w * z).sum(1)
    call = lambda name, **options: INNER_METHODS[name](classifier, z, targets, **options)  # noqa: E731
    assert torch.allclose(call("gradient"), w.abs().sum(1), atol=1e-6)
    assert torch.allclose(call("input_x_gradient"), contribution, atol=1e-6)
    assert torch.allclose(call("integrated_gradients"), contribution, atol=1e-5)
    assert torch.allclose(call("grad_cam"), (w.mean((2, 3), keepdim=True) * z).sum(1).clamp(min=0), atol=1e-6)
    assert torch.allclose(call("layer_cam"), (w.clamp(min=0) * z).sum(1).clamp(min=0), atol=1e-6)
    for window, stride in ((1, 1), (3, 2), (5, 2)):  # the last is larger than the map
        expected, width = torch.zeros(2, 4, 4), min(window, 4)
        tops = sorted({*range(0, 4 - width + 1, stride), 4 - width})
        for top in tops:
            for left in tops:
                square = (slice(None), slice(top, top + width), slice(left, left + width))
                expected[square] += contribution[square].sum((1, 2))[:, None, None] / width**2
        assert torch.allclose(call("occlusion", window=window, stride=stride, batch_size=5), expected, atol=1e-5)


def test_rise_finds_the_cells_that_matter():
    class Corner:
        dtype, device = torch.float32, torch.device("cpu")
        scores = staticmethod(lambda logits: logits)

        def __call__(self, z):
            return z[:, :, :4, :4].mean((1, 2, 3))[:, None]

    z, targets = torch.ones(1, 1, 12, 12), torch.tensor([0])
    maps = INNER_METHODS["rise"](Corner(), z, targets, masks=600, seed=1)
    assert maps[0, :4, :4].mean() > 1.5 * maps[0, 6:, 6:].mean()
    assert torch.equal(maps, INNER_METHODS["rise"](Corner(), z, targets, masks=600, seed=1))
    assert not torch.equal(maps, INNER_METHODS["rise"](Corner(), z, targets, masks=600, seed=2))


def test_occlusion_is_coarser_at_the_input(monkeypatch):
    seen = {}
    monkeypatch.setitem(INNER_METHODS, "occlusion", lambda c, z, t, **options: seen.update(options) or z[:, 0])
    attribute_at(classifier_of("resnet"), pictures(), 1, "occlusion", "input")
    assert (seen["window"], seen["stride"]) == (16, 8)
    seen.clear()
    attribute_at(classifier_of("resnet"), pictures(), 1, "occlusion", "final", stride=3)
    assert "window" not in seen and seen["stride"] == 3


# ---- no trace ----


def test_hooks_go_when_something_raises():
    model = build("resnet")
    classifier = Classifier(model, processor(64))
    layer = find_layers(classifier)["middle"]
    before = hooks(model)

    def fail(rest, z, targets):
        rest(z)
        raise RuntimeError("in a method")

    with pytest.raises(RuntimeError, match="in a method"):
        attribute_at(classifier, pictures(), 1, fail, layer)
    rest = LayerClassifier(classifier, layer, pictures())
    with pytest.raises((RuntimeError, ExplainerError)):
        rest(rest.maps[:, :1])  # the wrong number of channels raises inside the model
    assert hooks(model) == before
    assert all(p.grad is None and p.requires_grad for p in model.parameters()) and not model.training


def test_in_bf16_and_in_inference_mode():
    classifier = Classifier(build("vit").to(torch.bfloat16), processor(64))
    with torch.inference_mode():
        maps = attribute_at(classifier, pictures(), None, "input_x_gradient", "final")
    assert maps.dtype == torch.float32 and torch.isfinite(maps).all() and maps.std() > 0


def test_a_method_may_be_spelled_with_dashes():
    classifier, x = classifier_of("vit"), pictures()
    maps = attribute_at(classifier, x, 1, "Input-x-gradient", "final")
    assert torch.equal(maps, attribute_at(classifier, x, 1, "input_x_gradient", "final"))


def test_wrong_requests():
    classifier = classifier_of("vit")
    with pytest.raises(ExplainerError, match=r"unknown layer 'encoder\.3'; choose from input, middle, final"):
        attribute_at(classifier, pictures(), layer="encoder.3")
    with pytest.raises(ExplainerError, match="unknown method 'magic'; choose from random, gradient"):
        attribute_at(classifier, pictures(), method="magic")
    with pytest.raises(ExplainerError, match=r"unknown method 'gradcam'; did you mean 'grad_cam'\? choose"):
        attribute_at(classifier, pictures(), method="gradcam")
    with pytest.raises(ExplainerError, match="window=3 and stride=0; give at least 1"):
        attribute_at(classifier, pictures(), 1, "occlusion", "input", window=3, stride=0)
