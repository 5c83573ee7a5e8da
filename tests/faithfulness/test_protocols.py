"""Every preset against its published protocol, restated in plain loops on 4 x 4 pictures."""

import math

import pytest
import torch
from families import build, pictures, processor
from metric_cases import tiny

from hf_explain import Classifier, ExplainerError
from hf_explain.explaining.regions import smallest_region
from hf_explain.faithfulness import PRESETS, correlations, measure, robustness
from hf_explain.faithfulness.protocols import Protocol, read_protocol
from hf_explain.modeling.perturbation import order_each
from hf_explain.modeling.references import reference_image

WEIGHTS = torch.randn(48, 5, generator=torch.Generator().manual_seed(0))
X = pictures(2, (4, 4))
MAPS = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(2))
LABELS = [3, 1]
COLORED = [name for name in PRESETS if name not in ("drop", "sp")]  # on any classifier


def logits(x):
    return x.flatten(1) @ WEIGHTS


def ours(preset, **changes):
    return measure(tiny(logits), X, MAPS, LABELS, preset, **changes)


def order_of(attribution):
    """Most important first."""
    return sorted(range(16), key=lambda i: -float(attribution.flatten()[i]))


def with_pixels_of(picture, other, places):
    out = picture.clone()
    for i in places:
        out[:, i // 4, i % 4] = other[:, i // 4, i % 4]
    return out


def probability(image, label):
    values = [float(v) for v in logits(image[None])[0]]
    return math.exp(values[label]) / sum(math.exp(v) for v in values)


def right(image, label):
    values = logits(image[None])[0].tolist()
    return float(values.index(max(values)) == label)


def trapezoids(curve, dx):
    return sum((curve[i] + curve[i + 1]) / 2 * dx for i in range(len(curve) - 1))


def close(found, expected):
    assert found.tolist() == pytest.approx(expected, abs=2e-6)


def test_rise():
    """Rows of pixels per step; zeros of the normalized picture; insertion from RISE's blur of it."""
    deletion, insertion = [], []
    for x, attribution, label in zip(X, MAPS, LABELS, strict=True):
        order, blurred = order_of(attribution), reference_image(x[None], None, "rise_blur")[0]
        steps = range(0, 17, 4)
        down = [probability(with_pixels_of(x, torch.zeros_like(x), order[:k]), label) for k in steps]
        up = [probability(with_pixels_of(blurred, x, order[:k]), label) for k in steps]
        for areas, curve in ((deletion, down), (insertion, up)):
            areas.append((sum(curve) - curve[0] / 2 - curve[-1] / 2) / (len(curve) - 1))
    report = ours("rise")
    close(report.deletion, deletion), close(report.insertion, insertion)


def test_rises_blur_in_plain_loops():
    """A delta under gaussian_filter(sigma=5) of scipy within 11 x 11, whose borders are reflected; zeros around it."""
    one = [sum(math.exp(-0.5 * (d / 5) ** 2) for d in range(-20, 21) if reflected(5 + d) == i) for i in range(11)]
    kernel = [value / sum(one) for value in one]
    assert kernel[5] ** 2 == pytest.approx(0.00883, abs=5e-6) and kernel[0] ** 2 == pytest.approx(0.00774, abs=5e-6)
    found = reference_image(X, None, "rise_blur")
    for y, x in ((0, 0), (1, 3), (3, 2)):
        around = [(v, u) for v in range(4) for u in range(4)]
        expected = sum(kernel[5 + v - y] * kernel[5 + u - x] * X[:, :, v, u] for v, u in around)
        torch.testing.assert_close(found[:, :, y, x], expected, atol=1e-6, rtol=1e-5)


def reflected(i):
    i %= 22
    return i if i < 11 else 21 - i


def test_ltx():
    """0, 10, ..., 90 % of the pixels, rounded down, become black; 90 at most; of the true class."""
    expected = {"positive": [], "negative": [], "deletion": [], "negative_deletion": []}
    for x, attribution, label in zip(X, MAPS, LABELS, strict=True):
        order, black = order_of(attribution), torch.full_like(x, -1.0)  # this processor writes black as -1
        counts = [int(16 * p / 10) for p in range(10)]
        top = [with_pixels_of(x, black, order[:k]) for k in counts]
        low = [with_pixels_of(x, black, order[::-1][:k]) for k in counts]
        for name, images, score in (
            ("positive", top, right), ("negative", low, right),
            ("deletion", top, probability), ("negative_deletion", low, probability),
        ):  # fmt: skip
            expected[name].append(100 * trapezoids([score(image, label) for image in images], 0.1))
    report = ours("ltx")
    for name, values in expected.items():
        close(report.areas[name] / 100, [v / 100 for v in values])


def test_chefer_is_the_same_of_the_prediction():
    report = measure(tiny(logits), X, MAPS, None, "chefer")
    predicted = logits(X).argmax(1)
    assert report.targets.equal(predicted)
    again = measure(tiny(logits), X, MAPS, predicted, "ltx")
    for name in ("positive", "negative"):
        assert torch.equal(report.areas[name], again.areas[name])
    assert set(report.areas) == {"positive", "negative"}


def test_diffmask():
    """A 28th of the picture per step, one fixed picture of noise in [-1, 1], points 1 apart; -log p too."""
    noise = 2 * torch.rand((1, 3, 4, 4), generator=torch.Generator().manual_seed(123))[0] - 1
    expected = {name: [] for name in ("positive", "negative", "positive_surprise", "negative_surprise")}
    for x, attribution, label in zip(X, MAPS, LABELS, strict=True):
        order = order_of(attribution)
        for name, falling in (("positive", order), ("negative", order[::-1])):
            images = [with_pixels_of(x, noise, falling[: round(16 * i / 28)]) for i in range(29)]
            curve = [probability(image, label) for image in images]
            expected[name].append(trapezoids(curve, 1))
            expected[f"{name}_surprise"].append(trapezoids([-math.log(p) for p in curve], 1))
    report = ours("diffmask")
    for name, values in expected.items():
        assert report.areas[name].tolist() == pytest.approx(values, rel=1e-5)


@pytest.mark.parametrize("changes, counts, shares", [
    ({}, [int(16 * i / 10) for i in range(11)], [i / 10 for i in range(11)]),
    ({"step": 6, "area": "shares"}, [0, 6, 12, 16], [0, 0.375, 0.75, 1]),
])  # fmt: skip
def test_xplique_and_torch_cam(changes, counts, shares):
    """Zeros of the normalized picture; torch-cam's last step may be shorter, and lies where it is."""
    deletion, insertion = [], []
    for x, attribution, label in zip(X, MAPS, LABELS, strict=True):
        order, zero = order_of(attribution), torch.zeros_like(x)
        down = [probability(with_pixels_of(x, zero, order[:k]), label) for k in counts]
        up = [probability(with_pixels_of(zero, x, order[:k]), label) for k in counts]
        for areas, curve in ((deletion, down), (insertion, up)):
            pieces = [(curve[i] + curve[i + 1]) / 2 * (shares[i + 1] - shares[i]) for i in range(len(curve) - 1)]
            areas.append(sum(pieces))
    report = ours("xplique", **changes)
    close(report.deletion, deletion), close(report.insertion, insertion)


def test_quantus():
    """Channel entries, not pixels; the picture's minimum; no clean point; points 1 apart."""
    expected = []
    for x, attribution, label in zip(X, MAPS, LABELS, strict=True):
        image, curve = x.clone(), []
        for first in range(0, 16, 2):  # 6 entries: both pixels' three channels, so that their order does not matter
            image = with_pixels_of(image, torch.full_like(x, float(x.min())), order_of(attribution)[first : first + 2])
            curve.append(probability(image, label))
        expected.append(trapezoids(curve, 1))
    report = ours("quantus", step=6)
    close(report.deletion, expected)
    assert report.curves["deletion"].shape == (2, 8)


def test_entries_are_removed_one_by_one():
    classifier = tiny(logits)
    measure(classifier, X[:1], MAPS[:1], [0], "quantus", step=1, batch_size=1)
    changed = [int((seen != X[:1]).sum()) for seen in classifier.seen]
    smallest = int((X[:1] == X[:1].min()).sum())  # stays as it is
    assert changed[-1] >= 46 and max(changed) == 48 - smallest and len(changed) == 48


@pytest.mark.parametrize("level", ["pixel", "patch"])
def test_patches_go_as_a_whole(level):
    """Patches of 2 x 2 in the order of their mean."""
    classifier, x = tiny(logits), X[:1]
    change = {"patch": 2} if level == "patch" else {}
    measure(classifier, x, MAPS[:1], [0], budgets=5, batch_size=1, reference="black", **change)
    means = MAPS[0].view(2, 2, 2, 2).mean((1, 3)).flatten()
    gone = [(seen != x).any(1)[0] for seen in classifier.seen][2:5]  # 4, 8 and 12 pixels, most important first
    assert [int(g.sum()) for g in gone] == [4, 8, 12]
    whole = [g.view(2, 2, 2, 2).float().mean((1, 3)).flatten() for g in gone]
    if level == "patch":
        for k, one in enumerate(whole, start=1):
            assert set(one.nonzero().flatten().tolist()) == set(means.argsort(descending=True)[:k].tolist())
    else:
        assert any(0 < float(share) < 1 for one in whole for share in one)


def test_insertion_starts_at_the_reference_and_negative_deletion_at_the_picture():
    for preset, kind in (("aha", "insertion"), ("ltx", "negative_deletion")):
        classifier = tiny(logits)
        report = measure(classifier, X[:1], MAPS[:1], [0], preset, reference="black", batch_size=1)
        black = probability(torch.full_like(X[0], -1.0), 0)
        first = float(report.curves[kind][0, 0])
        assert (first == pytest.approx(black)) == (kind == "insertion")
        assert (first == pytest.approx(probability(X[0], 0))) == (kind == "negative_deletion")


def test_a_known_pixel_set_gives_ltx_its_extremes():
    """Evidence in less than a tenth of the picture: 5 and 90, the best there is."""
    read = torch.zeros(1, 20, 20)
    read[0, 3:6, 4:8] = 1
    classifier = tiny(lambda x: torch.stack([(x * read).sum((1, 2, 3)), torch.full((len(x),), -1.0)], 1))
    report = measure(classifier, torch.ones(1, 3, 20, 20), read, [0], "ltx")
    assert float(report.areas["positive"]) == pytest.approx(5.0) and float(report.areas["negative"]) == pytest.approx(
        90
    )


@pytest.mark.parametrize("preset", COLORED)
def test_a_constant_classifier(preset):
    """AUC = p where the scale is 1, 90 p for LTX, 28 p for DiffMask."""
    constant = torch.tensor([[1.0, 0.0, 0.0]])
    report = measure(tiny(lambda x: constant.expand(len(x), 3)), X, MAPS, [1, 1], preset)
    p = float(constant.softmax(1)[0, 1])
    scale = {"ltx": 90, "diffmask": 28, "quantus": 11}.get(preset, 1)
    for curve in PRESETS[preset].curves:
        if curve.score == "probability":
            assert report.areas[curve.name].tolist() == pytest.approx([scale * p] * 2, rel=1e-5)
        if curve.score == "indicator":
            assert report.areas[curve.name].tolist() == [0, 0]


@pytest.mark.parametrize("preset", COLORED)
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_size_of_a_batch_changes_nothing(preset, batch_size):
    x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    maps = torch.randint(0, 9, (5, 8, 8), generator=torch.Generator().manual_seed(1)).float()
    weights = torch.randn(192, 4, generator=torch.Generator().manual_seed(3))
    score = lambda x: (x.flatten(1).double() @ weights.double()).float()  # noqa: E731
    expected = [measure(tiny(score), x[i : i + 1], maps[i : i + 1], [i % 4], preset) for i in range(5)]
    report = measure(tiny(score), x, maps, [i % 4 for i in range(5)], preset, batch_size=batch_size)
    for name, area in report.areas.items():
        torch.testing.assert_close(area, torch.cat([e.areas[name] for e in expected]), atol=1e-5, rtol=1e-5)


def test_scores():
    x = X[:1]
    for score, at_clean in (
        ("logit", float(logits(x)[0, 2])), ("probability", probability(x[0], 2)),
        ("surprise", -math.log(probability(x[0], 2))), ("indicator", right(x[0], 2)),
    ):  # fmt: skip
        report = measure(tiny(logits), x, MAPS[:1], [2], score=score)
        assert float(report.curves["deletion"][0, 0]) == pytest.approx(at_clean, abs=1e-5)
        assert report.protocol["curves"]["deletion"] == f"deletion, {score}"


def test_random_references_are_the_same_for_every_picture_and_seeded():
    for reference in ("noise", "signed_noise"):
        seen = []
        for seed in (0, 0, 1):
            classifier = tiny(logits)
            measure(classifier, X, MAPS, [0, 0], reference=reference, seed=seed, batch_size=1)
            seen.append(classifier.seen[1])
        assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])


def test_cuts_are_what_the_protocols_say():
    assert PRESETS["rise"].cuts(224, 224) == list(range(0, 50177, 224))
    assert PRESETS["ltx"].cuts(224, 224) == [int(50176 * p / 10) for p in range(10)]
    assert PRESETS["aha"].cuts(224, 224) == [round(50176 * i / 20) for i in range(21)]
    assert PRESETS["diffmask"].cuts(224, 224) == [1792 * i for i in range(29)]
    assert read_protocol("xplique", {"budgets": 17}).cuts(224, 224) == [3136 * i for i in range(17)]
    assert read_protocol("rise", {"step": 1792}).cuts(224, 224) == list(range(0, 50177, 1792))
    assert Protocol("x", budgets=None, step=5).cuts(4, 4) == [0, 5, 10, 15, 16]
    assert PRESETS["quantus"].cuts(4, 4) == list(range(0, 49, 4))


def test_ties_are_ordered_as_if_alone():
    values = torch.randint(0, 3, (4, 30), generator=torch.Generator().manual_seed(0)).float()
    values[1] = torch.rand(30)
    together = order_each(values, seed=5)
    for i in range(4):
        assert torch.equal(together[i], order_each(values[i : i + 1], seed=5)[0])
        assert (values[i, together[i]].diff() <= 0).all() and together[i].unique().numel() == 30
    assert not torch.equal(together, order_each(values, seed=6)) and torch.equal(together[1], order_each(values, 6)[1])


def test_a_presets_score_is_checked():
    with pytest.raises(ExplainerError, match="unknown argument curves"):
        read_protocol("aha", {"curves": ()})


# ---- patches that leave the sequence ----


@pytest.mark.parametrize("family", ["vit", "deit"])
@torch.no_grad()
def test_dropped_patches_leave_the_sequence(family):
    """Restated with attention masked: a token nobody attends to is as good as gone."""
    model = build(family, attn_implementation="eager")
    classifier, x = Classifier(model, processor(64)), pictures(2)
    maps = torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(1))
    report = measure(classifier, x, maps, [1, 2], "drop", budgets=5)
    means = maps.view(2, 8, 8, 8, 8).mean((2, 4)).flatten(1)
    before = {"vit": 1, "deit": 2}[family]
    for picture, label in ((0, 1), (1, 2)):
        order = means[picture].argsort(descending=True)
        for point, count in enumerate((0, 16, 32, 48, 64)):
            for name, gone in (("deletion", order[:count]), ("insertion", order[count:])):
                seen = forward_without(model, x[picture : picture + 1], gone + before)
                expected = seen.softmax(-1)[0, label]
                assert float(report.curves[name][picture, point]) == pytest.approx(float(expected), abs=1e-5)
    assert report.protocol["name"] == "drop" and report.protocol["patch"] == 8


def forward_without(model, x, gone):
    """Logits with the keys of the tokens `gone` at minus infinity in every layer."""

    def mask(module, arguments, keywords):
        bias = torch.zeros(1, 1, arguments[0].shape[1], arguments[0].shape[1])
        bias[..., gone] = -torch.inf
        return (arguments[0], bias, *arguments[2:]), keywords

    attention = [m for m in model.modules() if type(m).__name__.endswith("Attention") and hasattr(m, "scaling")]
    hooks = [m.register_forward_pre_hook(mask, with_kwargs=True) for m in attention]
    assert len(hooks) == 4
    try:
        return model(pixel_values=x).logits
    finally:
        for hook in hooks:
            hook.remove()


def test_dropping_is_for_vits_and_leaves_nothing_behind():
    maps = torch.rand(1, 64, 64)
    with pytest.raises(ExplainerError, match="this classifier is of type 'resnet'"):
        measure(Classifier(build("resnet"), processor(64)), pictures(1), maps, preset="drop")
    classifier = Classifier(build("vit"), processor(64))
    with pytest.raises(ExplainerError, match="removes the classifier's own patches of 8"):
        measure(classifier, pictures(1), maps, preset="drop", patch=4)
    broken = classifier.model.vit.layers[1]
    broken.forward = lambda *_, **__: [][1]  # an IndexError of the model's own
    with pytest.raises(IndexError):
        measure(classifier, pictures(1), maps, preset="drop")
    assert not classifier.model.vit.embeddings._forward_hooks


# ---- the smallest region ----


def test_the_smallest_region():
    """A classifier that wants two of three cells bright: 2 cells are enough, in the order of the map."""
    cells = torch.zeros(3, 10, 10)
    cells[0, :2, :2], cells[1, 4:6, 4:6], cells[2, 8:, 8:] = 1, 1, 1

    def count(x):
        bright = torch.stack([((x.mean(1) * cell).sum((1, 2)) > 3.5).float() for cell in cells]).sum(0)
        return torch.stack([bright, torch.full_like(bright, 1.5)], 1)

    x = torch.ones(2, 3, 10, 10)
    good = 3 * cells[0] + 2 * cells[1] + cells[2] + torch.rand(10, 10, generator=torch.Generator().manual_seed(0)) / 9
    maps = torch.stack([good, -good])
    found = smallest_region(tiny(count), x, maps, reference="black", budgets=26)
    assert found.shares.tolist() == pytest.approx([0.08, 0.96]) and found.targets.tolist() == [0, 0]
    assert found.masks[0].sum() == 8 and (found.masks[0] == (cells[0] + cells[1]).bool()).all()
    assert found.agreement[0.0] == 0 and found.agreement[0.08] == 0.5 and found.agreement[1.0] == 1
    assert found.protocol["name"] == "smallest_region" and found.protocol["reference"] == "black"


def test_a_share_counts_only_if_larger_ones_keep_the_prediction_too():
    def wavering(x):  # right with a fifth of the pixels, wrong with half of them, right again from 80 % on
        share = (x.mean(1) == 1).float().mean((1, 2))
        right = ((share > 0.15) & (share < 0.4)) | (share > 0.75)
        return torch.stack([right.float(), torch.full_like(share, 0.5)], 1)

    maps = torch.rand(1, 10, 10, generator=torch.Generator().manual_seed(0))
    found = smallest_region(tiny(wavering), torch.ones(1, 3, 10, 10), maps, reference="black", budgets=11)
    assert found.shares.tolist() == pytest.approx([0.8]) and found.agreement[0.2] == 1 and found.agreement[0.5] == 0


def test_only_the_prediction_has_a_smallest_region():
    with pytest.raises(ExplainerError, match="picture 0 is not predicted as class 4"):
        smallest_region(tiny(logits), X, MAPS, [4 if c != 4 else 3 for c in logits(X).argmax(1).tolist()][:1] * 2)


# ---- metrics that are no curves ----


def test_semantic_pullbacks_metrics_are_a_preset():
    """The functions of their own, with the settings of its code."""
    classifier, x = Classifier(build("resnet"), processor(64)), pictures(2)
    maps = torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(0))
    report = measure(classifier, x, maps, [1, 2], "sp", seed=3)
    options = correlations.SP["faithfulness_estimate"]
    expected = correlations.faithfulness_estimate(classifier, x, maps, [1, 2], seed=3, **options)
    torch.testing.assert_close(report.areas["faithfulness_estimate"], expected)
    expected = robustness.infidelity(classifier, x, maps, [1, 2], seed=3, **robustness.SP["infidelity"])
    torch.testing.assert_close(report.areas["infidelity"], expected)
    assert set(report.areas) == {curve.name for curve in PRESETS["sp"].curves} and not report.curves
    assert report.protocol["metrics"]["faithfulness_estimate"] == options and report.protocol["seed"] == 3
    both = measure(classifier, x, {"one": maps, "other": maps.flip(1)}, None, "sp", label="explained", seed=3)
    assert set(both) == {"one", "other"} and both["one"].targets.equal(classifier(x).argmax(1))
    with pytest.raises(ExplainerError, match="has the settings of its authors"):
        measure(classifier, x, maps, [1, 2], "sp", budgets=5)
    with pytest.raises(ExplainerError, match="scores the true class"):
        measure(classifier, x, maps, preset="sp")
