"""Figures: their sizes, that nothing is cut off, and what is odd in maps and curves."""

import numpy as np
import PIL.Image
import pytest
import torch

from hf_explain.data.scenes import CLASSES, draw_scene
from hf_explain.modeling.errors import ExplainerError
from hf_explain.modeling.heatmaps import overlay
from hf_explain.reports.curves import draw_curves
from hf_explain.reports.lettering import DENSITY, measure, plain, save, wrap
from hf_explain.reports.sheet import Row, enlarge, on_picture, outline, sheet


def row(index=0, maps=2, size=32, **more):
    scene = draw_scene(10000, index, size)
    random = np.random.default_rng(index)
    some = [random.normal(size=(size, size)) for _ in range(maps)]
    return Row(scene.image, some, **({"evidence": scene.evidence, "caption": CLASSES[scene.label]} | more))


def curves(speed=4.0, points=21):
    falling = np.exp(-speed * np.linspace(0, 1, points))
    found = {"deletion": falling, "insertion": 1 - 0.9 * falling}
    ends = {f"{k}_{end}": v + by for k, v in found.items() for end, by in (("low", -0.05), ("high", 0.05))}
    return {k: v.tolist() for k, v in (found | ends).items()}


def ink(image):
    """(H, W) bool: what is not paper."""
    return (np.asarray(image.convert("RGB")).astype(int) < 250).any(-1)


def has_margins(image, least=8 * DENSITY):
    dark = ink(image)
    edges = dark[:least], dark[-least:], dark[:, :least], dark[:, -least:]
    return dark.any() and not any(edge.any() for edge in edges)


# ---- sheet ----


def test_sheet_has_a_column_per_map_and_margins():
    two, four = (sheet([row(maps=n)] * 2, ["a map"] * n, cell=64) for n in (2, 4))
    assert four.width - two.width == 2 * DENSITY * (64 + 8) and four.height == two.height
    one = sheet([row()], ["a map"] * 2, cell=64)
    assert DENSITY * 64 < two.height - one.height < DENSITY * (64 + 80)
    assert all(has_margins(image) for image in (one, two, four))
    assert sheet([row()], ["a map"] * 2, title="A title", cell=64).height > one.height


def test_sheet_shows_the_pipelines_overlay():
    one = row(maps=1)
    page = np.asarray(sheet([one], ["a map"], cell=64))
    heat = overlay(PIL.Image.fromarray(one.picture), torch.tensor(one.maps[0]))
    heat = np.asarray(heat.resize((128, 128), PIL.Image.Resampling.NEAREST))  # 32 x 4
    left = DENSITY * (16 + 2 * (64 + 8))
    tops = [y for y in range(page.shape[0] - 128) if np.array_equal(page[y : y + 128, left : left + 128], heat)]
    assert len(tops) == 1
    picture = np.asarray(enlarge(PIL.Image.fromarray(one.picture), 128))
    assert np.array_equal(page[tops[0] : tops[0] + 128, 32 : 32 + 128], picture)


def test_evidence_column_only_where_some_is_known():
    known, unknown = row(), row(evidence=None)
    wide, narrow = (sheet([first, unknown], ["a", "b"], cell=64) for first in (known, unknown))
    assert wide.width - narrow.width == DENSITY * (64 + 8)


def test_outline_of_evidence():
    picture, evidence = PIL.Image.new("RGB", (32, 32), (200, 100, 50)), np.zeros((32, 32), bool)
    evidence[8:24, 8:24] = True
    shown = np.asarray(outline(picture, evidence, 128)).astype(int)
    assert (shown[64, 64] == (200, 100, 50)).all() and shown[4, 4].sum() < 300  # kept inside, dim outside
    assert (shown[64, 32] == 255).all() and (shown[32, 64] == 255).all()  # a white line on the border
    assert (shown[64, 32 - 4] == 0).all()  # on black
    assert np.array_equal(np.asarray(outline(picture, ~evidence & evidence, 64)), np.asarray(enlarge(picture, 64)))
    assert outline(picture, torch.tensor(evidence), 64).size == (64, 64)


def test_constant_and_broken_maps():
    picture = PIL.Image.fromarray(row().picture)
    framed, nothing, holes = torch.rand(32, 32), torch.full((32, 32), torch.nan), torch.rand(32, 32)
    framed[:, :10] = torch.nan
    holes[5, 5], holes[20, 20] = torch.nan, torch.inf
    before = np.asarray(picture)
    shown = np.asarray(on_picture(picture, framed))
    assert np.array_equal(shown[:, :10], before[:, :10]) and not np.array_equal(shown[:, 10:], before[:, 10:])
    assert np.array_equal(np.asarray(on_picture(picture, nothing)), before)
    lowest = torch.where(torch.isfinite(holes), holes, holes[torch.isfinite(holes)].min())
    assert np.array_equal(np.asarray(on_picture(picture, holes)), np.asarray(overlay(picture, lowest)))
    maps = [
        framed,
        nothing,
        holes,
        torch.ones(32, 32),
        torch.zeros(32, 32).numpy(),
        None,
        torch.ones(32, 32).bfloat16(),
    ]
    assert has_margins(sheet([row(maps=7), Row(picture, maps)], ["map"] * 7, cell=64))


def test_pictures_that_are_not_square():
    tall = Row(PIL.Image.new("RGB", (20, 40), "red"), [np.random.default_rng(0).random((40, 20))])
    wide = Row(PIL.Image.new("L", (500, 300)), [None])
    assert has_margins(sheet([tall, wide], ["a map"], cell=64))
    assert enlarge(tall.picture, 100).size == (50, 100) and enlarge(wide.picture, 100).size == (100, 60)
    assert enlarge(PIL.Image.new("RGB", (1000, 1)), 100).size == (100, 1)


def test_a_small_picture_keeps_its_pixels():
    colors = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(enlarge(PIL.Image.fromarray(colors), 24))[1::3, 1::3], colors)


def test_long_labels_stay_in_their_columns():
    long = "a method with a very long name indeed that nobody can print in so little space, " * 3
    word = "integrated" * 20
    one = row(maps=3, caption=long, notes=[long, word, "deletion 0.11"])
    page = sheet([one], [long, word, "Grad-CAM"], title=long, cell=64)
    assert has_margins(page)
    gaps = [DENSITY * (16 + column * 72 - 8) for column in range(1, 5)]
    head = ink(page)[DENSITY * 96 :]  # below the title
    legend = DENSITY * 40
    assert not any(head[:-legend, x : x + DENSITY * 8].any() for x in gaps)


def test_many_methods():
    assert has_margins(sheet([row(maps=14, size=16)], [f"method {i}" for i in range(14)], cell=48))


def test_wrapping():
    lines = wrap("one two three four five six seven", 20, 120, 2)
    assert len(lines) == 2 and lines[0] == "one two" and lines[1].endswith("...")
    assert all(measure(line, 20) <= 120 for line in lines)
    wide = wrap("W" * 200, 20, 120, 3)  # one word, of the widest letters
    assert len(wide) == 3 and wide[2].endswith("...") and all(measure(line, 20) <= 120 for line in wide)
    assert wrap("", 20, 100, 2) == [] and plain("Übergröße – 5 × 5 µm,\n 猫") == "Übergröße – 5 × 5 µm, ?"
    assert measure("$x_1$", 20) > measure("x1", 20)  # no formula


def test_sheets_that_cannot_be():
    with pytest.raises(ExplainerError, match="at least one picture"):
        sheet([], ["a"])
    with pytest.raises(ExplainerError, match="row 1 holds 2 maps and 0 notes for 1 titles"):
        sheet([row(maps=1), row(maps=2)], ["a"])
    with pytest.raises(ExplainerError, match="2 maps and 1 notes for 2 titles"):
        sheet([row(maps=2, notes=["one"])], ["a", "b"])
    with pytest.raises(ExplainerError, match=r"shape \(16, 16\) for a picture of 32 x 32"):
        sheet([Row(row().picture, [np.ones((16, 16))])], ["a"])


# ---- curves ----


def pixels_of(image, color):
    return (np.abs(np.asarray(image).astype(int) - PIL.ImageColor.getrgb(color)).sum(-1) < 12).sum()


def test_curves_have_their_size_and_margins():
    image = draw_curves({"learned": curves(), "random": curves(1.0)}, ["random"], "100 pictures", width=800)
    assert image.width == 800 * DENSITY and image.mode == "RGB" and has_margins(image)
    assert pixels_of(image, "#0072b2") > 1000 and pixels_of(image, "#858b95") > 500
    assert draw_curves({"learned": curves()}, tall=400).height - draw_curves({"learned": curves()}).height == 260


def test_curves_are_where_their_numbers_are():
    flat = {"deletion": [0.5] * 11, "insertion": [0.25] * 11}
    image = np.asarray(draw_curves({"flat": flat}, width=960, tall=300)).astype(int)
    blue = np.abs(image - (0, 114, 178)).sum(-1) < 12
    half = image.shape[1] // 2
    axis = [np.flatnonzero((side < 60).all(-1).sum(1) > half * 0.7)[0] for side in (image[:, :half], image[:, half:])]
    plot = 300 * DENSITY
    for side, bottom, value in zip((blue[:, :half], blue[:, half:]), axis, (0.5, 0.25)):
        rows = np.flatnonzero(side[: bottom + 4].sum(1) > half * 0.7)
        assert rows.mean() == pytest.approx(bottom - value * plot, abs=2)


def test_bands_shade_both_sides_of_the_mean():
    plain_one = {k: v for k, v in curves().items() if "_" not in k}
    shaded, bare = draw_curves({"a": curves()}), draw_curves({"a": plain_one})
    assert shaded.size == bare.size and ink(shaded).sum() > ink(bare).sum() * 1.2


def test_odd_curves():
    gap = curves()
    gap["deletion"][5], gap["deletion_low"][6], gap["insertion"][0] = float("nan"), None, None
    alone = {"deletion": [None, 0.5, None], "insertion": [0.3]}
    outside = {"deletion": [2.0, -1.0], "insertion": [-5.0, 5.0]}
    image = draw_curves({"gap": gap, "alone": alone, "outside": outside, "none": {}, "half": {"deletion": [1, 0]}})
    assert has_margins(image)
    assert has_margins(draw_curves({"nothing": {"deletion": [float("nan")] * 5}}))


def test_many_methods_and_long_labels_in_the_legend():
    many = {f"method number {i} of a long list": curves(1 + i) for i in range(24)}
    few = {name: many[name] for name in list(many)[:2]}
    long = {"an explainer whose name is longer than the paper is wide, " * 5: curves()}
    tall, short = draw_curves(many, width=600), draw_curves(few, width=600)
    assert tall.height > short.height + 10 * DENSITY * 14
    assert all(has_margins(image) for image in (tall, short, draw_curves(long, width=600, title=next(iter(long)))))


def test_curves_that_cannot_be():
    with pytest.raises(ExplainerError, match="at least one method"):
        draw_curves({})
    with pytest.raises(ExplainerError, match="width=300"):
        draw_curves({"a": curves()}, width=300)


def test_save(tmp_path):
    image = sheet([row(maps=1)], ["a map"], cell=64)
    path = save(image, tmp_path / "new" / "sheet.png")
    with PIL.Image.open(path) as read:
        assert read.format == "PNG" and np.array_equal(np.asarray(read), np.asarray(image))
        assert read.info["dpi"][0] == pytest.approx(192, abs=0.1)


def test_figures_are_the_same_every_time():
    assert sheet([row()], ["a", "b"]).tobytes() == sheet([row()], ["a", "b"]).tobytes()
    assert draw_curves({"a": curves()}).tobytes() == draw_curves({"a": curves()}).tobytes()
