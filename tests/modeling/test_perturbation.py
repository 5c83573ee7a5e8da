"""The only place a picture is altered."""

import numpy as np
import PIL.Image
import pytest
import torch
import transformers as T
from families import processor

from hf_explain import ExplainerError, PixelSpace
from hf_explain.modeling.perturbation import blend, rank_pixels, top_mask
from hf_explain.modeling.references import (
    MEAN_COLOR,
    RAW_REFERENCES,
    REFERENCES,
    read_reference,
    reference_image,
)

SIZE = {"height": 64, "width": 64}
PROCESSORS = {
    "vit": lambda: T.ViTImageProcessorPil(size=SIZE),
    "mobilevit": lambda: T.MobileViTImageProcessorPil(size={"shortest_edge": 64}, crop_size=SIZE),  # BGR
    "efficientnet": lambda: T.EfficientNetImageProcessorPil(size=SIZE, include_top=True),  # divides by std twice
    "offset": lambda: T.EfficientNetImageProcessorPil(size=SIZE, rescale_offset=True, rescale_factor=2 / 255),
    "not rescaled": lambda: T.ViTImageProcessorPil(size=SIZE, do_rescale=False, do_normalize=False),
    "clip": lambda: T.CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size=SIZE),
    "levit": lambda: T.LevitImageProcessorPil(size={"shortest_edge": 56}, crop_size=SIZE),
}  # fmt: skip


def picture():
    values = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return PIL.Image.fromarray(values)


def as_input(image_processor):
    return image_processor(images=picture(), return_tensors="pt")["pixel_values"].float()


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixel_space_inverts_every_processor(name):
    image_processor = PROCESSORS[name]()
    space = PixelSpace.from_image_processor(image_processor)
    pixel_values = as_input(image_processor)
    rgb = torch.from_numpy(np.array(picture())).permute(2, 0, 1)[None] / 255
    if name != "levit":  # which resizes
        assert torch.allclose(space.to_rgb(pixel_values), rgb, atol=1e-5)
    assert torch.allclose(
        space.from_rgb(space.to_rgb(pixel_values)), pixel_values, atol=1e-4 * max(map(abs, space.gain))
    )
    assert PixelSpace(**space.to_dict()) == space and space.is_close(space)


def test_mobilevit_is_bgr_and_efficientnet_normalizes_twice():
    assert PixelSpace.from_image_processor(PROCESSORS["mobilevit"]()).order == (2, 1, 0)
    twice = PixelSpace.from_image_processor(PROCESSORS["efficientnet"]())
    once = PixelSpace.from_image_processor(T.EfficientNetImageProcessorPil(size=SIZE, include_top=False))
    std = PROCESSORS["efficientnet"]().image_std
    assert np.allclose(np.array(twice.gain) * std, once.gain, rtol=1e-4)


@pytest.mark.parametrize("reference", [*REFERENCES, 0.5])
def test_the_same_picture_perturbed_is_the_same_picture_in_every_space(reference):
    """Through ViT's, MobileViT's and EfficientNet's processors, perturbed, back: one and the same RGB picture."""
    mask = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(1)) > 0.5
    seen = []
    for name in ("vit", "mobilevit", "efficientnet", "offset", "not rescaled"):
        image_processor = PROCESSORS[name]()
        space, pixel_values = PixelSpace.from_image_processor(image_processor), as_input(image_processor)
        other = reference_image(pixel_values, space, reference, torch.Generator().manual_seed(2))
        seen.append(space.to_rgb(blend(pixel_values, mask, other)))
    for rgb in seen[1:]:
        assert torch.allclose(rgb, seen[0], atol=2e-5)
    original = torch.from_numpy(np.array(picture())).permute(2, 0, 1)[None] / 255
    kept, removed = ~mask[:, None].expand(-1, 3, -1, -1), mask[:, None].expand(-1, 3, -1, -1)
    assert torch.allclose(seen[0][kept], original[kept], atol=2e-5)
    assert not torch.allclose(seen[0][removed], original[removed], atol=0.05)


def test_references_are_what_they_are_called():
    space = PixelSpace(gain=(2, 4, 8), offset=(-1, -1, -1), order=(2, 1, 0))
    pixel_values = torch.rand(2, 3, 20, 30)
    rgb = {
        k: space.to_rgb(reference_image(pixel_values, space, k, torch.Generator().manual_seed(0))) for k in REFERENCES
    }
    assert torch.allclose(rgb["black"], torch.zeros(1), atol=1e-6)
    assert torch.allclose(rgb["mean"], torch.tensor(MEAN_COLOR).view(1, 3, 1, 1).expand(2, 3, 20, 30), atol=1e-6)
    assert rgb["noise"].min() >= -1e-6 and rgb["noise"].max() <= 1 + 1e-6 and rgb["noise"].std() > 0.25
    assert torch.allclose(
        reference_image(pixel_values, space, 0.25), space.from_rgb(torch.full_like(pixel_values, 0.25))
    )
    assert torch.equal(reference_image(pixel_values, space, torch.ones(3, 1, 1)), torch.ones_like(pixel_values))


def test_blur_equals_plain_loops():
    """AHA's blur on a 25 x 25 picture: a (2r + 1)^2 Gaussian with sigma 2r + 1, reflected at the borders."""
    pixel_values = torch.rand(1, 3, 25, 25)
    blurred = reference_image(pixel_values, None, "blur")
    radius = max(1, round(25 * 18 / 224))
    sigma = 2 * radius + 1
    reflect = lambda i: min(abs(i), 48 - abs(i))  # noqa: E731
    for y, x in ((0, 0), (12, 7), (24, 3)):
        total, weights = torch.zeros(3), 0.0
        for dy in range(-radius, radius + 1):
            for dx in range(-radius, radius + 1):
                weight = np.exp(-(dy * dy + dx * dx) / (2 * sigma**2))
                total += weight * pixel_values[0, :, reflect(y + dy), reflect(x + dx)]
                weights += weight
        assert torch.allclose(blurred[0, :, y, x], total / weights, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 50), (224, 224)])
def test_blur_of_any_size(size):
    blurred = reference_image(torch.rand(2, 3, *size), None, "blur")
    assert blurred.shape == (2, 3, *size) and torch.isfinite(blurred).all()


def test_noise_is_from_its_generator_only():
    pixel_values, space = torch.rand(1, 3, 8, 8), PixelSpace()
    draw = lambda seed: reference_image(pixel_values, space, "noise", torch.Generator().manual_seed(seed))  # noqa: E731
    assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))


@pytest.mark.parametrize(
    "reference, space, message",
    [
        ("grey", PixelSpace(), "unknown reference 'grey'; choose from black, mean, blur, noise"),
        ("black", None, "give image_processor="),
        ("noise", PixelSpace(), "give generator="),
        (torch.zeros(5, 5), PixelSpace(), "does not fit pixel_values"),
    ],
)
def test_wrong_references(reference, space, message):
    with pytest.raises(ExplainerError, match=message):
        reference_image(torch.rand(1, 3, 8, 8), space, reference)


def test_names_and_grays_are_read():
    assert read_reference("blur") == "blur" and read_reference("0.25") == read_reference(0.25) == 0.25
    assert read_reference("zero", (*REFERENCES, *RAW_REFERENCES)) == "zero"
    for wrong in ("grey", "zero", "nan", "1.5", -0.1, None, torch.zeros(3)):
        with pytest.raises(ExplainerError, match=r"unknown reference .*; choose from black, .* a gray from 0 to 1"):
            read_reference(wrong)


def test_every_reference_is_of_the_kind_it_is_said_to_be():
    one, other = torch.rand(2, 1, 3, 8, 8)

    def draw(name, picture, seed=0):
        return reference_image(picture, PixelSpace(), name, torch.Generator().manual_seed(seed))

    for name, kind in (REFERENCES | RAW_REFERENCES).items():
        assert kind.per_picture == (not torch.equal(draw(name, one), draw(name, other))), name
        assert kind.per_pixel == (not torch.equal(draw(name, one), draw(name, one, seed=1))), name


def test_pixel_space_refuses_what_is_no_pixel_space():
    with pytest.raises(ExplainerError, match="permutation"):
        PixelSpace(order=(0, 0, 1))

    class Gray:
        def __call__(self, images, return_tensors):
            return {"pixel_values": torch.from_numpy(images).permute(2, 0, 1)[None].float().mean(1, keepdim=True)}

    with pytest.raises(ExplainerError, match="not an RGB picture"):
        PixelSpace.from_image_processor(Gray())

    class Squared:
        def __call__(self, images, return_tensors):
            return {"pixel_values": (torch.from_numpy(images).permute(2, 0, 1)[None].float() / 255) ** 2}

    with pytest.raises(ExplainerError, match="gain"):
        PixelSpace.from_image_processor(Squared())


def test_rank_and_mask():
    maps = torch.randn(3, 5, 7)
    rank = rank_pixels(maps)
    assert rank.flatten(1).sort(1).values.equal(torch.arange(35).expand(3, 35))
    for share in (0, 0.1, 0.5, 1):
        mask = top_mask(rank, share)
        assert (mask.flatten(1).sum(1) == round(share * 35)).all()
        if 0 < share < 1:
            assert (maps[mask].view(3, -1).amin(1) >= maps[~mask].view(3, -1).amax(1)).all()


def test_ties_are_broken_by_reading_order_or_by_seed():
    """A map with 69 % zeros, asked for 50 %, gives exactly 50 %, not 100 %."""
    maps = torch.zeros(1, 10, 10)
    maps.flatten()[:31] = torch.arange(31.0) + 1
    for generator in (None, torch.Generator().manual_seed(0)):
        assert top_mask(rank_pixels(maps, generator), 0.5).sum() == 50
    plain = rank_pixels(torch.zeros(1, 4, 4))
    assert plain.flatten().equal(torch.arange(16))
    one = rank_pixels(torch.zeros(1, 4, 4), torch.Generator().manual_seed(0))
    assert one.equal(rank_pixels(torch.zeros(1, 4, 4), torch.Generator().manual_seed(0))) and not one.equal(plain)
    assert (rank_pixels(-maps).flatten() + rank_pixels(maps.flip(1, 2)).flip(1, 2).flatten() == 99).all()  # least first


def test_blend():
    pixel_values, reference = torch.rand(2, 3, 6, 6), torch.rand(2, 3, 6, 6)
    soft = torch.rand(2, 6, 6)
    expected = (1 - soft[:, None]) * pixel_values + soft[:, None] * reference
    assert torch.allclose(blend(pixel_values, soft, reference), expected, atol=1e-6)
    assert torch.equal(blend(pixel_values, torch.zeros(2, 6, 6), reference), pixel_values)
    assert torch.equal(blend(pixel_values, torch.ones(2, 6, 6, dtype=torch.bool), reference), reference)


def test_blend_has_a_gradient_to_mask_and_picture():
    inputs = [torch.rand(s, dtype=torch.float64, requires_grad=True) for s in ((1, 3, 3, 3), (1, 3, 3), (1, 3, 3, 3))]
    assert torch.autograd.gradcheck(blend, inputs)


def test_blending_commutes_with_the_normalization():
    space = PixelSpace.from_image_processor(processor(64, image_mean=[0.1, 0.2, 0.3], image_std=[0.3, 0.4, 0.5]))
    rgb, other, mask = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8), torch.rand(1, 8, 8)
    one = space.from_rgb(blend(rgb, mask, other))
    assert torch.allclose(one, blend(space.from_rgb(rgb), mask, space.from_rgb(other)), atol=1e-5)


@pytest.mark.parametrize("reference", [*REFERENCES, 0.5])
def test_a_processor_that_writes_uint8(reference):
    """Without rescaling pixel values are 0 to 255, of type uint8: references are the same colors, not all black."""
    image_processor = PROCESSORS["not rescaled"]()
    pixel_values = image_processor(images=picture(), return_tensors="pt")["pixel_values"]
    assert pixel_values.dtype == torch.uint8
    space = PixelSpace.from_image_processor(image_processor)
    other = reference_image(pixel_values, space, reference, torch.Generator().manual_seed(2))
    same = reference_image(pixel_values.float(), space, reference, torch.Generator().manual_seed(2))
    assert torch.equal(other, same) and (reference == "black" or other.max() > 1)
    assert torch.allclose(blend(pixel_values, torch.full((1, 64, 64), 0.5), other), (pixel_values + other) / 2)


def test_what_was_never_seen_ranks_last():
    maps = torch.tensor([[[0.1, float("nan")], [float("nan"), -5.0]]])
    assert rank_pixels(maps).tolist() == [[[0, 2], [3, 1]]]


def test_a_processor_class_is_no_processor():
    with pytest.raises(ExplainerError, match="is the class ViTImageProcessorPil; give an instance"):
        PixelSpace.from_image_processor(T.ViTImageProcessorPil)
