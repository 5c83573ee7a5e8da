"""Class-free features at every resolution, dotted with one vector per class."""

import pytest
import torch

from hf_explain.modeling.decoder import ClassMaps, PixelDecoder


def decoder(strides=(4, 8, 16, 32), hidden_size=24, pixel_size=4, num_blocks=1):
    torch.manual_seed(0)
    return PixelDecoder([6] * len(strides), list(strides), hidden_size, pixel_size, num_blocks).eval()


def states(strides, size, batch=2):
    return [torch.randn(batch, 6, -(-size[0] // s), -(-size[1] // s)) for s in strides]


@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (16, 16, 16), (14, 14), (2, 4, 8), (8,), (64, 16)])
@pytest.mark.parametrize("size", [(64, 64), (75, 133), (32, 16), (7, 9)])
@torch.no_grad()
def test_features_end_at_the_pixels(strides, size):
    model = decoder(strides)
    features = model(torch.randn(2, 3, *size), states(strides, size))
    assert features[-1].shape == (2, 4, *size)
    assert [f.shape[1] for f in features] == model.widths and len(features) == len(model.levels)
    heights = [f.shape[2] for f in features]
    assert heights == sorted(heights)


@torch.no_grad()
def test_maps_are_the_sum_of_dot_products_over_resolutions():
    """ClassMaps in plain loops on a 4 x 4 picture."""
    torch.manual_seed(0)
    widths = [8, 4]
    maps = ClassMaps(3, 5, widths)
    features = [torch.randn(1, 8, 4, 4), torch.randn(1, 4, 4, 4)]
    result = maps(features, torch.tensor([[2, 0]]))
    for t, target in enumerate((2, 0)):
        vector = maps.classes.weight[target]
        for y in range(4):
            for x in range(4):
                expected = sum(
                    float((match.weight @ vector + match.bias) @ feature[0, :, y, x]) / width**0.5
                    for match, feature, width in zip(maps.match, features, widths, strict=True)
                )
                assert abs(float(result[0, t, y, x]) - expected) < 1e-4


@torch.no_grad()
def test_a_picture_never_depends_on_its_batch():
    model, strides = decoder(), (4, 8, 16, 32)
    x, maps = torch.randn(4, 3, 64, 64), states(strides, (64, 64), batch=4)
    together = model(x, maps)[-1]
    alone = torch.cat([model(x[i : i + 1], [m[i : i + 1] for m in maps])[-1] for i in range(4)])
    assert torch.allclose(together, alone, atol=1e-5)
    assert not any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in model.modules())


def test_every_input_matters():
    """The pixel path and every hidden state reach the map; a pixel's own color reaches its own place most."""
    model, strides = decoder(), (4, 8, 16, 32)
    x = torch.randn(1, 3, 64, 64, requires_grad=True)
    maps = [m.requires_grad_(True) for m in states(strides, (64, 64), batch=1)]
    model(x, maps)[-1][0, :, 40, 24].sum().backward()
    assert all(m.grad.abs().sum() > 0 for m in maps)
    effect = x.grad.abs().sum(1)[0]
    y, x_ = divmod(int(effect.argmax()), 64)
    assert abs(y - 40) <= 2 and abs(x_ - 24) <= 2


def test_gradients_in_float64():
    model = decoder((4, 8), hidden_size=8).double()
    inputs = [torch.randn(1, 3, 8, 8), torch.randn(1, 6, 2, 2), torch.randn(1, 6, 1, 1)]
    inputs = [t.double().requires_grad_(True) for t in inputs]
    assert torch.autograd.gradcheck(lambda x, a, b: model(x, [a, b])[-1].sum((1, 2, 3)), inputs, atol=1e-4)
