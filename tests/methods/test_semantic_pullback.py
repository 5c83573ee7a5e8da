"""Softened backward rules, the pullbacks made with them, and pictures moved along them."""

import logging
import math
import threading

import pytest
import torch
import torch.nn.functional as F
from families import CONFIGS, build, pictures, processor
from torch import nn
from transformers import AttentionInterface
from transformers.activations import QuickGELUActivation
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from hf_explain import METHODS, Classifier, ExplainerError, counterfactual
from hf_explain.methods.semantic_pullback import SQUEEZES, TOLD, VARIANTS, Once, pullback, signed_colors, stride
from hf_explain.methods.soft_backward import Rules, SoftBackward

HARD = {"relu": 1e-6, "gelu": 1e-6, "silu": 1e-6, "max_pool": 1e-6}


def backward(function, x, rules=None, weight=None):
    """(value, gradient of the weighed sum) with the rules."""
    x = x.clone().requires_grad_(True)
    with SoftBackward(rules) as mode:
        value = function(x)
    weight = torch.ones_like(value) if weight is None else weight
    return value.detach(), torch.autograd.grad((value * weight).sum(), x)[0], mode


def classifier_of(family, **changes):
    return Classifier(build(family, **changes), processor(64)).freeze()


# ---- the rules, one by one ----


def gate(z):
    return 0.5 * (1 + torch.erf(z / math.sqrt(2)))


@pytest.mark.parametrize(
    "function, slope",
    [
        (F.relu, lambda z: gate(z / 0.6)),
        (nn.ReLU(inplace=True), lambda z: gate(z / 0.6)),
        (torch.relu, lambda z: gate(z / 0.6)),
        (F.gelu, lambda z: gate(z / 1.0)),
        (lambda z: F.gelu(z, approximate="tanh"), lambda z: F.gelu(z, approximate="tanh") / z),
        (F.silu, lambda z: (z / 1.6).sigmoid()),
        (QuickGELUActivation(), lambda z: (1.702 * z).sigmoid()),
        (F.relu6, lambda z: gate(z / 0.6) * torch.where(z > 6, 6 / z, 1)),
        (nn.ReLU6(), lambda z: gate(z / 0.6) * torch.where(z > 6, 6 / z, 1)),
        (nn.ReLU6(inplace=True), lambda z: gate(z / 0.6) * torch.where(z > 6, 6 / z, 1)),
        (lambda z: F.hardtanh(z, 0, max_val=4), lambda z: gate(z / 0.6) * torch.where(z > 4, 4 / z, 1)),
        (F.hardswish, lambda z: ((z / 1.6 + 3) / 6).clamp(0, 1)),
        (nn.Hardswish(inplace=True), lambda z: ((z / 1.6 + 3) / 6).clamp(0, 1)),
    ],
    ids=[
        "relu", "relu_inplace", "torch_relu", "gelu", "gelu_tanh", "silu", "quick_gelu", "relu6", "relu6_module",
        "relu6_inplace", "relu4", "hardswish", "hardswish_inplace",
    ],
)  # fmt: skip
def test_activations(function, slope):
    z = torch.linspace(-9, 9, 90)  # without 0
    value, gradient, mode = backward(function, z)
    assert torch.equal(value, function(z.clone()))  # to the last bit
    torch.testing.assert_close(gradient, slope(z), atol=1e-5, rtol=0)
    assert sum(mode.counts.values()) >= 1 and not mode.uncovered


@pytest.mark.parametrize(
    "function", [F.relu, F.relu6, F.gelu, F.silu, F.hardswish, lambda z: F.gelu(z, approximate="tanh")]
)
def test_hard_rules_are_the_function_divided_by_its_input(function):
    """With ReLU's temperature near 0 and the others 1, so also where a ReLU6 or a hard-swish is saturated."""
    z = torch.linspace(-9, 9, 91, dtype=torch.float64)  # with 0
    rules = Rules(relu=1e-6, gelu=1.0, silu=1.0)
    value, gradient, _ = backward(function, z, rules)
    torch.testing.assert_close(gradient * z, value, atol=1e-15, rtol=1e-15)
    near = torch.tensor([-1e-4, 1e-4], dtype=torch.float64)
    limits = function(near) / near
    at_0 = backward(function, torch.zeros(1, dtype=torch.float64), rules)[1]
    assert limits.min() - 1e-4 <= at_0 <= limits.max() + 1e-4


@pytest.mark.parametrize("function", [lambda z: F.hardtanh(z), lambda z: F.hardtanh(z, 1, 2), F.leaky_relu, torch.tanh])
def test_what_has_no_rule_keeps_its_gradient_and_is_named(function):
    z = torch.linspace(-3, 3, 31)
    _, gradient, mode = backward(function, z)
    y = z.clone().requires_grad_(True)
    assert torch.equal(gradient, torch.autograd.grad(function(y).sum(), y)[0])
    assert sum(mode.uncovered.values()) == 1 and not mode.counts


def test_only_that_is_named_through_which_a_gradient_flows():
    """Queries that are normalized before the softmax, say: attention is differentiated by its values."""
    x, weight = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0)), nn.Parameter(torch.rand(4))

    def attend(y):
        return (torch.tanh(y) @ y.transpose(1, 2)).softmax(-1) @ (y * torch.exp(weight)[None] * (weight.view(4) * 2))

    _, _, mode = backward(attend, x)
    assert not mode.uncovered, mode.uncovered
    for function in (lambda y: y * y.mean(), lambda y: y / y.mean(), lambda y: y @ y.transpose(1, 2)):
        assert len(backward(function, x)[2].uncovered) == 1


def test_quick_gelu_at_another_temperature():
    z = torch.linspace(-3, 3, 31)
    value, gradient, _ = backward(QuickGELUActivation(), z, Rules(gelu=2.0))
    assert torch.equal(value, QuickGELUActivation()(z))
    torch.testing.assert_close(gradient, (1.702 * z / 2).sigmoid())


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)},
        {"kernel_size": 3, "stride": 2, "ceil_mode": True},
        {"kernel_size": 3, "stride": 2, "padding": 1, "return_indices": True},
    ],
)
def test_max_pool_in_plain_loops(options):
    """Each window's gradient goes to its cells by their softmax; padding gets nothing."""
    x, pool = torch.randn(1, 2, 7, 8, generator=torch.Generator().manual_seed(0)), nn.MaxPool2d(**options)
    first = (lambda y: pool(y)[0]) if options.get("return_indices") else pool
    weight = torch.randn(first(x).shape, generator=torch.Generator().manual_seed(1))
    value, gradient, _ = backward(first, x, Rules(max_pool=0.5), weight)
    assert torch.equal(value, first(x))
    pair = lambda v: (v, v) if isinstance(v, int) else v  # noqa: E731
    (kh, kw), (sh, sw) = pair(options["kernel_size"]), pair(options.get("stride", options["kernel_size"]))
    (ph, pw), (dh, dw) = pair(options.get("padding", 0)), pair(options.get("dilation", 1))
    expected = torch.zeros_like(x)
    for c in range(2):
        for i in range(weight.shape[2]):
            for j in range(weight.shape[3]):
                places = [(i * sh - ph + a * dh, j * sw - pw + b * dw) for a in range(kh) for b in range(kw)]
                places = [(y, z) for y, z in places if 0 <= y < 7 and 0 <= z < 8]
                shares = torch.stack([x[0, c, y, z] / 0.5 for y, z in places]).softmax(0)
                for (y, z), share in zip(places, shares):
                    expected[0, c, y, z] += share * weight[0, c, i, j]
    torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", ["reference", "adjoint"])
@pytest.mark.parametrize(
    "layer, groups",
    [
        (nn.LayerNorm(6), (3, 8, 6)),
        (nn.LayerNorm((8, 6)), (3, 48)),
        (nn.GroupNorm(4, 8), (3, 4, 12)),
        (nn.GroupNorm(1, 8), (3, 1, 48)),
        (nn.InstanceNorm1d(8, affine=True), (3, 8, 6)),
    ],
    ids=["layer", "layers", "groups", "one_group", "instance"],
)
def test_norms(layer, groups, norm):
    """Backwards their statistics are constants, for "adjoint" all but the mean. A bias is added."""
    x = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(0)) + 2
    for i, p in enumerate(layer.parameters()):
        nn.init.normal_(p, generator=torch.Generator().manual_seed(i))
    weight = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(2))
    value, gradient, mode = backward(layer, x, Rules(norm=norm), weight)
    assert torch.equal(value, layer(x)) and sum(mode.counts.values()) == 1 and not mode.uncovered
    affine = layer.weight.detach()
    affine = affine if isinstance(layer, nn.LayerNorm) else affine[:, None]
    rows = x.reshape(groups)
    per_row = (weight * affine).reshape(groups) / (rows.var(-1, correction=0, keepdim=True) + layer.eps).sqrt()
    expected = per_row if norm == "reference" else per_row - per_row.mean(-1, keepdim=True)
    torch.testing.assert_close(gradient, expected.reshape(x.shape))
    with SoftBackward(Rules(norm=norm)):
        found = torch.autograd.grad((layer(x.requires_grad_(True)) * weight).sum(), layer.bias)[0]
    torch.testing.assert_close(found, torch.autograd.grad((layer(x) * weight).sum(), layer.bias)[0])


class WrittenOut(nn.Module):
    """RMSNorm as modules of transformers compute it."""

    def __init__(self, size):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), 1e-6

    def forward(self, x):
        x = x.float()
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


@pytest.mark.parametrize("norm", ["reference", "adjoint"])
@pytest.mark.parametrize("layer", [nn.RMSNorm(6), nn.RMSNorm(6, eps=0.1), WrittenOut(6)])
def test_rms_norm(layer, norm):
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0)) + 2
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(1))
    value, gradient, mode = backward(layer, x, Rules(norm=norm))
    assert torch.equal(value, layer(x)) and mode.counts == {"rms_norm": 1} and not mode.uncovered
    eps = torch.finfo(x.dtype).eps if layer.eps is None else layer.eps
    torch.testing.assert_close(gradient, layer.weight.detach() / (x.square().mean(1, keepdim=True) + eps).sqrt())


def test_normalize():
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    value, gradient, _ = backward(lambda y: F.normalize(y, dim=-1), x)
    assert torch.equal(value, F.normalize(x, dim=-1))
    torch.testing.assert_close(gradient, (1 / x.norm(dim=1, keepdim=True)).expand_as(x))


def test_running_statistics_are_affine_already():
    layer = nn.InstanceNorm1d(8, track_running_stats=True).eval()
    x = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(0))
    _, gradient, mode = backward(layer, x)
    torch.testing.assert_close(gradient, torch.full_like(x, (1 + layer.eps) ** -0.5))
    assert not mode.counts and not mode.uncovered


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("written_out", [False, True])
def test_attention_is_its_value_path(temperature, written_out):
    q, k, v = torch.randn(3, 1, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.randn(1, 1, 5, 5, generator=torch.Generator().manual_seed(1))

    def attend(scale):
        x = (q + scale) @ (k + scale).transpose(-1, -2) / 2 + mask
        return x.softmax(-1) @ (v * scale)

    def fused(scale):
        return F.scaled_dot_product_attention(q + scale, k + scale, v * scale, attn_mask=mask)

    scale = torch.ones(())
    function = attend if written_out else fused
    value, gradient, _ = backward(function, scale, Rules(attention=temperature))
    torch.testing.assert_close(value, attend(scale))
    softened = ((q + 1) @ (k + 1).transpose(-1, -2) / 2 + mask) / temperature
    torch.testing.assert_close(gradient, (softened.softmax(-1) @ v).sum(), atol=1e-4, rtol=1e-4)


def test_torchs_own_attention():
    layer = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    value, gradient, mode = backward(lambda y: layer(y, y, y, need_weights=False)[0], x)
    torch.testing.assert_close(value, layer(x, x, x)[0], atol=1e-5, rtol=1e-5)
    y = x.clone().requires_grad_(True)
    expected = torch.autograd.grad(layer(x, x, y)[0].sum(), y)[0]
    torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-5)
    assert mode.counts["attention"] == 1


def test_gates_of_other_branches():
    """Squeeze-and-excitation and SwiGLU: the gradient by default, a constant factor if asked."""
    x = torch.linspace(-2, 3, 9)
    for function, factor in (
        (lambda z: z * torch.sigmoid(3 * z), (3 * x).sigmoid()),
        (lambda z: z * F.hardsigmoid(3 * z), F.hardsigmoid(3 * x)),
        (lambda z: F.silu(2 * z) * z, F.silu(2 * x)),
        (lambda z: F.silu(z) * torch.sigmoid(3 * z), (x / 1.6).sigmoid() * (3 * x).sigmoid()),  # after a SiLU
        (lambda z: z * z.mean(), x.mean().expand(9)),  # what was pooled is the gate
        (lambda z: z.mean().expand_as(z) * z, x.mean().expand(9)),
        (lambda z: z * (2 * z), 2 * x),  # each by half
        (lambda z: z / (1 + z.mean()), (1 / (1 + x.mean())).expand(9)),
        (lambda z: 0.5 * z * (1 + torch.erf(z)), 0.5 * (1 + torch.erf(x))),  # a GELU as some write it
    ):
        value, constant, mode = backward(function, x, Rules(gates="constant"))
        assert torch.equal(value, function(x)) and not mode.uncovered
        _, default, mode = backward(function, x)
        torch.testing.assert_close(constant, factor)
        assert not torch.allclose(default, factor) and mode.uncovered


# ---- whole models ----


@pytest.mark.parametrize("family", CONFIGS)
def test_forward_is_unchanged(family):
    classifier, x = classifier_of(family), pictures(2).requires_grad_(True)
    before = classifier(x)
    with SoftBackward(Rules(norm="adjoint", gates="constant", attention=2.0 if family != "siglip" else 1.0)):
        torch.testing.assert_close(classifier(x), before, atol=1e-6, rtol=1e-5)
    with SoftBackward() as mode:
        logits = classifier(x)
    torch.testing.assert_close(logits, before, atol=1e-6, rtol=1e-5)  # a joined ReLU rounds otherwise
    assert sum(mode.counts.values()) + sum(mode.uncovered.values()) > 0
    attends = any("attention" in type(m).__name__.lower() for m in classifier.model.modules())
    assert not attends or mode.counts["attention"] > 0 or family in ("focalnet", "poolformer")
    after = classifier(x)
    assert torch.equal(before, after)
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), x)
    assert torch.isfinite(gradient).all()


def relu_net(classifier):
    return [name for name in ("relu", "max_pool") if name]


@pytest.mark.parametrize("family", ["resnet", "hgnet_v2", "textnet"])
def test_at_temperature_0_it_is_the_gradient_of_a_relu_net(family):
    classifier, x = classifier_of(family), pictures(2).requires_grad_(True)
    (true,) = torch.autograd.grad(classifier(x)[:, 1].sum(), x)
    errors = []
    for temperature in (1.0, 0.1, 1e-6):
        with SoftBackward(Rules(relu=temperature, max_pool=temperature)):
            logits = classifier(x)
        (soft,) = torch.autograd.grad(logits[:, 1].sum(), x)
        errors.append(float((soft - true).norm() / true.norm()))
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-3


def softened_attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = scores if attention_mask is None else scores + attention_mask
    softened_attention.calls += 1
    weights = scores.softmax(-1).detach()
    return (weights @ value).transpose(1, 2).contiguous(), weights


@pytest.mark.parametrize("family", ["vit", "deit", "beit", "dinov2", "swin"])
def test_hooks_and_an_attention_function_agree(family):
    """The same rules by forward hooks and transformers' attention interface, which change the model."""
    classifier, x = classifier_of(family), pictures(2)
    once = pullback(classifier, x, 1)
    AttentionInterface.register("softened", softened_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register("softened", ALL_MASK_ATTENTION_FUNCTIONS["eager"])
    softened_attention.calls = 0
    classifier.model.set_attn_implementation("softened")

    def hook(layer, inputs, output):
        z = inputs[0]
        if isinstance(layer, nn.LayerNorm):
            path = z * (z.var(-1, correction=0, keepdim=True) + layer.eps).rsqrt().detach() * layer.weight
        else:
            path = z * gate(z).detach()
        return path - path.detach() + output.detach()

    soft = [
        m for m in classifier.model.modules() if isinstance(m, nn.LayerNorm) or type(m).__name__ == "GELUActivation"
    ]
    handles = [m.register_forward_hook(hook) for m in soft]
    colors = signed_colors(classifier.pixel_space, x).requires_grad_(True)
    logits = classifier(classifier.pixel_space.from_rgb((colors + 1) / 2))
    (by_hooks,) = torch.autograd.grad(logits[:, 1].sum(), colors)
    for handle in handles:
        handle.remove()
    assert softened_attention.calls == 4
    torch.testing.assert_close(once, by_hooks, atol=1e-5 * float(by_hooks.abs().max()), rtol=1e-4)


# ---- methods ----


def test_the_pullback_is_in_signed_colors():
    """With hard rules it is the gradient of a ReLU net, times how far a pixel value goes per color."""
    classifier, x = classifier_of("resnet"), pictures(2)
    plain = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(classifier(plain)[:, 1].sum(), plain)
    gain = torch.tensor(classifier.pixel_space.gain).view(3, 1, 1)
    found = pullback(classifier, x, 1, rules=Rules(**HARD))
    torch.testing.assert_close(found, gradient * gain / 2, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(variant):
    classifier, x = classifier_of("vit"), pictures(3)
    options = {"variant": variant, "steps": 3, "samples": 4}
    found = pullback(classifier, x, 1, **options)
    assert found.shape == x.shape and torch.isfinite(found).all()
    torch.testing.assert_close(found, pullback(classifier, x, 1, batch_size=2, **options), atol=1e-5, rtol=1e-3)
    once, colors, t = Once(classifier), signed_colors(classifier.pixel_space, x), torch.tensor([1, 1, 1])
    if variant == "soft":
        expected = once(colors, t)
    elif variant == "double":
        expected = once(colors + 2 * once(colors, t), t)
    elif variant == "ascent":
        at = colors
        for _ in range(3):
            way = once(at, t)
            at = at + 20 * (3 * 64 * 64 / (3 * 224 * 224)) ** 0.5 * way / way.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        expected = at - colors
    else:
        random = torch.Generator().manual_seed(0)
        expected = sum(once(colors + 0.15 * torch.randn(3, 64, 64, generator=random), t) for _ in range(4)) / 4
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


def test_squeezes():
    classifier, x = classifier_of("vit"), pictures(2)
    raw, colors = pullback(classifier, x, 1), signed_colors(classifier.pixel_space, x)
    made = {name: METHODS["semantic_pullback"](classifier, x, 1, squeeze=name) for name in SQUEEZES}
    torch.testing.assert_close(made["times_input"], (raw * colors).sum(1))
    torch.testing.assert_close(made["sum"], raw.sum(1))
    torch.testing.assert_close(made["absolute"], raw.abs().sum(1))
    torch.testing.assert_close(made["norm"], raw.square().sum(1).sqrt())


def test_uncovered_non_linearities_are_named_once(caplog):
    classifier, x = classifier_of("regnet"), pictures(1)
    TOLD.clear()
    with caplog.at_level(logging.WARNING, logger="hf_explain"):
        logging.getLogger("hf_explain").propagate = True
        METHODS["semantic_pullback"](classifier, x)
        METHODS["semantic_pullback"](classifier, x)
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == 1 and "RegNetForImageClassification" in said[0] and "sigmoid" in said[0]


@pytest.mark.parametrize("family", ["vit", "swin", "pvt_v2", "resnet"])
def test_nothing_of_the_model_changes(family):
    model = build(family)
    classifier, x = Classifier(model, processor(64)), pictures(2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    hooks = sum(len(m._forward_hooks) + len(m._backward_hooks) for m in model.modules())
    x.requires_grad_(True)
    METHODS["semantic_pullback"](classifier, x, variant="ascent", steps=2)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters()) and x.grad is None
    assert hooks == sum(len(m._forward_hooks) + len(m._backward_hooks) for m in model.modules())
    with torch.no_grad():
        assert torch.equal(classifier(x), classifier(x))


def test_another_thread_keeps_its_gradient():
    classifier, x = classifier_of("vit"), pictures(2)
    expected, inside, go = METHODS["gradient"](classifier, x, 1), threading.Event(), threading.Event()
    soft, found = pullback(classifier, x, 1), {}

    def softened():
        with SoftBackward():
            inside.set()
            go.wait(20)
        found["soft"] = pullback(classifier, x, 1)

    thread = threading.Thread(target=softened)
    thread.start()
    inside.wait(20)
    found["plain"] = METHODS["gradient"](classifier, x, 1)
    go.set()
    thread.join()
    assert torch.equal(found["plain"], expected) and torch.equal(found["soft"], soft)


def test_it_ends_where_the_model_raises():
    classifier, x = classifier_of("vit"), pictures(1)
    expected = METHODS["gradient"](classifier, x, 1)
    with pytest.raises(KeyError), SoftBackward():
        classifier(x)
        raise KeyError
    assert torch.equal(METHODS["gradient"](classifier, x, 1), expected)


@pytest.mark.parametrize(
    "call, message",
    [
        ({"variant": "hard"}, "unknown variant 'hard'; choose from soft, ascent, smooth, double"),
        ({"squeeze": "max"}, "unknown squeeze 'max'"),
        ({"steps": 0}, "steps=0"),
        ({"rules": {"relu": 0.0}}, "temperature relu=0.0; give a positive number"),
        ({"rules": {"norm": "x"}}, "unknown norm='x'"),
        ({"targets": torch.tensor([[1, 2]])}, "one class per image"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ExplainerError, match=message):
        if "rules" in call:
            call["rules"] = Rules(**call["rules"])
        METHODS["semantic_pullback"](classifier_of("vit"), pictures(1), **call)


def test_colors_must_be_known():
    with pytest.raises(ExplainerError, match="image processor"):
        METHODS["semantic_pullback"](Classifier(build("vit")), pictures(1))


# ---- counterfactuals ----


@pytest.mark.parametrize("family", ["vit", "resnet", "swin", "convnext", "pvt_v2"])
def test_the_class_rises_at_every_step(family):
    classifier, x = classifier_of(family), pictures(3).clamp(-1, 1)
    found = counterfactual(classifier, x, torch.tensor([0, 1, 2]), steps=4, length=1.0)
    assert found.logits.shape == (3, 5) and (found.logits.diff(dim=1) > 0).all()
    with torch.no_grad():
        logits = classifier(found.pixel_values)
    torch.testing.assert_close(logits[torch.arange(3), torch.arange(3)], found.logits[:, -1], atol=1e-4, rtol=1e-4)
    assert torch.equal(found.reached, logits.argmax(-1) == torch.arange(3))
    colors = signed_colors(classifier.pixel_space, found.pixel_values)
    assert colors.abs().max() <= 1 + 1e-5
    torch.testing.assert_close(colors - signed_colors(classifier.pixel_space, x), found.displacement, atol=1e-5, rtol=0)


def test_steps_have_one_length():
    way = stride(torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)), 20.0)
    torch.testing.assert_close(way.flatten(1).norm(dim=1), torch.full((2,), 20.0))


def test_counterfactuals_need_a_class():
    with pytest.raises(ExplainerError, match="give the class"):
        counterfactual(classifier_of("vit"), pictures(1), None)
    with pytest.raises(ExplainerError, match="at least 1 step"):
        counterfactual(classifier_of("vit"), pictures(1), 1, steps=0)
