"""A map comes back to where in the picture the model saw it: against plain arithmetic, and by a round trip."""

import math

import numpy as np
import PIL.Image
import pytest
import torch
import transformers as T

from hf_explain import ExplainerError, PixelSpace
from hf_explain.modeling.heatmaps import overlay, paste
from hf_explain.modeling.views import View, find_view

SIZES = [(133, 75), (75, 133), (640, 480), (1, 1), (3, 2), (2000, 100), (8000, 6000), (224, 224)]


# Each processor, and its geometry in plain arithmetic: ((resized width, height), (crop width, height) or None).
def square(side, crop=None):
    return lambda w, h: ((side, side), (crop, crop) if crop else None)


def shortest(edge, crop=None):
    def geometry(w, h):
        resized = (edge, int(edge * h / w)) if w <= h else (int(edge * w / h), edge)
        return resized, (crop, crop) if crop else None

    return geometry


PROCESSORS = {
    "vit": (T.ViTImageProcessorPil(), square(224)),
    "deit": (T.DeiTImageProcessorPil(), square(256, 224)),
    "convnext 224": (T.ConvNextImageProcessorPil(size={"shortest_edge": 224}, crop_pct=0.875), shortest(256, 224)),
    "convnext 384": (T.ConvNextImageProcessorPil(size={"shortest_edge": 384}), square(384)),
    "levit": (T.LevitImageProcessorPil(), shortest(256, 224)),
    "bit": (T.BitImageProcessorPil(), shortest(224, 224)),
    "clip": (T.CLIPImageProcessorPil(), shortest(224, 224)),
    "mobilevit": (T.MobileViTImageProcessorPil(), shortest(224, 256)),  # BGR, and padded
    "pvt": (T.PvtImageProcessorPil(), square(224)),
    "efficientnet": (T.EfficientNetImageProcessorPil(), square(346)),
}
SPACES = {name: PixelSpace.from_image_processor(processor) for name, (processor, _) in PROCESSORS.items()}


def expected_axis(picture, resized, crop):
    """(frame, cells) on one axis: a center crop of the resized picture, padded where the crop is larger."""
    if crop is None:
        return (0.0, picture), (0, resized)
    begin = (resized - crop) // 2
    cells = (max(0, -begin), min(crop, resized - begin))
    scale = picture / resized
    return (max(0, begin) * scale, min(resized, begin + crop) * scale), cells


@pytest.mark.parametrize("name", PROCESSORS)
def test_view_is_the_processors_geometry(name):
    processor, geometry = PROCESSORS[name]
    for width, height in SIZES:
        view = find_view(processor, SPACES[name], height, width)
        resized, crop = geometry(width, height)
        for axis, size in enumerate((width, height)):
            frame, cells = expected_axis(size, resized[axis], crop and crop[axis])
            case = (name, width, height, axis, view, frame)
            assert (view.cells[axis], view.cells[axis + 2]) == cells, case
            found = view.frame[axis], view.frame[axis + 2]
            one_cell = (frame[1] - frame[0]) / (cells[1] - cells[0])
            assert np.abs(np.subtract(found, frame)).max() <= one_cell / 4, case
            box = view.box[axis], view.box[axis + 2]  # whole pixels: those whose center is inside, one at least
            assert 0 <= box[0] < box[1] <= size and all(isinstance(edge, int) for edge in box), case
            if frame[1] - frame[0] >= 1:
                assert np.abs(np.subtract(box, found)).max() <= 0.5, case


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("size", [(133, 75), (75, 133), (640, 480), (301, 300)])
def test_round_trip_of_a_square(name, size):
    """The luminance of what the model sees, as attribution: the square comes back to where it was painted."""
    processor, space, (width, height) = PROCESSORS[name][0], SPACES[name], size
    view = find_view(processor, space, height, width)
    side = max(6, min(size) // 8)
    left, top = (view.box[0] + view.box[2]) // 2 - side, (view.box[1] + view.box[3]) // 2 + side // 2
    picture = np.zeros((height, width, 3), np.uint8)
    picture[top : top + side, left : left + side] = 255
    seen = processor(images=PIL.Image.fromarray(picture), return_tensors="pt")["pixel_values"]
    attribution = space.to_rgb(torch.as_tensor(seen)).mean(1)[0]
    pasted = paste(attribution, view, height, width)
    assert pasted.shape == (height, width) and pasted.dtype == np.float32
    outside = np.ones((height, width), bool)
    outside[view.box[1] : view.box[3], view.box[0] : view.box[2]] = False
    assert np.array_equal(np.isnan(pasted), outside)
    weight = np.nan_to_num(pasted).clip(0.05) - 0.05
    rows, columns = np.mgrid[:height, :width] + 0.5
    x, y = ((weight * at).sum() / weight.sum() for at in (columns, rows))
    across = (view.frame[2] - view.frame[0]) / (view.cells[2] - view.cells[0])  # pixels per cell
    down = (view.frame[3] - view.frame[1]) / (view.cells[3] - view.cells[1])
    assert abs(x - (left + side / 2)) <= across and abs(y - (top + side / 2)) <= down


def test_paste_is_the_map_itself_where_nothing_was_resized():
    attribution = torch.randn(6, 9)
    same = View((0, 0, 9, 6), (0, 0, 9, 6), (0.0, 0.0, 9.0, 6.0))
    assert np.array_equal(paste(attribution, same, 6, 9), attribution.numpy())
    moved = View((2, 1, 11, 7), (0, 0, 9, 6), (2.0, 1.0, 11.0, 7.0))
    assert np.array_equal(paste(attribution, moved, 8, 12)[1:7, 2:11], attribution.numpy())
    padded = View((0, 0, 9, 6), (3, 2, 12, 8), (0.0, 0.0, 9.0, 6.0))
    inside = torch.zeros(10, 15)
    inside[2:8, 3:12] = attribution
    assert np.array_equal(paste(inside, padded, 6, 9), attribution.numpy())


def test_paste_keeps_a_linear_map_linear_although_a_box_has_whole_pixels():
    view = View((1, 0, 9, 4), (0, 0, 32, 16), (1.3, 0.0, 8.7, 4.0))  # begins and ends within a pixel
    cells = torch.linspace(0.5, 31.5, 32).expand(16, 32)  # the middle of each cell, from the left
    pasted = paste(cells, view, 4, 10)
    expected = (np.arange(1, 9) + 0.5 - 1.3) * 32 / 7.4
    assert np.abs(pasted[:, 2:8] - expected[1:-1]).max() < 0.05  # cells; PIL samples its triangle
    assert np.isnan(pasted[:, [0, 9]]).all()


class Wrapped:
    """A processor that does something to the picture before, or to the pixel values after, another one."""

    def __init__(self, before=None, after=None, **kwargs):
        self.inner, self.before, self.after = T.ViTImageProcessorPil(size={"height": 64, "width": 64}), before, after
        self.__dict__.update(kwargs)

    def __call__(self, images, return_tensors):
        if isinstance(images, np.ndarray):
            images = PIL.Image.fromarray(images)
        values = self.inner(images=self.before(images) if self.before else images, return_tensors="pt")["pixel_values"]
        return {"pixel_values": self.after(values) if self.after else values}


def corner_cut(values):
    values = values.clone()
    values[..., :16, :16] = 0
    return values


@pytest.mark.parametrize(
    "processor",
    [
        Wrapped(after=lambda x: x.rot90(1, (2, 3))),
        Wrapped(after=lambda x: x.flip(3)),
        Wrapped(after=lambda x: x.flip(2)),
        Wrapped(after=lambda x: torch.cat([x[..., :32], x[..., :32]], 3)),
        Wrapped(after=lambda x: x[..., (torch.linspace(0, 1, 64) ** 2 * 63).long()]),
        Wrapped(before=lambda image: image.rotate(20)),
        Wrapped(after=corner_cut),
    ],
    ids=["quarter turn", "mirrored", "upside down", "twice", "warped", "tilted", "corner cut"],
)
def test_a_processor_that_does_something_else(processor):
    with pytest.raises(ExplainerError, match=r'Wrapped does more than resize.*output_size="model"'):
        find_view(processor, PixelSpace.from_image_processor(T.ViTImageProcessorPil()), 75, 133)


@pytest.mark.parametrize("fill", [-1.0, 0.0, 1.0])
def test_padding_of_any_color(fill):
    pad = Wrapped(after=lambda x: torch.nn.functional.pad(x, (3, 5, 0, 0), value=fill))
    view = find_view(pad, PixelSpace.from_image_processor(T.ViTImageProcessorPil()), 75, 133)
    assert view.box == (0, 0, 133, 75) and view.cells == (3, 0, 67, 64)


class Thumbnail:
    """Never enlarges; pads to 64 x 64, or to multiples of 16."""

    def __init__(self, fixed):
        self.fixed = fixed

    def __call__(self, images, return_tensors):
        image = images if isinstance(images, PIL.Image.Image) else PIL.Image.fromarray(images)
        image.thumbnail((64, 64))
        values = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
        right, below = ((64 - n if self.fixed else -n % 16) for n in image.size)
        return {"pixel_values": torch.nn.functional.pad(values, (0, right, 0, below))}


def test_a_processor_that_goes_by_more_than_the_aspect_ratio():
    for fixed, size, picture in (
        (True, (64, 64), (50, 40)),
        (False, (16, 32), (20, 10)),
        (False, (32, 64), (400, 200)),
    ):
        width, height = picture
        view = find_view(Thumbnail(fixed), PixelSpace(), height, width, size=size)
        assert view.box == (0, 0, width, height) and view.cells == (
            0,
            0,
            min(64, width),
            min(32 if width == 400 else 64, height),
        )


@pytest.mark.parametrize("size", [(133, 75), (3, 2), (1, 1), (5, 9)])
def test_without_resizing(size):
    width, height = size
    plain = T.ViTImageProcessorPil(do_resize=False)
    space = PixelSpace.from_image_processor(plain)
    assert find_view(plain, space, height, width).box == (0, 0, width, height)
    crop = T.BitImageProcessorPil(do_resize=False, do_center_crop=True, crop_size={"height": 4, "width": 4})
    view = find_view(crop, PixelSpace.from_image_processor(crop), height, width)
    for axis, length in enumerate(size):
        frame, cells = expected_axis(length, length, 4)
        assert (view.cells[axis], view.cells[axis + 2]) == cells
        assert (view.frame[axis], view.frame[axis + 2]) == pytest.approx(frame, abs=0.1)


def test_a_model_input_of_another_size_than_the_processor_gives():
    with pytest.raises(ExplainerError, match=r'output_size="model"'):
        find_view(T.ViTImageProcessorPil(), SPACES["vit"], 75, 133, size=(224, 225))


# ---- overlay ----


def test_overlay():
    picture = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    view = View((10, 5, 50, 35), (0, 0, 16, 16), (10.0, 5.0, 50.0, 35.0))
    before, attribution = np.asarray(picture).copy(), torch.zeros(16, 16)
    attribution[:8, :8] = 1
    heat = np.asarray(overlay(picture, attribution, view)).astype(int)
    assert heat.shape == (40, 60, 3) and np.array_equal(np.asarray(picture), before)
    outside = np.ones((40, 60), bool)
    outside[5:35, 10:50] = False
    assert np.array_equal(heat[outside], before[outside])
    assert heat[5:18, 10:28].mean() > heat[22:35, 32:50].mean() + 60  # bright where it matters
    under = heat[22:35, 32:50].mean(-1).ravel()  # and the picture can be seen beneath
    assert np.corrcoef(under, np.asarray(picture.convert("L"))[22:35, 32:50].ravel())[0, 1] > 0.95


def test_overlay_without_a_view_and_of_a_constant_map():
    picture = PIL.Image.new("RGB", (8, 8), "white")
    assert overlay(picture, torch.full((8, 8), 0.3)).size == (8, 8)
    one = torch.zeros(64, 64)
    one[20, 30] = 5  # less than a hundredth stands out
    heat = np.asarray(overlay(PIL.Image.new("RGB", (64, 64)), one)).sum(-1)
    assert heat[20, 30] > 200 and (np.delete(heat.ravel(), 20 * 64 + 30) < 20).all()


def test_colors_grow_brighter_evenly():
    from hf_explain.modeling.heatmaps import colorize

    colors = colorize(np.linspace(0, 1, 101)[None].repeat(4, 0))[0] / 255
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    lightness = np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)  # CIE L*
    steps = np.diff(lightness[2:99])
    assert (steps > 0).all() and math.isclose(steps.mean(), 1, rel_tol=0.1) and steps.std() < 0.6
