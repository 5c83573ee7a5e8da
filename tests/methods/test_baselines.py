"""The methods people compare with: each against its formula, or against the library that has it."""

import sys
import threading

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from families import build, pictures, processor
from method_cases import OF_ONE_LENGTH, SAME_FOR_ALL_CLASSES, assert_unchanged, defined, is_defined, quick, state_of
from torch import nn

from hf_explain import METHODS, Classifier, ExplainerError
from hf_explain.methods.attention import ReadAttention
from hf_explain.methods.inner import attribute_at
from hf_explain.methods.layers import LayerClassifier, find_layers
from hf_explain.methods.rise import draw_mask
from hf_explain.methods.superpixels import read_regions, superpixels
from hf_explain.methods.switching import Ridge


def classifier_of(family, **changes):
    return Classifier(build(family, **changes), processor(64)).freeze()


# ---- class activation maps ----


@pytest.mark.parametrize("family", ["resnet", "vit", "swin"])
@pytest.mark.parametrize("name", ["grad_cam", "layer_cam", "grad_cam_plus_plus"])
def test_cams_are_those_of_the_last_layer_enlarged(name, family):
    classifier, x = classifier_of(family), pictures(2)
    small = attribute_at(classifier, x, 1, name, "final")
    large = F.interpolate(small[:, None], size=(64, 64), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(METHODS[name](classifier, x, 1), large)


def test_grad_cam_plus_plus_in_plain_loops():
    classifier, x = classifier_of("resnet"), pictures(1)
    rest = LayerClassifier(classifier, find_layers(classifier)["final"], x)
    z = rest.maps.clone().requires_grad_(True)
    (g,) = torch.autograd.grad(rest(z)[0, 1], z)
    g, a = g[0], rest.maps[0]
    expected = torch.zeros(a.shape[1:])
    for k in range(len(a)):
        weight = 0.0
        for i in range(a.shape[1]):
            for j in range(a.shape[2]):
                below = 2 * g[k, i, j] ** 2 + a[k].sum() * g[k, i, j] ** 3
                weight += float(g[k, i, j] ** 2 / below * max(0, g[k, i, j])) if abs(below) > 1e-12 else 0.0
        expected += weight * a[k]
    torch.testing.assert_close(attribute_at(classifier, x, 1, "grad_cam_plus_plus", "final")[0], expected.relu())


def test_score_cam_in_plain_loops():
    classifier, x = classifier_of("resnet"), pictures(2)
    channels = LayerClassifier(classifier, find_layers(classifier)["final"], x).maps
    expected = torch.zeros(2, *channels.shape[2:])
    with torch.no_grad():
        for b in range(2):
            for one in channels[b]:
                if one.max() > one.min():
                    mask = F.interpolate(
                        ((one - one.min()) / (one.max() - one.min()))[None, None], size=(64, 64), mode="bilinear"
                    )
                    expected[b] += classifier.scores(classifier(x[b : b + 1] * mask))[0, 1] * one
    maps = METHODS["score_cam"](classifier, x, 1, batch_size=3)
    large = F.interpolate(expected.relu()[:, None], size=(64, 64), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(maps, large, atol=1e-5, rtol=1e-4)


# ---- gradients ----


def test_guided_backprop_is_captums():
    classifier, x = classifier_of("resnet"), pictures(2)

    class Plain(nn.Module):  # captum hooks the modules of what it is given
        def __init__(self):
            super().__init__()
            self.model = build("resnet")

        def forward(self, x):
            return self.model(pixel_values=x).logits

    theirs = captum.attr.GuidedBackprop(Plain().eval()).attribute(x.clone().requires_grad_(True), target=1)
    torch.testing.assert_close(METHODS["guided_backprop"](classifier, x, 1), theirs.abs().amax(1))


def test_guided_grad_cam_is_the_product():
    classifier, x = classifier_of("resnet"), pictures(2)
    product = METHODS["guided_backprop"](classifier, x, 1) * METHODS["grad_cam"](classifier, x, 1)
    torch.testing.assert_close(METHODS["guided_grad_cam"](classifier, x, 1), product)


def test_smoothgrad_is_the_mean_of_gradients():
    classifier, x = classifier_of("vit"), pictures(2)
    random, total = torch.Generator().manual_seed(5), 0
    for _ in range(4):
        spread = 0.1 * (x.flatten(1).amax(1) - x.flatten(1).amin(1)).view(-1, 1, 1, 1)
        noisy = (x + spread * torch.randn(3, 64, 64, generator=random)).requires_grad_(True)
        total = total + torch.autograd.grad(classifier(noisy)[:, 1].sum(), noisy)[0]
    maps = METHODS["smoothgrad"](classifier, x, 1, samples=4, noise=0.1, seed=5)
    torch.testing.assert_close(maps, (total / 4).abs().amax(1), atol=1e-6, rtol=1e-4)


# ---- attention ----


@pytest.mark.parametrize("family", OF_ONE_LENGTH)
def test_attention_is_read_whatever_implements_it(family):
    """Fused attention is computed in the open: the same logits, and the weights that eager attention returns."""
    classifier, x = classifier_of(family), pictures(2)
    with torch.no_grad():
        plain = classifier(x)
        with ReadAttention() as mode:
            logits = classifier(x)
        torch.testing.assert_close(logits, plain, atol=1e-5, rtol=1e-4)
        classifier.model.set_attn_implementation("eager")
        eager = classifier.model(pixel_values=x, output_attentions=True).attentions
        with ReadAttention() as again:
            classifier(x)
    assert len(mode.maps) == len(again.maps) == len(eager) == 4
    for fused, written_out, theirs in zip(mode.maps, again.maps, eager, strict=True):
        torch.testing.assert_close(fused, theirs, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(written_out, theirs, atol=1e-5, rtol=1e-4)


def test_rollout_in_plain_loops():
    classifier, x = classifier_of("vit"), pictures(1)
    classifier.model.set_attn_implementation("eager")
    with torch.no_grad():
        layers = classifier.model(pixel_values=x, output_attentions=True).attentions
    for fuse in ("mean", "max", "min"):
        total = torch.eye(65)
        for layer in layers:
            one = {"mean": layer[0].mean(0), "max": layer[0].amax(0), "min": layer[0].amin(0)}[fuse] + torch.eye(65)
            total = one / one.sum(1, keepdim=True) @ total
        expected = F.interpolate(total[0, 1:].view(1, 1, 8, 8), size=(64, 64), mode="bilinear")[0, 0]
        torch.testing.assert_close(METHODS["attention_rollout"](classifier, x, fuse=fuse)[0], expected)
    assert not torch.equal(METHODS["attention_rollout"](classifier, x, discard=0.9)[0], expected)


def test_transformer_attribution_in_plain_loops():
    classifier, x = classifier_of("vit"), pictures(2)
    classifier.model.set_attn_implementation("eager")
    pixels = x.clone().requires_grad_(True)
    output = classifier.model(pixel_values=pixels, output_attentions=True)
    gradients = torch.autograd.grad(output.logits[:, 1].sum(), output.attentions)
    expected = torch.stack([torch.eye(65)] * 2)
    for layer, gradient in zip(output.attentions, gradients, strict=True):
        for b in range(2):
            weight = (layer[b] * gradient[b]).clamp(min=0).mean(0)
            expected[b] = expected[b] + weight @ expected[b]
    expected = F.interpolate(expected[:, 0, 1:].detach().view(2, 1, 8, 8), size=(64, 64), mode="bilinear")[:, 0]
    classifier.model.set_attn_implementation("sdpa")
    torch.testing.assert_close(METHODS["transformer_attribution"](classifier, x, 1), expected, atol=1e-6, rtol=1e-3)


# ---- regions ----


def test_feature_ablation_in_plain_loops():
    classifier, x = classifier_of("resnet"), pictures(2)
    maps = METHODS["feature_ablation"](classifier, x, 1, regions=4, reference="mean", batch_size=5)
    from hf_explain.modeling.references import reference_image

    blank = reference_image(x, classifier.pixel_space, "mean").expand_as(x)
    with torch.no_grad():
        clean = classifier.scores(classifier(x))[:, 1]
        for i in range(4):
            for j in range(4):
                cell = (slice(16 * i, 16 * i + 16), slice(16 * j, 16 * j + 16))
                hidden = x.clone()
                hidden[:, :, *cell] = blank[:, :, *cell]
                fall = clean - classifier.scores(classifier(hidden))[:, 1]
                torch.testing.assert_close(maps[:, *cell], fall.view(2, 1, 1).expand(2, 16, 16), atol=1e-5, rtol=1e-3)


class Additive:
    """The logit of class 1 is a weighed sum over the cells of a 4 x 4 grid that are not black."""

    num_labels, dtype, device, pixel_space = 2, torch.float32, torch.device("cpu"), None

    def __init__(self):
        self.weights = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))

    def __call__(self, x):
        cells = F.avg_pool2d(x.mean(1), 16)
        one = (cells * self.weights).sum((1, 2))
        return torch.stack([torch.zeros_like(one), one], 1)

    def scores(self, logits):
        return logits  # so that the truth is known


@pytest.mark.parametrize("name", ["lime", "kernel_shap"])
def test_surrogates_find_the_weights_of_an_additive_model(name):
    model, blank = Additive(), torch.zeros(1, 3, 64, 64)
    maps = METHODS[name](model, torch.ones(2, 3, 64, 64), 1, regions=4, samples=400, reference=blank)
    found = F.avg_pool2d(maps[:, None], 16)[:, 0]
    tolerance = 1e-3 if name == "kernel_shap" else 0.3  # the ridge of LIME shrinks
    torch.testing.assert_close(found, model.weights.expand(2, -1, -1), atol=tolerance, rtol=0.05)
    assert torch.equal(maps[0], maps[1])  # neither the place in the batch nor what ran before matters
    state = torch.get_rng_state()
    METHODS[name](model, torch.ones(1, 3, 64, 64), 1, regions=4, samples=10, reference=blank)
    assert torch.equal(state, torch.get_rng_state())


def test_the_regression_is_weighed_least_squares():
    random = torch.Generator().manual_seed(0)
    x, y, w = (torch.rand(*shape, generator=random) for shape in ((50, 4), (50, 1), (50, 1)))
    model = Ridge(penalty=0.0)
    model.fit([(x[:20], y[:20], w[:20]), (x[20:], y[20:], w[20:])])
    design = torch.cat([x, torch.ones(50, 1)], 1).double()
    root = w.double().sqrt()
    expected = torch.linalg.lstsq(design * root, y.double() * root).solution[:4, 0]
    torch.testing.assert_close(model.representation()[0].double(), expected, atol=1e-4, rtol=1e-3)


def test_superpixels_follow_colors():
    """Two halves of different colors: no region crosses the border."""
    rgb = torch.zeros(3, 48, 48)
    rgb[0, :, 30:] = 1
    labels = superpixels(rgb, count=16)
    assert set(labels[:, :30].unique().tolist()).isdisjoint(labels[:, 30:].unique().tolist())
    assert 8 <= len(labels.unique()) == int(labels.max()) + 1 <= 25


@pytest.mark.parametrize("regions", [0, 65, True, "cells", torch.zeros(3, 3), -torch.ones(64, 64)])
def test_wrong_regions(regions):
    with pytest.raises(ExplainerError, match="give"):
        read_regions(regions, pictures(1), None)


def test_given_regions():
    given = torch.arange(64 * 64).view(64, 64) // 512
    assert torch.equal(read_regions(given, pictures(2), None), given.expand(2, -1, -1))


# ---- RISE ----


def test_rise_in_plain_loops():
    classifier, x = classifier_of("resnet"), pictures(2)
    random, expected = torch.Generator().manual_seed(3), torch.zeros(2, 64, 64)
    with torch.no_grad():
        for _ in range(7):
            mask = draw_mask((64, 64), 8, 0.5, random)
            expected += classifier.scores(classifier(x * mask))[:, 1].view(2, 1, 1) * mask
    maps = METHODS["rise"](classifier, x, 1, masks=7, seed=3, batch_size=4)
    torch.testing.assert_close(maps, expected / 7 / 0.5, atol=1e-5, rtol=1e-4)


# ---- all of them ----


CASES = [(name, family) for family in ("vit", "swin", "resnet") for name in defined(family)]


@pytest.mark.parametrize("name, family", CASES)
def test_nothing_of_the_model_differs_after(name, family):
    model = build(family, size=32, depths=[1, 2], num_heads=[1, 2]) if family == "swin" else build(family)
    model.train()  # and it is again
    for parameter in list(model.parameters())[::2]:
        parameter.requires_grad_(False)
    size = 32 if family == "swin" else 64
    classifier, x = Classifier(model, processor(size)), pictures(2, (size, size))
    options = {"window": 16, "stride": 16} if name == "occlusion" else {}
    classifier.probe()  # transformers' own hooks, which stay
    before = state_of(model)
    quick(name)(classifier, x, 1, **options)
    assert_unchanged(model, dict(before))


@pytest.mark.parametrize("name, family", [c for c in CASES if c[0] != "random"])
def test_nothing_of_the_model_differs_after_it_raised(name, family, monkeypatch):
    model = build(family)
    classifier, x = Classifier(model, processor(64)), pictures(2)
    classifier.probe()
    find_layers(classifier)
    before, forward, calls = state_of(model), type(model).forward, []

    def fail(self, *args, **kwargs):
        calls.append(0)
        forward(self, *args, **kwargs)
        raise IndexError("in the middle")

    monkeypatch.setattr(type(model), "forward", fail)
    with pytest.raises(IndexError, match="in the middle"):
        quick(name)(classifier, x, 1)
    monkeypatch.undo()
    assert calls
    assert_unchanged(model, dict(before))
    with torch.no_grad():
        classifier(x)


@pytest.mark.parametrize("family", ["vit", "swin", "resnet"])
def test_two_threads_do_not_disturb_each_other(family):
    classifier, x = classifier_of(family), pictures(1)
    names = [n for n in defined(family) if n not in ("random", "lime", "kernel_shap", "occlusion", "rise")]
    expected = {name: quick(name)(classifier, x, 1) for name in names}
    found: list[dict] = [{}, {}]

    def run(place, order):
        for name in order:
            found[place][name] = quick(name)(classifier, x, 1)

    threads = [threading.Thread(target=run, args=(i, names[:: (-1) ** i])) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in found:
        assert set(one) == set(names)
        for name in names:
            torch.testing.assert_close(one[name], expected[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("rise", {"masks": 0}, "masks=0"),
        ("rise", {"share": 1.0}, "share=1.0"),
        ("lime", {"samples": 1}, "samples=1"),
        ("smoothgrad", {"samples": 0}, "samples=0"),
        ("attention_rollout", {"fuse": "median"}, "fuse='median'"),
        ("grad_cam", {"batch_size": 0}, "batch_size=0"),
        ("occlusion", {"batch_size": 0}, "batch_size=0"),
        ("integrated_gradients", {"batch_size": 0}, "batch_size=0"),
        ("integrated_gradients", {"steps": 0}, "steps=0"),
        ("score_cam", {"channels": 0}, "channels=0"),
        ("feature_ablation", {"regions": 0}, "regions=0"),
    ],
)
def test_wrong_options(name, options, message):
    with pytest.raises(ExplainerError, match=message):
        METHODS[name](classifier_of("vit"), pictures(1), **options)


def test_the_cases_know_every_method():
    assert {name for name, _ in CASES} == set(METHODS) and set(SAME_FOR_ALL_CLASSES) <= set(METHODS)
    assert not is_defined("guided_backprop", "vit") and "captum" in sys.modules
