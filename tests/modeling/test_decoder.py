"""Class-free features at every resolution, dotted with one vector per class."""

import itertools
import math

import numpy as np
import pytest
import torch

from hf_explain.modeling.decoder import ClassMaps, PixelDecoder, SlopeMix


def decoder(strides=(4, 8, 16, 32), hidden_size=24, pixel_size=4, num_blocks=1, finest=1):
    torch.manual_seed(0)
    return PixelDecoder([6] * len(strides), list(strides), hidden_size, pixel_size, num_blocks, finest).eval()


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


@pytest.mark.parametrize("finest", [2, 4])
@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (16, 16), (2, 4, 8)])
def test_features_that_end_before_the_pixels_see_them_all(strides, finest):
    model, size = decoder(strides, finest=finest), (32, 44)
    pixels = torch.randn(1, 3, *size, requires_grad=True)
    features = model(pixels, states(strides, size, batch=1))
    assert features[-1].shape[2:] == (32 // finest, 44 // finest) and len(features) == len(model.levels)
    (slope,) = torch.autograd.grad(features[-1].square().sum(), pixels)
    assert (slope != 0).float().mean() > 0.9  # but for what a ReLU closes


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


# ---- slopes ----


def mixed(width=8, count=2, side=4, batch=2, targets=3, hidden=3):
    """A mix with random weights, and what it is given: scores, features and slopes."""
    torch.manual_seed(0)
    mix = SlopeMix(width, count, hidden)
    for name, p in mix.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(p)
    scores, slopes = torch.randn(batch, targets, side, side), torch.randn(batch, targets, count, side, side)
    return mix, scores, torch.randn(batch, width, side, side), slopes


def convolved(conv, x, dilation):
    """relu(conv(x)), (C, H, W), in plain loops; what lies outside the picture is 0."""
    weight, bias = conv.weight.numpy(), conv.bias.numpy()
    out = np.zeros((len(bias), *x.shape[1:]))
    for c, y, x_ in np.ndindex(*out.shape):
        total = bias[c]
        for i, j in itertools.product((-1, 0, 1), (-1, 0, 1)):
            v, u = y + i * dilation, x_ + j * dilation
            if 0 <= v < x.shape[1] and 0 <= u < x.shape[2]:
                total += weight[c, :, i + 1, j + 1] @ x[:, v, u]
        out[c, y, x_] = max(total, 0)
    return out


@torch.no_grad()
def test_slopes_are_mixed_in_plain_loops():
    """score + sum over neighborhoods and slopes of softplus(w . features + b) * mean of the slope around the pixel
    + what three convolutions say of the scores and all those means."""
    mix, scores, features, slopes = mixed()
    found, weight, bias = mix(scores, features, slopes), mix.weigh.weight[:, :, 0, 0], mix.weigh.bias
    for b, t in itertools.product(range(2), range(3)):
        expected, means = scores[b, t].numpy().copy(), np.zeros((6, 4, 4))
        for y, x in itertools.product(range(4), range(4)):
            for row, (size, r) in enumerate(itertools.product((1, 3, 7), range(2))):
                reach = size // 2
                around = [
                    float(slopes[b, t, r, v, u])
                    for v in range(y - reach, y + reach + 1)
                    for u in range(x - reach, x + reach + 1)
                    if 0 <= v < 4 and 0 <= u < 4  # the mean is over what lies in the picture
                ]
                means[row, y, x] = sum(around) / len(around)
                value = float(weight[row] @ features[b, :, y, x] + bias[row])
                expected[y, x] += math.log1p(math.exp(value)) * means[row, y, x]
        read = convolved(mix.enter, np.concatenate([scores[b, t].numpy()[None], means]), 1)
        for conv, dilation in zip(mix.around, (2, 4), strict=True):
            read = read + convolved(conv, read, dilation)
        expected += np.einsum("c,chw->hw", mix.leave.weight.numpy()[0, :, 0, 0], read) + mix.leave.bias.item()
        np.testing.assert_allclose(found[b, t].numpy(), expected, atol=1e-4)


@torch.no_grad()
def test_weighed_slopes_that_are_zero_change_nothing_and_rising_ones_never_lower():
    """Beside what the convolutions say."""
    mix, scores, features, slopes = mixed(side=9)
    torch.nn.init.zeros_(mix.leave.weight), torch.nn.init.zeros_(mix.leave.bias)
    assert torch.equal(mix(scores, features, torch.zeros_like(slopes)), scores)
    for r in range(slopes.shape[2]):
        steeper = slopes.clone()
        steeper[:, :, r] += torch.rand(slopes[:, :, r].shape)
        assert (mix(scores, features, steeper) > mix(scores, features, slopes)).all()


@torch.no_grad()
def test_classes_share_the_weights_and_pictures_do_not_mix():
    mix, scores, features, slopes = mixed()
    together = mix(scores, features, slopes)
    for b, t in itertools.product(range(2), range(3)):
        alone = mix(scores[b : b + 1, t : t + 1], features[b : b + 1], slopes[b : b + 1, t : t + 1])
        assert torch.allclose(together[b, t], alone[0, 0], atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (33, 17)])
def test_slopes_of_any_size(size):
    torch.manual_seed(0)
    mix = SlopeMix(4, 1)
    found = mix(torch.zeros(1, 2, *size), torch.randn(1, 4, *size), torch.ones(1, 2, 1, *size))
    assert found.shape == (1, 2, *size)
    found.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in mix.parameters())


def test_gradients_of_the_mix_in_float64():
    mix, *inputs = mixed(side=3, batch=1, targets=1)
    inputs = [t.double().requires_grad_(True) for t in inputs]
    assert torch.autograd.gradcheck(mix.double(), inputs)
