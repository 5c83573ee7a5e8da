"""A map's own few steps: what they promise, what they leave alone, and what they refuse."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from families import build, pictures, processor
from red_cases import FindsRed, generator, red_cells
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_explain import METHODS, Classifier, ExplainerError, RankingExplainerForImageClassification
from hf_explain.faithfulness import PRESETS, measure
from hf_explain.jobs.randomness import keyed
from hf_explain.methods.smoothing import box
from hf_explain.modeling import precision
from hf_explain.modeling.references import REFERENCES
from hf_explain.training import refinement
from hf_explain.training.refinement import FLOOR, SHARES, Curves, Refinement, descend, refine, standardize


@pytest.fixture(scope="module")
def finds_red():
    plain = build("resnet")
    plain.config.id2label = {0: "red", 1: "other"}
    return Classifier(FindsRed(plain.config), processor(64)).freeze()


@pytest.fixture(scope="module")
def vit():
    return Classifier(build("vit"), processor(64)).freeze()


def rough(where, seed=0, noise=2.0):
    """A poor map of the red cells: they are a little brighter than the noise."""
    cells = F.one_hot(where, 64).view(-1, 1, 8, 8).float()
    maps = F.interpolate(cells, size=64)[:, 0]
    return maps + noise * torch.randn(maps.shape, generator=generator(seed))


def curves_of(classifier, x, targets, seed=0, batch_size=32, **changes):
    return Curves(classifier, x, torch.as_tensor(targets).expand(len(x)), Refinement(**changes), seed, batch_size)


# ---- what it is for ----


def untrained(classifier, x, where):
    make = RankingExplainerForImageClassification.from_classifier
    return make(classifier, preset="tiny")(x, 0).attributions


STARTS = {
    "rough": lambda classifier, x, where: rough(where),
    "untrained explainer": untrained,
    "gradient, shifted": lambda classifier, x, where: box(METHODS["gradient"](classifier, x, 0).roll(12, 2), 5),
}


@pytest.mark.parametrize("start", STARTS)
def test_deletion_and_insertion_improve(finds_red, start):
    """Also by a reference that the refinement did not see."""
    x, where = red_cells(3, 3)
    maps = STARTS[start](finds_red, x, where)
    refined = refine(finds_red, x, maps, 0)
    for reference in ("black", "noise"):
        before, after = (measure(finds_red, x, m, 0, reference=reference).mean() for m in (maps, refined))
        assert after["deletion"] < before["deletion"] - 0.02, (before, after)
        assert after["insertion"] > before["insertion"] + 0.02, (before, after)


def test_a_start_of_noise_finds_known_evidence(finds_red):
    x, where = red_cells(4, 5)
    start = METHODS["random"](finds_red, x)
    maps = refine(finds_red, x, start, 0, learning_rate=0.5)
    cells = F.one_hot(where, 64).view(-1, 1, 8, 8)
    inside = F.interpolate(cells.float(), size=64)[:, 0].bool()

    def found(values):
        top = values.flatten(1) >= values.flatten(1).topk(64).values[:, -1:]
        return float((top & inside.flatten(1)).sum() / inside.sum())

    assert found(maps) > found(start) + 0.2, found(maps)


def test_every_class_has_a_map_of_its_own(vit):
    x, start = pictures(1), torch.rand(1, 64, 64, generator=generator())
    maps = [refine(vit, x, start, target, steps=2) for target in (0, 3, None)]
    assert not torch.allclose(maps[0], maps[1])
    assert torch.equal(maps[2], refine(vit, x, start, vit(x).argmax(-1), steps=2))
    for target, one in zip((0, 3), maps[:2], strict=True):
        curves = curves_of(vit, x, target)
        assert curves.hard_loss(one) < curves.hard_loss(standardize(start))


# ---- its own loss ----


def test_its_own_loss_falls(finds_red):
    x, where = red_cells(4, 7)
    curves, start = curves_of(finds_red, x, 0), standardize(rough(where))
    budgets = (torch.arange(8) + 0.5) / 8 * 4096

    def soft(maps):
        masks = refinement.soft_topk(maps.flatten(1), budgets, 0.1).unflatten(2, (64, 64))
        return curves.soft_slope(masks, curves.blank("black"))[1]

    assert (soft(descend(curves, start)) < soft(start) / 3).all()


@pytest.mark.parametrize("learning_rate", [0.1, 100.0])  # by the second every step is a leap into nowhere
def test_never_worse_than_the_start(vit, finds_red, learning_rate):
    for classifier, x in ((vit, pictures(2)), (finds_red, red_cells(2, 8)[0])):
        curves = curves_of(classifier, x, 0, learning_rate=learning_rate)
        start = standardize(METHODS["input_x_gradient"](classifier, x, 0))
        loss, refined = curves.hard_loss(start), descend(curves, start)
        assert (curves.hard_loss(refined) <= loss + 1e-6).all()


def test_the_best_iterate_is_kept(vit):
    """A longer descent of the same steps is never worse, however wild they are."""
    x, start = pictures(2), torch.rand(2, 64, 64, generator=generator())
    curves, wild = curves_of(vit, x, 0), {"learning_rate": 2.0, "compare": 1}
    least = torch.stack([curves.hard_loss(refine(vit, x, start, 0, steps=s, **wild)) for s in (1, 2, 3)])
    assert torch.equal(least, least.cummin(0).values)


def test_the_hard_loss_in_plain_loops(vit):
    x, maps = pictures(1), torch.randn(1, 64, 64, generator=generator())
    order, total = maps.flatten().argsort(descending=True), 0.0
    for reference in ("black", "blur"):
        blank = REFERENCES[reference].make(x, vit.pixel_space, None)
        for share in SHARES:
            removed, kept = x.clone().flatten(2), blank.clone().flatten(2)
            for pixel in order[: round(share * 4096)].tolist():
                removed[0, :, pixel], kept[0, :, pixel] = blank.flatten(2)[0, :, pixel], x.flatten(2)[0, :, pixel]
            scores = [vit(v.view_as(x)).softmax(-1)[0, 2] for v in (removed, kept)]
            total += float(scores[0] + 3 * (1 - scores[1])) / len(SHARES) / 2
    judged = curves_of(vit, x, 2, judges=("black", "blur"), references=("mean",), insertion=3)
    assert float(judged.hard_loss(maps)) == pytest.approx(total, abs=1e-5)


def test_the_gradient_in_one_piece(vit):
    """In chunks of any size: the gradient autograd finds of the whole sum."""
    x, masks = pictures(2), torch.rand(2, 3, 64, 64, generator=generator()).requires_grad_(True)
    blank = curves_of(vit, x, 1).blank("blur")
    loss = 0
    for k in range(3):
        for removes, mask in ((True, masks[:, k]), (False, 1 - masks[:, k])):
            p = vit(x + mask[:, None] * (blank - x)).softmax(-1)[:, 1]
            loss = loss - (torch.log(1 - p + FLOOR) if removes else 3 * torch.log(p + FLOOR)).sum() / 3
    (expected,) = torch.autograd.grad(loss, masks)
    for batch_size in (1, 4, 32):
        curves = curves_of(vit, x, 1, batch_size=batch_size, insertion=3.0)
        slope, value = curves.soft_slope(masks.detach(), blank)
        torch.testing.assert_close(slope, expected, atol=1e-7, rtol=1e-4)
        assert float(value.sum()) == pytest.approx(float(loss.detach()), abs=1e-5)


def test_the_weight_of_insertion(vit):
    """What counts more ends better."""
    x, start = pictures(4), torch.rand(4, 64, 64, generator=generator())
    maps = [refine(vit, x, start, 0, insertion=weight) for weight in (0.01, 100)]
    low, high = (measure(vit, x, one, 0, reference="black").mean() for one in maps)
    assert low["deletion"] < high["deletion"] and low["insertion"] < high["insertion"]


def test_selection_never_sees_what_is_reported():
    """By the default preset; others remove pixels as a refinement does."""
    protocol = PRESETS["aha"]
    reported = {round(point / (protocol.budgets - 1), 9) for point in range(protocol.budgets)}
    assert not reported & {round(share, 9) for share in SHARES}
    assert protocol.reference not in (*Refinement().references, *Refinement().judges)


# ---- what decides, and what does not ----


@pytest.mark.parametrize(("count", "references"), [(8, ("black", "blur")), (3, ("noise", 0.3))])
def test_neither_the_batch_nor_its_size_matters(vit, count, references):
    x, starts = pictures(count), torch.rand(count, 64, 64, generator=generator())
    targets, options = torch.arange(count) % 5, {"steps": 2, "references": references}
    together = refine(vit, x, starts, targets, **options)
    alone = [
        refine(vit, x[i : i + 1], starts[i : i + 1], targets[i : i + 1], batch_size=5, **options) for i in range(count)
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=0)


def test_the_seed_alone_decides(vit):
    x, start = pictures(1), torch.rand(1, 64, 64, generator=generator())
    state = torch.get_rng_state()
    one, same, other = (refine(vit, x, start, 0, seed=s, steps=2) for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.allclose(one, other)
    assert torch.equal(state, torch.get_rng_state())


def test_scale_and_place_of_the_start_do_not_matter(vit):
    x, start = pictures(1), torch.rand(1, 64, 64, generator=generator())
    one = refine(vit, x, start, 0, steps=2)
    for same in (start * 1e-20, start * 1e20, start * 100 - 7):
        torch.testing.assert_close(refine(vit, x, same, 0, steps=2), one, atol=1e-3, rtol=0)


def test_the_start_in_standard_form():
    maps = 3 * torch.randn(4, 64, 96, generator=generator()) + 5
    maps[1, 0, 0] = 1e9  # an outlier
    maps[2] = 0
    maps[2, 7, 7] = 1  # hardly a map
    maps[3] = (maps[3] > 7).float()
    found = standardize(maps)
    for one, before in zip(found, maps, strict=True):
        assert torch.isfinite(one).all() and (one.flatten()[before.flatten().argsort()].diff() >= 0).all()
    for i in (0, 1):
        inner = found[i].flatten().sort().values[61:-61]
        assert abs(float(inner.mean())) < 0.02 and 0.9 < float(inner.std()) < 1
    assert [len(one.unique()) for one in found[2:]] == [2, 2]


def test_where_there_is_no_float64(vit, monkeypatch):
    """As on Apple's devices: float32 alone, whatever the scale, and the same standard form."""
    maps = torch.rand(6, 64, 64, generator=generator())
    maps = torch.stack([maps[0] * 1e-20, maps[1] * 1e20, maps[2] * 100 - 7, maps[3] + 1000, *maps[4:]])
    maps[4, 0, 0], maps[5] = 1e9, (maps[5] > 0.999).float()
    exact = standardize(maps)
    monkeypatch.setattr(precision, "WITHOUT_FLOAT64", {"cpu"})
    with NoFloat64():
        found = standardize(maps)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, atol=1e-5, rtol=1e-5)
    assert torch.isfinite(refine(vit, pictures(2), maps[:2], 0, steps=1)).all()


class NoFloat64(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        assert all(getattr(one, "dtype", None) != torch.float64 for one in tree_leaves(result)), function
        return result


@pytest.mark.parametrize("scales", [(None,), (4, 8), (3, 16, 1000, None)])
def test_pictures_that_are_not_square(scales):
    resnet = Classifier(build("resnet"), processor(64)).freeze()
    x, start = pictures(2, (64, 96)), torch.rand(2, 64, 96, generator=generator())
    maps = refine(resnet, x, start, 0, steps=1, scales=scales)
    assert maps.shape == (2, 64, 96) and torch.isfinite(maps).all()


def test_no_steps_return_the_map(vit):
    start = torch.rand(2, 64, 64, dtype=torch.float64)
    maps = refine(vit, pictures(2), start, steps=0)
    assert torch.equal(maps, start.float()) and maps.data_ptr() != start.data_ptr()


def test_ties_are_broken_by_the_seed_and_the_gradient(finds_red):
    """A mask has two values only."""
    x, _ = red_cells(1, 9)
    mask = (torch.rand(1, 64, 64, generator=generator()) < 0.5).float()
    maps = refine(finds_red, x, mask, 0, steps=2)
    assert len(maps.unique()) > 2


# ---- nothing is left behind ----


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_the_classifier_is_untouched(mode):
    model = build("swin").train()  # not frozen, and in training mode
    x, start = pictures(2), torch.rand(2, 64, 64, requires_grad=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [(m.training, len(m._forward_hooks)) for m in model.modules()]
    with mode():
        maps = refine(model, x, start, 0, steps=2, image_processor=processor(64))
    assert not maps.requires_grad and not maps.is_inference() and start.grad is None and x.grad is None
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert [(m.training, len(m._forward_hooks)) for m in model.modules()] == flags
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_batch_size_is_pictures_per_forward(vit, monkeypatch):
    seen, forward = [], vit.model.forward
    monkeypatch.setattr(
        vit.model, "forward", lambda pixel_values, **k: seen.append(len(pixel_values)) or forward(pixel_values, **k)
    )
    refine(vit, pictures(3), torch.rand(3, 64, 64), 0, steps=1, batch_size=4, references=["black"])
    assert max(seen) == 4 and sum(seen) == 3 + 3 * (2 * 6 + 2 * 2 * len(SHARES))


def test_comparing_costs_what_it_says(vit, monkeypatch):
    calls, hard_loss = [], Curves.hard_loss
    monkeypatch.setattr(Curves, "hard_loss", lambda self, maps: calls.append(1) or hard_loss(self, maps))
    for steps, compare, expected in ((4, 2, 3), (5, 2, 4), (2, 9, 2), (2, 1, 3)):
        refine(vit, pictures(1), torch.rand(1, 64, 64), 0, steps=steps, compare=compare, references=["black"])
        assert len(calls) == expected
        calls.clear()


def test_a_classifier_in_half_precision():
    half = Classifier(build("vit").bfloat16(), processor(64)).freeze()
    maps = refine(half, pictures(1), torch.rand(1, 64, 64), 0, steps=2)
    assert maps.dtype == torch.float32 and torch.isfinite(maps).all()


def test_a_flat_classifier_leaves_the_start():
    """No gradient, nothing better: the start itself, standardized, and no division by zero."""
    model = build("resnet")
    with torch.no_grad():
        model.classifier[1].weight.zero_()
    start = torch.rand(1, 64, 64, generator=generator())
    maps = refine(Classifier(model, processor(64)).freeze(), pictures(1), start, 0, steps=2)
    assert torch.equal(maps, standardize(start))


def test_the_bar_counts_steps_of_groups(vit, monkeypatch):
    made = []

    class Bar:
        def __init__(self, total, disable, **kwargs):
            made.append((total, disable))
            self.count = 0

        def __enter__(self):
            return self

        def __exit__(self, *args):
            made.append(self.count)

        def update(self):
            self.count += 1

    monkeypatch.setattr(refinement.logging, "tqdm", Bar)
    x, start = pictures(3), torch.rand(3, 64, 64)
    refine(vit, x, start, 0, steps=2, batch_size=2, budgets=1)
    assert made == [(4, None), 4]  # None: silent where there is no terminal
    refine(vit, x[:1], start[:1], 0, steps=2)
    assert made[2][1] is True


# ---- what is refused ----


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": -1}, "steps=-1; give an integer of at least 0"),
        ({"steps": 1.5}, "steps=1.5; give"),
        ({"seed": -1}, "seed=-1; give"),
        ({"batch_size": 0}, "batch_size=0; give"),
        ({"compare": 0}, "compare=0; give"),
        ({"references": (torch.zeros(1, 3, 1, 1),)}, "unknown reference Tensor; choose"),
        ({"budgets": 0}, "budgets=0; give"),
        ({"tau": 0.0}, "tau=0.0; give a number above 0"),
        ({"insertion": -1.0}, "insertion=-1.0; give a number above 0"),
        ({"learning_rate": "fast"}, "learning_rate='fast'; give a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan; give"),
        ({"references": "black"}, "references='black'; give a tuple"),
        ({"references": ()}, r"references=\(\); give a tuple"),
        ({"references": ("grey",)}, "unknown reference 'grey'; choose from black, mean, blur, noise"),
        ({"references": (2.0,)}, "unknown reference 2.0; choose"),
        ({"scales": (0,)}, "a scale=0; give"),
        ({"preset": "aha"}, "unknown argument preset; a refinement has steps, learning_rate"),
        ({"targets": [0, 1, 2]}, r"targets of shape \(3,\)"),
        ({"targets": [[0, 1], [1, 2]]}, "a map is refined for one class"),
        ({"targets": 9}, "target 9 is no class"),
        ({"attributions": torch.ones(2, 64, 64)}, "image 0 is constant, so it ranks nothing"),
        ({"attributions": torch.full((2, 64, 64), torch.nan)}, "image 0 holds NaN"),
        ({"attributions": torch.rand(2, 8, 8)}, "give one map .H, W. per picture"),
        ({"classifier": build("vit")}, "give image_processor="),
    ],
)
def test_one_sentence(vit, changes, message):
    call = {"classifier": vit, "pixel_values": pictures(2), "attributions": torch.rand(2, 64, 64), **changes}
    with pytest.raises(ExplainerError, match=message) as caught:
        refine(**call)
    assert "\n" not in str(caught.value) and str(caught.value)[-1] in ".?"


def test_defaults_are_written_once():
    given = inspect.signature(refine).parameters
    assert given["steps"].default == Refinement().steps


def test_noise_of_a_step_is_one_picture_for_all(vit):
    curves = curves_of(vit, pictures(3), 0, seed=4)
    blank = curves.blank("noise", 1)
    assert torch.equal(blank[0], blank[2]) and not torch.equal(blank, curves.blank("noise", 2))
    expected = REFERENCES["noise"].make(pictures(1), vit.pixel_space, keyed(4, 1))
    assert torch.equal(blank[:1], expected)
