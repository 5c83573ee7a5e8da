"""The slope of a class's logit, half-way to the blurred picture."""

import math

import pytest
import torch
from families import build, pictures, processor

from hf_explain import Classifier
from hf_explain.modeling.pixel_space import PixelSpace
from hf_explain.modeling.references import reference_image
from hf_explain.modeling.slopes import BASELINES, slopes


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Formula:
    """A classifier whose logits are a formula of the pixels."""

    dtype, pixel_space = torch.float32, PixelSpace(gain=(2.0, 2.0, 2.0), offset=(-1.0, -1.0, -1.0))

    def __init__(self, formula):
        self.formula = formula

    def __call__(self, pixel_values):
        return self.formula(pixel_values)


def baselines(classifier, x):
    return [reference_image(x, classifier.pixel_space, name) for name in BASELINES]


def bent(rise):
    """(H, W) in plain Python: divided by its root mean square, then 3 tanh(x / 3)."""
    values = rise.double().flatten().tolist()
    size = (sum(v**2 for v in values) / len(values)) ** 0.5
    return torch.tensor([3 * math.tanh(v / size / 3) for v in values]).view_as(rise)


def test_a_linear_classifier_in_plain_loops():
    """logit = sum(w * x): the map is w * (x - baseline), summed over the channels."""
    weight, x = torch.randn(5, 3, 4, 4, generator=generator()), pictures(2, (4, 4))
    targets = torch.tensor([[3, 1, 2], [0, 4, 4]])
    classifier = Formula(lambda p: torch.einsum("bchw,kchw->bk", p, weight))
    found = slopes(classifier, x, targets)
    assert found.shape == (2, 3, len(BASELINES), 4, 4) and found.dtype == torch.float32
    for b in range(2):
        for t in range(3):
            for r, baseline in enumerate(baselines(classifier, x)):
                rise = torch.zeros(4, 4)
                for row in range(4):
                    for column in range(4):
                        for c in range(3):
                            way = x[b, c, row, column] - baseline[b, c, row, column]
                            rise[row, column] += way * weight[targets[b, t], c, row, column]
                assert torch.allclose(found[b, t, r], bent(rise), atol=1e-5)


def test_the_gradient_is_taken_half_way():
    """logit = sum(w * x * x) / 2 has the gradient w * x: of the mean of the picture and the baseline."""
    weight, x = torch.randn(3, 8, 8, generator=generator()), pictures(1, (8, 8))
    classifier = Formula(lambda p: (p.square() / 2 * weight).sum((1, 2, 3))[:, None])
    found = slopes(classifier, x, torch.tensor([[0]]))
    for r, baseline in enumerate(baselines(classifier, x)):
        way = x - baseline
        half, end = (bent((weight * (baseline + share * way) * way)[0].sum(0)) for share in (0.5, 1))
        assert torch.allclose(found[0, 0, r], half, atol=1e-5) and not torch.allclose(found[0, 0, r], end, atol=0.1)


@pytest.mark.parametrize("family", ["vit", "swin", "resnet"])
def test_a_real_classifier_by_finite_differences(family):
    """The change of the logit when a pixel of the picture half-way moves a little towards the picture."""
    classifier, x = Classifier(build(family), processor(64)), pictures(1).double()
    classifier.double()
    found = slopes(classifier, x, torch.tensor([[2]]))[0, 0]
    places = [(3, 5), (20, 41), (33, 32), (50, 9), (63, 63)]

    @torch.no_grad()
    def rise(middle, way, row, column, step=1e-4):
        moved = torch.zeros_like(middle)
        moved[:, :, row, column] = way[:, :, row, column] * step
        return float(classifier(middle + moved)[0, 2] - classifier(middle - moved)[0, 2]) / (2 * step)

    for r, baseline in enumerate(baselines(classifier, x)):
        measured = torch.tensor([rise((x + baseline) / 2, x - baseline, *at) for at in places])
        straight = torch.stack([torch.atanh(found[r][at] / 3) * 3 for at in places])
        ratio = measured / straight  # the size by which the whole map was divided
        assert (ratio > 0).all() and torch.allclose(ratio, ratio[0].expand(5), rtol=2e-2)


# ---- identities ----


def test_size_and_scale():
    """Of mean square about 1, at most 3, whatever the scale and the offset of the logits."""
    classifier, x = Classifier(build("swin"), processor(64)), pictures(3)
    targets = torch.tensor([[0, 1], [2, 3], [4, 0]])
    found = slopes(classifier, x, targets)
    spread = found.square().mean((3, 4))
    assert found.abs().max() <= 3 and (spread < 1).all() and (spread > 0.3).all()
    for factor, atol in ((1e-4, 1e-3), (50.0, 1e-4)):
        scaled = Formula(lambda p, factor=factor: factor * classifier(p) + 3)
        assert torch.allclose(slopes(scaled, x, targets), found, atol=atol)
    opposite = slopes(Formula(lambda p: -classifier(p)), x, targets)
    assert torch.allclose(opposite, -found, atol=1e-5)


def test_a_class_and_a_picture_never_depend_on_the_others():
    classifier, x = Classifier(build("vit"), processor(64)), pictures(3)
    together = slopes(classifier, x, torch.tensor([[0, 3, 1]] * 3))
    for i in range(3):
        for t, target in enumerate((0, 3, 1)):
            alone = slopes(classifier, x[i : i + 1], torch.tensor([[target]]))
            assert torch.allclose(together[i, t], alone[0, 0], atol=1e-4)
    assert not torch.allclose(together[:, 0], together[:, 1], atol=0.1)


def test_where_nothing_rises_there_is_no_slope():
    """A picture that is its own baseline, also up to rounding, and a class that does not look at the picture."""
    classifier = Classifier(build("vit"), processor(64))
    for value in (-1.0, 0.3):
        found = slopes(classifier, torch.full((1, 3, 64, 64), value), torch.tensor([[1]]))[0, 0]
        assert not found[BASELINES.index("blur")].any()
        assert found[BASELINES.index("black")].any() == (value != -1)
    deaf = Formula(lambda p: 0 * p.sum((1, 2, 3))[:, None] + 1)
    assert not slopes(deaf, pictures(2), torch.tensor([[0], [0]])).any()


# ---- what it shows at once ----


def in_one_forward(classifier, x, targets):
    """The same of all pictures and baselines together."""
    blanks = torch.stack(baselines(classifier, x), 1)
    half_way = ((x[:, None] + blanks) / 2).flatten(0, 1).requires_grad_()
    logits = classifier(half_way).unflatten(0, blanks.shape[:2])
    found = []
    for t in range(targets.shape[1]):
        chosen = logits.gather(2, targets[:, t, None, None].expand(-1, len(BASELINES), 1))
        (slope,) = torch.autograd.grad(chosen.sum(), half_way, retain_graph=True)
        rise = ((x[:, None] - blanks) * slope.view_as(blanks)).float().sum(2)
        size = rise.square().mean((2, 3), keepdim=True).sqrt()
        found.append(3 * torch.tanh(rise / size / 3))
    return torch.stack(found, 1)


@pytest.mark.parametrize(
    ("family", "batch", "most"), [("vit", 1, 3), ("resnet", 2, 3), ("swin", 4, 4), ("resnet", 5, 5)]
)
def test_no_forward_holds_more_pictures_than_the_batch(family, batch, most):
    """But for less than three, which go together; the result is that of one forward."""
    classifier, x = Classifier(build(family).double(), processor(64)), pictures(batch).double()
    targets = torch.arange(2 * batch).view(batch, 2) % 5
    expected, seen = in_one_forward(classifier, x, targets), []
    classifier.model.register_forward_pre_hook(
        lambda model, args, kwargs: seen.append(len([*args, *kwargs.values()][0])), with_kwargs=True
    )
    found = slopes(classifier, x, targets)
    assert max(seen) == most and sum(seen) == 3 * batch and len(seen) == -(-3 * batch // most)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


# ---- what it leaves alone ----


def test_no_gradient_is_kept_or_left():
    classifier, x = Classifier(build("resnet"), processor(64)), pictures(2).requires_grad_(True)
    assert any(p.requires_grad for p in classifier.parameters())
    found = slopes(classifier, x, torch.tensor([[0, 1], [1, 2]]))
    assert not found.requires_grad and x.grad is None
    assert all(p.grad is None for p in classifier.parameters())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_off(context):
    classifier = Classifier(build("swin"), processor(64)).freeze()
    expected = slopes(classifier, pictures(2), torch.tensor([[0], [1]]))
    with context():
        x, targets = pictures(2) + 0, torch.tensor([[0], [1]])
        found = slopes(classifier, x, targets)
        assert torch.is_inference_mode_enabled() == (context is torch.inference_mode)
        assert not torch.is_grad_enabled()
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_classifier_in_bf16():
    full, half = (Classifier(build("vit").to(dtype), processor(64)) for dtype in (torch.float32, torch.bfloat16))
    one, other = (slopes(c, pictures(2), torch.tensor([[0], [1]])) for c in (full, half))
    assert other.dtype == torch.float32 and torch.isfinite(other).all()
    assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.98
