"""Grids of pictures: what is in them, what the classifier sees of them, and what their scores are, in plain loops."""

import math
from functools import cache

import pytest
import torch
from families import CONFIGS, build, pictures, processor
from method_cases import quick

from hf_explain import METHODS, Classifier, ExplainerError, RankingExplainerForImageClassification
from hf_explain.localization import average_precision, localization_score, pointing_game
from hf_explain.localization.grid_classifier import GridClassifier
from hf_explain.localization.grid_scores import cell_masks, cut, cut_all, stitch
from hf_explain.localization.grids import confident_pictures, explain_cells, explain_grids, make_grids
from hf_explain.methods.layers import find_layers

SMALL = ("hiera", "pvt", "levit")  # refuse larger pictures
SPECIAL = ("vit", "vit_msn", "deit", "dinov2", "dinov2_with_registers", "pvt", "cvt")  # heads that read a special token

INSIDE = ("grad_cam", "grad_cam_plus_plus", "layer_cam", "guided_grad_cam", "score_cam", "attention_rollout",
          "transformer_attribution")  # fmt: skip


@cache
def classifier_of(family):
    return Classifier(build(family), processor(64)).freeze()


def grids_of(kind, count=1, seed=0, **options):
    return make_grids(pictures(16), torch.arange(16) % 5, count, kind=kind, seed=seed, **options)


def cut_out(maps, cell):
    """The maps of 2 x 2 grids with zeros in the cell."""
    maps = maps.clone()
    cut(maps, 2, cell).zero_()
    return maps


# ---- the formula ----


def plain_score(channels, cell, size):
    """Of one map (C, h, w), restated: sum, enlarge by half-pixel bilinear interpolation, clamp, ratio."""
    h, w = len(channels[0]), len(channels[0][0])
    flat = [[sum(c[y][x] for c in channels) for x in range(w)] for y in range(h)]

    def at(y, x):
        y, x = max(0.0, (y + 0.5) * h / size - 0.5), max(0.0, (x + 0.5) * w / size - 0.5)
        top, left = int(y), int(x)
        below, right, dy, dx = min(top + 1, h - 1), min(left + 1, w - 1), y - top, x - left
        upper = flat[top][left] * (1 - dx) + flat[top][right] * dx
        return upper * (1 - dy) + (flat[below][left] * (1 - dx) + flat[below][right] * dx) * dy

    inside = total = 0.0
    for y in range(size):
        for x in range(size):
            value = max(0.0, at(y, x))
            total += value
            inside += value * ((y >= size // 2) * 2 + (x >= size // 2) == cell)
    return inside / total


@pytest.mark.parametrize("size", [4, 8, 12])
def test_localization_score_in_plain_loops(size):
    maps, cells = torch.randn(8, 3, 4, 4, dtype=torch.float64), torch.arange(8) % 4
    found = localization_score(maps, cells, 2, (size, size)).values
    for value, one, cell in zip(found.tolist(), maps.tolist(), cells.tolist(), strict=True):
        assert value == pytest.approx(plain_score(one, cell, size), abs=1e-5)
    chunks = localization_score(maps, cells, 2, (size, size), batch_size=3).values
    assert torch.allclose(found, chunks) and found.std() > 0.05


def test_negative_pixels_count_after_enlarging_and_not_before():
    maps = torch.tensor([[[4.0, -4.0], [0.0, 0.0]]])
    kept = localization_score(maps, torch.tensor([1]), 2, (8, 8)).values
    assert localization_score(maps.clamp(min=0), torch.tensor([1]), 2, (8, 8)).values > 0
    assert kept == 0  # the negative cell eats the bleeding of its neighbor


def test_maps_without_mass_are_counted_and_tiny_ones_are_not():
    maps = torch.stack([torch.zeros(4, 4), -torch.ones(4, 4), 1e-12 * torch.ones(4, 4), torch.eye(4)])
    scores = localization_score(maps, torch.zeros(4, dtype=torch.long))
    assert scores.empty.tolist() == [True, True, False, False]
    assert scores.values.tolist() == pytest.approx([0, 0, 0.25, 0.5])
    summary = scores.summary()
    assert summary["empty"] == 2 and summary["n"] == 4 and summary["median"] == pytest.approx(0.125)
    assert summary["mean"] == pytest.approx(0.1875) and summary["high_quartile"] == pytest.approx(0.3125)


def test_a_random_map_scores_one_in_n_squared():
    for n in (2, 3):
        maps = torch.rand(300, 12, 12, generator=torch.Generator().manual_seed(n)) - 0.5
        values = localization_score(maps, torch.arange(300) % n**2, n, (24, 24)).values
        half_width = 1.96 * float(values.std()) / math.sqrt(len(values))
        assert abs(float(values.mean()) - 1 / n**2) < half_width < 0.01


def test_smoothing_leaks_over_the_border_unless_cells_are_smoothed_alone():
    maps, cell = torch.zeros(1, 32, 32), torch.tensor([0])
    maps[0, 10:16, 10:16] = 1.0
    plain, leaking = localization_score(maps, cell), localization_score(maps, cell, smooth=9)
    assert plain.values == 1 and 0.6 < leaking.values < 1
    assert localization_score(maps, cell, smooth=9, cellwise=True).values == 1
    noisy = torch.randn(20, 32, 32, generator=torch.Generator().manual_seed(0))
    noisy[:, :16, :16] += 0.3  # the evidence; smoothing comes before the clamp, so noise cancels
    cells = torch.zeros(20, dtype=torch.long)
    assert (
        localization_score(noisy, cells, smooth=9).values.mean() > localization_score(noisy, cells).values.mean() + 0.2
    )


def test_cells_and_masks():
    grid = torch.arange(2 * 3 * 12 * 6.0).view(2, 3, 12, 6)
    for n in (2, 3):
        parts = cut_all(grid, n)
        assert torch.equal(stitch(parts, n), grid)
        for cell in range(n * n):
            assert torch.equal(parts[cell :: n * n], cut(grid, n, cell))
            mask = cell_masks(torch.tensor([cell]), n, (12, 6))[0]
            assert torch.equal(grid[0, 0][mask], cut(grid, n, cell)[0, 0].flatten())


@pytest.mark.parametrize(
    "maps, cells, options, message",
    [
        (torch.ones(2, 4, 4), torch.zeros(3), {}, r"maps \(2, 4, 4\) and cells \(3,\); give"),
        (torch.ones(2, 4, 4), torch.tensor([0, 4]), {}, r"cells \[0, 4\] of 2 x 2 .* give cells from 0 to 3"),
        (torch.ones(1, 4, 4), torch.tensor([0]), {"size": (9, 9)}, "9 x 9 pixels; give .* a size that 2 divides"),
        (torch.full((1, 4, 4), torch.nan), torch.tensor([0]), {}, "map 0 holds NaN .*; leave it out"),
    ],
)
def test_wrong_maps(maps, cells, options, message):
    with pytest.raises(ExplainerError, match=message):
        localization_score(maps, cells, **options)


# ---- making grids ----


@pytest.mark.parametrize("kind", ["gridpg", "difull", "dipart", "difull_per_cell"])
@pytest.mark.parametrize("n", [2, 3])
def test_what_is_in_a_grid(kind, n):
    x, classes = pictures(90, (8, 8)), torch.arange(90) % 11
    grids = make_grids(x, classes, 6, n=n, kind=kind, seed=3)
    assert len(grids.rows.unique()) == grids.rows.numel()  # each picture once
    assert torch.equal(grids.classes, classes[grids.rows])
    repeats = kind in ("difull", "dipart")
    for drawn in grids.classes.tolist():
        assert len(set(drawn)) == n * n - repeats and (drawn[0] == drawn[-1]) is repeats
    shown = grids.pictures()
    for g in range(6):
        for cell in range(n * n):
            assert torch.equal(cut(shown, n, cell)[g], x[grids.rows[g, cell]])
    assert grids.scored == ([0, n * n - 1] if repeats else [*range(n * n)])
    assert grids.cells.tolist() == [cell for cell in grids.scored for _ in range(6)]
    assert grids.targets.tolist() == [int(grids.classes[g, cell]) for cell in grids.scored for g in range(6)]
    again, other = (make_grids(x, classes, 6, n=n, kind=kind, seed=seed).rows for seed in (3, 4))
    assert torch.equal(again, grids.rows) and not torch.equal(other, grids.rows)


def test_too_few_pictures_say_how_many_grids_they_make():
    x, classes = pictures(11, (8, 8)), torch.tensor([0] * 5 + [1] * 2 + [2] * 2 + [3] * 2)
    with pytest.raises(ExplainerError, match=r"11 pictures of 4 classes are enough for 2 2 x 2 grids.* or count=2"):
        make_grids(x, classes, 3)
    assert len(make_grids(x, classes, 2)) == 2
    with pytest.raises(ExplainerError, match="enough for 0"):
        make_grids(x, torch.zeros(11, dtype=torch.long), 1)
    with pytest.raises(ExplainerError, match="kind='full', n=2, count=1; choose a kind from gridpg"):
        make_grids(x, classes, 1, kind="full")
    with pytest.raises(ExplainerError, match=r"\(11, 3, 8, 8\) and classes \(3,\); give"):
        make_grids(x, classes[:3], 1)


def test_confident_pictures():
    class Sure:
        device = torch.device("cpu")
        scores = staticmethod(torch.as_tensor)

        def __call__(self, x):
            return table[x[:, 0, 0, 0].long()]

    table = torch.tensor([[0.995, 0.005], [0.05, 0.95], [0.3, 0.7], [0.01, 0.99]])
    x = torch.arange(4.0).view(4, 1, 1, 1)
    found = confident_pictures(Sure(), x, needed=2, batch_size=3)
    assert found.indices.tolist() == [0, 3] and found.classes.tolist() == [0, 1] and found.threshold == 0.99
    found = confident_pictures(Sure(), x, needed=3)
    assert found.indices.tolist() == [0, 1, 3] and found.threshold == 0.9 and found.counts == {0.99: 2, 0.9: 3}
    assert confident_pictures(Sure(), x, labels=[1, 1, 1, 1]).indices.tolist() == [3]  # the others are wrong
    with pytest.raises(ExplainerError, match=r"of 4 pictures .* 2 with 0\.99, 3 with 0\.9, but 4 are needed; give"):
        confident_pictures(Sure(), x, needed=4)


# ---- the three settings ----


@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_takes_a_setting_or_refuses_it(family):
    """DiFull: what is impossible is exactly zero, at any layer; the others are as many logits or one sentence."""
    classifier = classifier_of(family)
    grids = grids_of("difull")
    layers = find_layers(classifier)
    assert list(layers) == ["input", "middle", "final"]
    for layer in layers.values():
        maps = explain_grids(classifier, grids, "input_x_gradient", layer)
        for one, cell in zip(maps, grids.cells.tolist(), strict=True):
            assert one.any() and not cut_out(one, cell).any()
    assert localization_score(explain_grids(classifier, grids, "input_x_gradient"), grids.cells).values.eq(1).all()
    whole, cells = grids.pictures(), range(4)
    try:
        (logits,) = {tuple(GridClassifier(classifier, "gridpg", cell=c)(whole)[0].tolist()) for c in cells}
        assert family not in SMALL and len(logits) == 5
    except ExplainerError as error:
        assert family in SMALL and "gridpg shows" in str(error) and "make grids of kind='difull'" in str(error)
    try:
        dipart = GridClassifier(classifier, "dipart")
        assert family not in SPECIAL
        assert len({tuple(dipart.at_cell(c)(whole)[0].tolist()) for c in cells}) == 4
        assert family not in SMALL
    except ExplainerError as error:
        assert family in SPECIAL + SMALL and "make grids of kind='difull'" in str(error)


@pytest.mark.parametrize("family", ["resnet", "swin"])
def test_dipart_pools_its_part_of_the_last_map_only(family):
    """What the head makes of that part alone, and, averaged over the cells of a pool that is linear, of the whole."""
    classifier, grids = classifier_of(family), grids_of("dipart", 2)
    x = grids.pictures()
    parts = torch.stack([GridClassifier(classifier, "dipart", cell=c)(x) for c in range(4)])
    assert torch.allclose(parts.mean(0), classifier(x), atol=1e-5) and parts.std(0).max() > 0
    if family == "resnet":
        features = classifier.model.resnet(x).last_hidden_state
        expected = classifier.model.classifier(cut(features, 2, 3).mean((2, 3))[..., None, None])
        assert torch.allclose(parts[3], expected, atol=1e-5)


def test_an_impossible_attribution_scores_nothing():
    grids = grids_of("difull", 2)

    def elsewhere(classifier, pixel_values, targets):
        maps = torch.ones(len(pixel_values), *pixel_values.shape[-2:])
        cut(maps, 2, classifier.cell).zero_()
        return maps

    scores = localization_score(explain_grids(classifier_of("vit"), grids, elsewhere), grids.cells)
    assert scores.values.eq(0).all() and not scores.empty.any()


@pytest.mark.parametrize("method", [name for name in METHODS if name not in INSIDE])
def test_methods_take_a_grid_classifier_for_a_classifier(method):
    grids = grids_of("difull")
    small = {"window": 64, "stride": 64} if method == "occlusion" else {}
    maps = quick(method)(GridClassifier(classifier_of("resnet"), "difull", cell=3), grids.pictures(), 1, **small)
    assert maps.shape == (1, 128, 128)
    if method not in ("random", "lime", "kernel_shap", "rise"):  # samples see chance in the other cells
        assert cut_out(maps, 3).abs().max() <= 1e-5 * maps.abs().max() > 0


@pytest.mark.parametrize("method", INSIDE)
def test_methods_that_look_inside_say_how_a_grid_is_explained(method):
    with pytest.raises(ExplainerError, match="attribute_at"):
        METHODS[method](GridClassifier(classifier_of("resnet"), "difull", cell=3), grids_of("difull").pictures(), 1)


def test_difull_before_gridpg_does_not_change_gridpg():
    """A Swin whose last stage fits one window at the size of a cell would shrink it for good, and shift no more."""
    classifier = Classifier(build("swin", size=32, depths=[1, 2], num_heads=[1, 2]), processor(32)).freeze()
    small = pictures(16, (32, 32))
    both = [make_grids(small, torch.arange(16) % 5, 1, kind=kind) for kind in ("gridpg", "difull")]
    before = explain_grids(classifier, both[0])
    windows = [(m.window_size, m.shift_size) for m in classifier.modules() if hasattr(m, "shift_size")]
    with torch.no_grad():
        classifier.model(small)  # not through `Classifier`: this is what would happen
    changed = [(m.window_size, m.shift_size) for m in classifier.modules() if hasattr(m, "shift_size")]
    assert changed != windows  # so the test can fail
    for module, (window, shift) in zip(
        [m for m in classifier.modules() if hasattr(m, "shift_size")], windows, strict=True
    ):
        module.window_size, module.shift_size = window, shift
    for layer in ("input", "middle", "final"):
        explain_grids(classifier, both[1], layer=layer)
    assert torch.equal(explain_grids(classifier, both[0]), before)


def test_batches_change_nothing():
    classifier = classifier_of("resnet")
    for kind, layer in (("gridpg", "final"), ("difull", "final"), ("difull", "input")):
        grids = grids_of(kind, 3 if kind == "gridpg" else 2)
        one, all_ = (
            explain_grids(classifier, grids, "integrated_gradients", layer, batch_size=size, steps=4)
            for size in (1, 64)
        )
        assert torch.allclose(one, all_, atol=1e-4 * float(all_.abs().max()))
    noise = explain_grids(classifier, grids, "random", batch_size=1)
    assert not any(torch.equal(a, b) for i, a in enumerate(noise) for b in noise[:i])  # not the same in every batch


# ---- learned explainers ----


def test_learned_explainers_have_gridpg_and_a_variant_of_their_own():
    classifier = classifier_of("swin")
    explainer = RankingExplainerForImageClassification.from_classifier(classifier, preset="tiny")
    grids = grids_of("gridpg", 2)
    maps = explain_grids(classifier, grids, explainer)
    with torch.no_grad():
        expected = explainer(grids.pictures(), targets=grids.classes[:, 1]).attributions
    assert torch.allclose(maps[2:4], expected, atol=1e-5)
    for kind, layer in (("difull", "input"), ("gridpg", "final")):
        with pytest.raises(ExplainerError, match=f"{kind} at layer '{layer}' is not defined for Ranking.*per_cell"):
            explain_grids(classifier, grids_of(kind), explainer, layer)
    with pytest.raises(ExplainerError, match="of kind 'gridpg'; make them with kind='difull_per_cell'"):
        explain_cells(explainer, grids)
    with pytest.raises(ExplainerError, match="no classifier sees grids as 'difull_per_cell'; choose"):
        explain_grids(classifier, grids_of("difull_per_cell"))
    grids = grids_of("difull_per_cell", 2)
    maps = explain_cells(explainer, grids, batch_size=5)
    assert torch.allclose(maps.flatten(1).mean(1), torch.zeros(8), atol=1e-4)
    with torch.no_grad():
        target = grids.targets[5]  # of grid 1, cell 2
        alone = torch.stack(
            [explainer(grids.pixel_values[row][None], targets=target).attributions[0] for row in grids.rows[1]]
        )
    whole = stitch(alone[:, None], 2)[0, 0]
    assert torch.allclose(maps[5], (whole - whole.mean()) / whole.std(), atol=1e-3)
    masks = cell_masks(grids.cells, grids.n, grids.size)
    assert 0 < average_precision(maps, masks).mean() < 1 and len(pointing_game(maps, masks)) == 8


def test_fewer_grids_where_the_pictures_are_not_enough():
    pictures, classes = torch.rand(13, 3, 8, 8), torch.arange(13) % 4
    grids = make_grids(pictures, classes, 9, fewer=True)
    assert len(grids) == 3 and len(grids.rows.flatten().unique()) == 12
    with pytest.raises(ExplainerError, match="or count=3"):
        make_grids(pictures, classes, 9)
    with pytest.raises(ExplainerError, match="enough for 0"):
        make_grids(pictures[:2], classes[:2], 9, fewer=True)
