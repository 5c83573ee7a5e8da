"""Is the hard pullback the adjoint of the affine map a network is at a picture? In every native family, in float64."""

import pytest
import torch
from families import CONFIGS, build, pictures, processor
from torch import nn

from hf_explain import METHODS, Classifier, ExplainerError
from hf_explain.methods.semantic_pullback import Once, signed_colors
from hf_explain.methods.soft_backward import Rules, SoftBackward

EXACT = Rules(relu=1e-6, gelu=1.0, silu=1.0, max_pool=1e-6, attention=1.0, norm="adjoint", gates="constant")
ADDED = (
    "bias",
    "embedding",
    "embed",
    "cls_token",
    "mask_token",
    "register_tokens",
    "distillation_token",
    "running_mean",
)

# Options of a family that bring other functions into it.
VARIANTS = {
    "dinov2, SwiGLU": ("dinov2", {"use_swiglu_ffn": True}),
    "vit, eager": ("vit", {"attn_implementation": "eager"}),
    "vit, gelu_new": ("vit", {"hidden_act": "gelu_new"}),
    "vit, gelu_python": ("vit", {"hidden_act": "gelu_python"}),
    "vit, quick_gelu": ("vit", {"hidden_act": "quick_gelu"}),
    "efficientnet, relu6": ("efficientnet", {"hidden_act": "relu6"}),
    "efficientnet, hardswish": ("efficientnet", {"hidden_act": "hardswish"}),
    "mobilenet_v2, hardswish": ("mobilenet_v2", {"hidden_act": "hardswish"}),
    "resnet, bottleneck": ("resnet", {"layer_type": "bottleneck"}),
    "regnet, x": ("regnet", {"layer_type": "x"}),
    "hgnet_v2, affine": ("hgnet_v2", {"use_learnable_affine_block": True}),
    "focalnet, modulator": ("focalnet", {"normalize_modulator": True, "use_post_layernorm_in_modulation": True}),
}
SATURATED = {nn.ReLU6: 6.0, nn.Hardswish: 3.0}


def without_additions(model: nn.Module, gain: float) -> nn.Module:
    """Nothing is added on the way; weights are `gain` times what they were, and norms have random ones."""
    random = torch.Generator().manual_seed(0)
    for name, p in [*model.named_parameters(), *model.named_buffers()]:
        last = name.split(".")[-1]
        if not p.is_floating_point() or any(part in name for part in ("bias_table", "attention_biases", "coords")):
            continue
        with torch.no_grad():
            if any(part in last for part in ADDED) or "position_embedding" in name:
                p.zero_()
            elif p.ndim == 1 or last == "running_var" or "norm" in name or "grn" in name:
                p.copy_(0.5 + torch.rand(p.shape, generator=random, dtype=p.dtype))
            else:
                p.mul_(gain)
    return model


def saturated(classifier, x) -> dict[type, float]:
    """The largest share of a ReLU6's or a hard-swish's inputs that is above its bend, by kind of layer."""
    shares: dict[type, float] = {}

    def look(layer, inputs):
        share = float((inputs[0] > SATURATED[type(layer)]).double().mean())
        shares[type(layer)] = max(shares.get(type(layer), 0.0), share)

    handles = [m.register_forward_pre_hook(look) for m in classifier.modules() if type(m) in SATURATED]
    classifier(x)
    for handle in handles:
        handle.remove()
    return shares


@pytest.mark.parametrize("gain", [1.0, 1.5])
@pytest.mark.parametrize("name", [*CONFIGS, *VARIANTS])
def test_the_logit_is_the_pullback_times_the_picture(name, gain):
    family, options = VARIANTS.get(name, (name, {}))
    model = without_additions(build(family, **options).double(), gain)
    classifier = Classifier(model, processor(64)).freeze()
    x, targets = pictures(2).double(), torch.tensor([1, 2])
    assert torch.equal(signed_colors(classifier.pixel_space, x), x)  # pixel values are colors from -1 to 1
    once = Once(classifier, EXACT)
    found = (once(x, targets) * x).sum((1, 2, 3))
    logits = classifier(x).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(found, logits, rtol=1e-9, atol=0)
    assert set(once.mode.uncovered) <= {"amax"}  # of Hiera, which is affine as it is
    assert all(share > 0.01 for share in saturated(classifier, x).values()) or gain == 1
    soft = Once(classifier)
    assert not torch.allclose((soft(x, targets) * x).sum((1, 2, 3)), logits, rtol=1e-6)


@pytest.mark.parametrize("family", ["vit", "dinov2", "convnext", "swin", "siglip", "poolformer", "bit"])
def test_with_what_is_added(family):
    """logit = <pullback, x> + what biases, tokens and positions give: each parameter added somewhere, times its own."""
    model = build(family).double()
    classifier = Classifier(model, processor(64))
    classifier.requires_grad_(False)
    added = [p for name, p in model.named_parameters() if adds(name)]
    for i, p in enumerate(added):
        nn.init.normal_(p, 0, 0.1, generator=torch.Generator().manual_seed(i)).requires_grad_(True)
    x = pictures(1).double().requires_grad_(True)
    for rules, exact in ((EXACT, True), (Rules(norm="adjoint", relu=1e-6, max_pool=1e-6), True), (Rules(), False)):
        with SoftBackward(rules):
            logit = classifier(x)[0, 1]
        found = torch.autograd.grad(logit, [x, *added], allow_unused=True)
        total = sum((g * p).sum() for g, p in zip(found, [x, *added]) if g is not None)
        error = float(((total - logit) / logit).abs().detach())
        assert (error < 1e-9) == exact, error


def adds(name: str) -> bool:
    """Whether a parameter is added on the way: biases of layers, tokens, positions; not those inside attention."""
    inside = ("relative_position_bias", "query.bias", "key.bias", "q_proj.bias", "k_proj.bias")
    if any(part in name for part in inside):
        return False
    return name.endswith(".bias") or any(part in name for part in ("cls_token", "position_embedding", "mask_token"))


def test_weights_that_require_gradients_change_nothing():
    """Layer scales and other parameters that multiply are no branches."""
    for family in ("convnextv2", "swiftformer", "efficientnet", "dinov2", "swinv2"):
        classifier, x, targets = Classifier(build(family), processor(64)), pictures(2), torch.tensor([1, 2])
        assert all(p.requires_grad for p in classifier.parameters())
        found, learned = Once(classifier, EXACT)(x, targets), Once(classifier)
        default = learned(x, targets)
        frozen = Once(classifier.freeze())
        torch.testing.assert_close(Once(classifier, EXACT)(x, targets), found, msg=lambda m, family=family: family + m)
        torch.testing.assert_close(frozen(x, targets), default)
        assert frozen.mode.uncovered == learned.mode.uncovered


def test_squeeze_and_excitation_after_a_silu():
    """Both of its factors are gates elsewhere; here the sigmoid is."""
    classifier, x = Classifier(build("efficientnet"), processor(64)).freeze(), pictures(2)
    found = METHODS["semantic_pullback"](classifier, x, 1, rules=Rules(gates="constant"))
    assert torch.isfinite(found).all() and found.abs().sum() > 0
    assert not torch.allclose(found, METHODS["semantic_pullback"](classifier, x, 1), rtol=1e-3)


def test_a_network_all_of_gates():
    classifier = Classifier(build("efficientnet", hidden_act="tanh"), processor(64)).freeze()
    with pytest.raises(ExplainerError, match="gates='constant' leaves no way"):
        METHODS["semantic_pullback"](classifier, pictures(1), rules=Rules(gates="constant"))
