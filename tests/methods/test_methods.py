"""One calling form for everything that attributes without training."""

import pytest
import torch
from families import build, pictures, processor
from method_cases import NO_RELU, SAME_FOR_ALL_CLASSES, defined, is_defined, quick

from hf_explain import METHODS, Classifier, ExplainerError
from hf_explain.methods.calling import attribute

FAMILIES = ("vit", "swin", "convnext", "resnet", "dinov2")


@pytest.mark.parametrize("name, family", [(name, family) for family in FAMILIES for name in defined(family)])
def test_form(name, family):
    classifier, x, method = Classifier(build(family), processor(64)), pictures(3), quick(name)
    maps = method(classifier, x)
    assert maps.shape == (3, 64, 64) and maps.dtype == torch.float32 and not maps.requires_grad
    assert torch.isfinite(maps).all()
    assert all(m.std() > 0 for m in maps) or "cam" in name  # what speaks against the class everywhere is 0 everywhere
    with torch.no_grad():
        prediction = classifier(x).argmax(-1)
    scale = maps.abs().max()
    assert torch.allclose(maps, method(classifier, x, prediction), atol=1e-4 * scale)
    if name != "random":
        one = method(classifier, x, 1)  # one target for all equals single calls
        single = torch.cat([method(classifier, x[i : i + 1], torch.tensor([1])) for i in range(3)])
        assert torch.allclose(one, single, atol=1e-3 * scale)
        other = method(classifier, x, 2)
        assert torch.allclose(one, other, atol=1e-2 * scale) == (name in SAME_FOR_ALL_CLASSES or not scale)


@pytest.mark.parametrize("name, family", [(name, family) for family in FAMILIES for name in METHODS])
def test_where_it_is_not_defined_one_sentence_says_so(name, family):
    if is_defined(name, family):
        return
    classifier = Classifier(build(family), processor(64))
    reason = "has none|attends within windows" if name not in NO_RELU else "is defined by ReLUs, but .* has none"
    with pytest.raises(ExplainerError, match=f"({reason}).*; choose another method"):
        METHODS[name](classifier, pictures(2))


def family_for(name):
    return "resnet" if name in NO_RELU else "vit"


@pytest.mark.parametrize("name", METHODS)
def test_it_works_without_gradients_and_in_bf16(name):
    classifier = Classifier(build(family_for(name)).to(torch.bfloat16), processor(64))
    with torch.no_grad():
        maps = quick(name)(classifier, pictures().to(torch.bfloat16))
    assert maps.dtype == torch.float32 and torch.isfinite(maps).all()


def test_random_is_from_its_seed():
    classifier, x = Classifier(build("vit"), processor(64)), pictures()
    draw = lambda seed: METHODS["random"](classifier, x, seed=seed)  # noqa: E731
    assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))


def test_gradients_of_a_linear_model():
    """logit = sum(w * x): the gradient is w, and input x gradient sums to the logit."""

    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(5, 3, 8, 8))

    model = Linear()

    class Fixed:
        dtype, device = torch.float32, torch.device("cpu")

        def __call__(self, x):
            return torch.einsum("bchw,kchw->bk", x, model.weight)

    x = pictures(2, (8, 8))
    maps = METHODS["input_x_gradient"](Fixed(), x, torch.tensor([1, 4]))
    logits = Fixed()(x)
    assert torch.allclose(maps.sum((1, 2)), logits[[0, 1], [1, 4]], atol=1e-3)
    gradient = METHODS["gradient"](Fixed(), x, torch.tensor([1, 4]))
    assert torch.allclose(gradient, model.weight[[1, 4]].abs().amax(1))
    assert model.weight.grad is None


@pytest.mark.parametrize("name", METHODS)
def test_no_gradient_is_kept(name):
    model = build(family_for(name))
    x = pictures().requires_grad_(True)
    quick(name)(Classifier(model, processor(64)), x)
    assert x.grad is None and all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_inference_mode(name):
    classifier, x, method = Classifier(build(family_for(name)), processor(64)), pictures(), quick(name)
    expected = method(classifier, x, 1)
    with torch.inference_mode():
        assert torch.allclose(method(classifier, x, 1), expected, atol=1e-4 * expected.abs().max())


@pytest.mark.parametrize(
    "targets, message",
    [
        (7, "target 7 is no class; give integers from 0 to 4"),
        ([1, 2, 3], r"shape \(3,\) for 2 images; give"),
        ([1], r"shape \(1,\) for 2 images; give"),
        ([[1, 2], [3, 4]], "explains one class per image"),
        ("zebra", "are no classes; give"),
    ],
)
def test_wrong_targets(targets, message):
    with pytest.raises(ExplainerError, match=message):
        METHODS["gradient"](Classifier(build("vit"), processor(64)), pictures(2), targets)


def test_a_bare_model_is_refused():
    with pytest.raises(ExplainerError, match=r"ViTForImageClassification returns no plain logits; give Classifier\("):
        METHODS["gradient"](build("vit"), pictures(2))


def test_integrated_gradients_are_complete():
    """They sum to the difference of the logits between picture and reference, whatever the batch size."""
    classifier, x = Classifier(build("vit"), processor(64)), pictures(3)
    from hf_explain.modeling.references import reference_image

    targets = torch.tensor([1, 4, 0])
    maps = METHODS["integrated_gradients"](classifier, x, targets, steps=64, reference="mean", batch_size=64)
    with torch.no_grad():
        start = reference_image(x, classifier.pixel_space, "mean")
        difference = (classifier(x) - classifier(start)).gather(1, targets[:, None])[:, 0]
    assert torch.allclose(maps.sum((1, 2)), difference, rtol=0.02, atol=1e-3)
    chunked = METHODS["integrated_gradients"](classifier, x, targets, steps=64, reference="mean", batch_size=2)
    assert torch.allclose(maps, chunked, atol=1e-4 * maps.abs().max())


def test_occlusion_in_plain_loops():
    """The fall of the probability, averaged over the squares that cover a pixel."""
    from hf_explain.modeling.references import reference_image

    classifier, x = Classifier(build("resnet"), processor(64)), pictures(2)
    maps = METHODS["occlusion"](classifier, x, 2, window=32, stride=16, reference="black", batch_size=3)
    cover = reference_image(x, classifier.pixel_space, "black")
    fall, covered = torch.zeros(2, 64, 64), torch.zeros(64, 64)
    with torch.no_grad():
        clean = classifier.scores(classifier(x))[:, 2]
        for top in range(0, 33, 16):
            for left in range(0, 33, 16):
                square = (slice(top, top + 32), slice(left, left + 32))
                hidden = x.clone()
                hidden[:, :, *square] = cover[:, :, *square]
                fall[:, *square] += (clean - classifier.scores(classifier(hidden))[:, 2])[:, None, None]
                covered[square] += 1
    assert torch.allclose(maps, fall / covered, atol=1e-5)


@pytest.mark.parametrize("window, stride", [(0, 1), (4, 8), (65, 1)])
def test_wrong_windows(window, stride):
    with pytest.raises(ExplainerError, match=f"window={window} and stride={stride} for 64 x 64 pictures; give"):
        METHODS["occlusion"](Classifier(build("vit"), processor(64)), pictures(), window=window, stride=stride)


def test_any_number_of_pictures():
    """Batches change nothing, and a method gets the options it takes and no others."""
    classifier, x, targets = Classifier(build("resnet"), processor(64)), pictures(5), torch.arange(5)
    whole = METHODS["gradient"](classifier, x, targets)
    assert torch.allclose(
        attribute(METHODS["gradient"], classifier, x, targets, batch_size=2, seed=3), whole, atol=1e-6
    )
    asked = []

    def method(classifier, pixel_values, targets, *, batch_size, seed=7, window=1):
        asked.append((len(pixel_values), batch_size, seed, window))
        return torch.zeros(len(pixel_values), 64, 64, dtype=torch.float64)

    assert attribute(method, classifier, x, targets, batch_size=2, seed=3, options={"window": 4}).dtype == torch.float32
    attribute(method, classifier, x, targets, batch_size=8)
    assert asked == [(2, 2, 3, 4), (2, 2, 5, 4), (1, 2, 7, 4), (5, 8, 7, 1)]
