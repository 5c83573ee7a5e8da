"""Both operators against plain references, in float64 where gradients are concerned."""

import math
import warnings

import pytest
import torch
from costs.measuring import PeakStorage, peak_bytes
from torch.utils._python_dispatch import TorchDispatchMode

from hf_explain import ExplainerError
from hf_explain.modeling import precision
from hf_explain.modeling.ranking import SoftPermutation, draw_gumbel, gumbel_sinkhorn, soft_topk


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def unrolled(scores, tau, gumbel=None, iterations=30, bilinear=False):
    """The note's definition, by autograd through every iteration."""
    count = scores.shape[1]
    anchors = torch.tensor([1 - r / (count - 1) for r in range(count)], dtype=scores.dtype)
    if bilinear:
        logits = 2 * anchors[None, :, None] * scores[:, None, :]
    else:
        logits = -((scores[:, None, :] - anchors[None, :, None]) ** 2)
    logits = (logits if gumbel is None else logits + gumbel) / tau
    for _ in range(iterations):
        logits = logits - logits.logsumexp(1, keepdim=True)
        logits = logits - logits.logsumexp(2, keepdim=True)
    return logits.exp()


def hard_masks(scores, budgets):
    rank = scores.argsort(1, descending=True).argsort(1)
    return (rank[:, None] < budgets[:, None]).to(scores)


# ---- Gumbel-Sinkhorn ----


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("tau", [1.0, 0.3, 0.05])
def test_sinkhorn_is_its_definition_and_has_its_gradient(noise, tau):
    scores = torch.randn(2, 12, dtype=torch.float64, generator=generator(), requires_grad=True)
    gumbel = draw_gumbel((2, 12, 12), generator(3), scores) if noise else None
    soft = gumbel_sinkhorn(scores, tau, noise=noise, generator=generator(3), iterations=30)
    expected = unrolled(scores, tau, gumbel)
    assert torch.allclose(soft.permutation, expected, atol=1e-12)
    weights = torch.randn(2, 12, 12, dtype=torch.float64, generator=generator(1))
    (ours,) = torch.autograd.grad((soft.permutation * weights).sum(), scores)
    (theirs,) = torch.autograd.grad((expected * weights).sum(), scores)
    assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-11)


def test_sinkhorn_gradcheck():
    scores = torch.randn(2, 5, dtype=torch.float64, generator=generator(), requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: gumbel_sinkhorn(s, 0.5, noise=0.0).permutation, scores)


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("tau", [0.3, 0.05])
def test_long_iterations_are_the_definition_too(tau, noise):
    """Many blocks of scaling vectors, some that leave their reach at once; every sample has its own end."""
    even = torch.linspace(-0.5, 0.5, 20, dtype=torch.float64)
    skewed = (torch.arange(20) > 17).double()
    samples = torch.stack([5 * even, 120 * even + 60, 300 * skewed - 30, 500 * even**3]) * tau
    gumbel = noise * draw_gumbel((4, 20, 20), generator(3), samples)
    weights = torch.randn(4, 20, 20, dtype=torch.float64, generator=generator(1))
    scores = samples.clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        soft = gumbel_sinkhorn(scores, tau, noise=gumbel)
    (ours,) = torch.autograd.grad(soft.permutation, scores, weights)
    for i, iterations in enumerate([30, 120, 300, 125]):
        one = samples[i : i + 1].clone().requires_grad_()
        expected = unrolled(one, tau, gumbel[i : i + 1], iterations)
        assert torch.allclose(soft.permutation[i], expected[0], atol=1e-10)
        (theirs,) = torch.autograd.grad(expected, one, weights[i : i + 1])
        assert (ours[i] - theirs[0]).abs().max() < 1e-7 * theirs.abs().max()


@pytest.mark.parametrize("spread, shift", [(3.0, 0.0), (30.0, 0.0), (90.0, 0.0), (30.0, 20.0), (150.0, 100.0)])
def test_float32_is_enough(spread, shift):
    """kappa 10 to 500; the last drifts far. Logits (s - a)^2 / tau left 20 % error in the gradient at 300."""
    scores = torch.linspace(-0.5, 0.5, 100, dtype=torch.float64).expand(1, -1) * spread + shift
    weights = torch.randn(1, 100, 100, dtype=torch.float64, generator=generator(1))
    found = []
    for dtype in (torch.float64, torch.float32):
        x = scores.to(dtype, copy=True).requires_grad_()
        soft = gumbel_sinkhorn(x, 0.3, noise=0.0)
        (gradient,) = torch.autograd.grad(soft.permutation, x, weights.to(dtype))
        found.append((soft.permutation.double(), gradient.double()))
    (exact, slope), (single, single_slope) = found
    assert (exact - single).abs().max() < 1e-5
    assert (slope - single_slope).abs().max() < 1e-3 * slope.abs().max()


def test_sinkhorn_does_not_depend_on_the_rest_of_the_batch():
    scores = torch.randn(3, 30, generator=generator()) * torch.tensor([[0.1], [3.0], [30.0]])
    scores[1, 4] = math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        together = gumbel_sinkhorn(scores, 0.3, noise=0.0).permutation
        for i in (0, 2):
            alone = gumbel_sinkhorn(scores[i : i + 1], 0.3, noise=0.0).permutation[0]
            assert torch.allclose(alone, together[i], atol=2e-5)


def test_settings_for_products_change_nothing_and_stay():
    scores, matmul = torch.randn(2, 40, generator=generator()), torch.backends.mkldnn.matmul

    def gradient():
        x = scores.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            permutation = gumbel_sinkhorn(x, 0.1, noise=0.0).permutation
            return torch.autograd.grad(permutation, x, torch.ones_like(permutation).tril())[0]

    plain, before = gradient(), matmul.fp32_precision
    try:
        matmul.fp32_precision = "bf16"
        assert torch.equal(gradient(), plain) and matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before
    x = scores.clone().requires_grad_()
    permutation = gumbel_sinkhorn(x, 0.1, noise=0.0).permutation
    assert torch.equal(plain, torch.autograd.grad(permutation, x, torch.ones_like(permutation).tril())[0])


def test_sinkhorn_equals_the_bilinear_form():
    scores = torch.rand(1, 10, dtype=torch.float64, generator=generator())
    one = gumbel_sinkhorn(scores, 0.2, noise=0.0, iterations=300).permutation
    assert torch.allclose(one, unrolled(scores, 0.2, iterations=300, bilinear=True), atol=1e-10)
    shifted = gumbel_sinkhorn(scores + 7, 0.2, noise=0.0, iterations=300).permutation
    assert torch.allclose(one, shifted, atol=1e-10)  # only the spread matters


def test_least_first_is_the_reverse():
    scores = torch.rand(2, 10, dtype=torch.float64, generator=generator())
    forward, backward = (gumbel_sinkhorn(s, 0.1, noise=0.0, iterations=300).permutation for s in (scores, -scores))
    assert torch.allclose(forward, backward.flip(1), atol=1e-8)


def test_rows_sum_to_one_and_columns_nearly():
    soft = gumbel_sinkhorn(torch.randn(4, 49, generator=generator()), 0.3, noise=0.0)
    assert torch.allclose(soft.permutation.sum(2), torch.ones(4, 49), atol=1e-5)
    assert soft.column_error < 0.02 and soft.iterations == 30
    assert math.isclose(soft.column_error, float((soft.permutation.sum(1) - 1).abs().max()))


@pytest.mark.parametrize("kappa, iterations", [(5, 30), (30, 30), (100, 100), (1000, 300)])
def test_iteration_rule(kappa, iterations):
    scores = torch.linspace(0, 1, 20).expand(1, -1) * kappa * 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        soft = gumbel_sinkhorn(scores, 0.1, noise=0.0)
    assert abs(soft.kappa - kappa) < 1e-2 * kappa and abs(soft.iterations - iterations) <= 1


@pytest.mark.parametrize("kappa, error", [(33, 0.0009), (100, 0.0113), (333, 0.41), (1000, 2.5)])
def test_thirty_iterations_fail_silently_at_large_kappa_and_we_warn(kappa, error):
    """Evenly spaced scores around 0, 30 iterations; with the rule the error stays small as long as it can."""
    scores = (torch.linspace(0, 1, 196) - 0.5).expand(1, -1) * kappa
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        measured = gumbel_sinkhorn(scores, 1.0, noise=0.0, iterations=30).column_error
    assert abs(measured - error) < 0.1 * error
    assert bool(caught) == (measured > 0.02)
    if 30 < kappa < 1000:
        assert gumbel_sinkhorn(scores, 1.0, noise=0.0).column_error < max(0.02, 0.1 * error)


def test_scores_far_from_the_anchors_need_more_iterations():
    """In the limit only the spread matters, after 30 iterations the mean still does: center scores beforehand."""
    scores = torch.linspace(-0.5, 0.5, 196).expand(1, -1) * 100
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        centered, shifted = (gumbel_sinkhorn(s, 1.0, noise=0.0, iterations=30) for s in (scores, scores + 50))
    assert shifted.column_error > 20 * centered.column_error


@pytest.mark.parametrize(
    "kappa, shares", [(1, (0.14, 0.32, 0.56)), (10, (0.37, 0.64, 0.82)), (100, (0.72, 0.89, 0.94))]
)
def test_kappa_tells_how_sharp(kappa, shares):
    """Share of the soft mask on the true top 10, 25 and 50 %."""
    scores = torch.linspace(0, 1, 196).expand(1, -1) * kappa
    budgets = torch.tensor([0.1, 0.25, 0.5]) * 196
    masks = gumbel_sinkhorn(scores, 1.0, noise=0.0).masks(budgets)
    on_top = (masks * hard_masks(scores, budgets.round())).sum(-1)[0] / masks.sum(-1)[0]
    assert torch.allclose(on_top, torch.tensor(shares), atol=0.025)


def peak_in_matrices(run, count):
    return peak_bytes(run, torch.device("cpu")) / (4 * count * count)


def test_memory_of_sinkhorn():
    """At most 12 N^2 floats per sample beside the output, at N = 784; unrolled autograd takes about 62."""
    count = 784
    scores = torch.randn(1, count, generator=generator())

    def ours():
        s = scores.clone().requires_grad_(True)
        permutation = gumbel_sinkhorn(s, 1.0, generator=generator()).permutation
        torch.autograd.grad(permutation, s, torch.ones_like(permutation))

    def theirs():
        s = scores[:, :196].clone().requires_grad_(True)
        permutation = unrolled(s, 1.0, draw_gumbel((1, 196, 196), generator(), s))
        torch.autograd.grad(permutation, s, torch.ones_like(permutation))

    assert peak_in_matrices(ours, count) <= 12 + 1
    assert peak_in_matrices(theirs, 196) > 50  # so the meter sees what autograd keeps


# ---- masks of both ----


def both(scores, budgets, tau):
    return {
        "sinkhorn": gumbel_sinkhorn(scores, tau, noise=0.0, iterations=300).masks(budgets),
        "topk": soft_topk(scores, budgets, tau),
    }


@pytest.mark.parametrize("tau", [1.0, 0.1])
@pytest.mark.parametrize("operator", ["sinkhorn", "topk"])
def test_masks_sum_to_their_budgets_and_are_nested(operator, tau):
    scores = torch.randn(3, 30, dtype=torch.float64, generator=generator())
    budgets = torch.tensor([1.0, 2.5, 10.0, 29.0])
    masks = both(scores, budgets, tau)[operator]
    assert masks.shape == (3, 4, 30) and masks.min() >= 0 and masks.max() <= 1
    assert torch.allclose(masks.sum(-1), budgets.double().expand(3, 4), atol=1e-5)
    assert (masks.diff(dim=1) >= -1e-9).all()


@pytest.mark.parametrize("operator", ["sinkhorn", "topk"])
def test_masks_become_hard(operator):
    scores = torch.randperm(20, generator=generator()).double()[None] / 19
    budgets = torch.tensor([3.0, 10.0])
    distance = [
        float((both(scores, budgets, t)[operator] - hard_masks(scores, budgets)).abs().mean()) for t in (1, 0.1, 0.01)
    ]
    assert distance[0] > distance[1] > distance[2] and distance[2] < 0.06


@pytest.mark.parametrize("operator", ["sinkhorn", "topk"])
def test_autocast_and_low_precision_change_nothing(operator):
    scores = torch.randn(2, 16, generator=generator()).bfloat16()
    budgets = torch.tensor([4.0, 8.0])
    plain = both(scores.float(), budgets, 0.5)[operator]
    with torch.autocast("cpu", torch.bfloat16):
        inside = both(scores, budgets, 0.5)[operator]
    assert inside.dtype == torch.float32 and torch.equal(plain, inside)


def test_masks_of_a_hard_permutation_in_plain_loops():
    order = [2, 0, 3, 1]
    permutation = torch.zeros(1, 4, 4)
    for rank, element in enumerate(order):
        permutation[0, rank, element] = 1
    masks = SoftPermutation(permutation, 0.0, 0.0, 0).masks(torch.tensor([0.0, 1.0, 2.5, 4.0]))
    assert masks[0].tolist() == [[0, 0, 0, 0], [0, 0, 1, 0], [1, 0, 1, 0.5], [1, 1, 1, 1]]


# ---- soft top-k ----


def test_topk_gradcheck():
    scores = torch.randn(2, 9, dtype=torch.float64, generator=generator(), requires_grad=True)
    budgets = torch.tensor([1.0, 4.5, 8.0])
    assert torch.autograd.gradcheck(lambda s: soft_topk(s, budgets, 0.7), scores)


@pytest.mark.parametrize("scores", ["even", "gauss", "equal", "one high", "two values"])
@pytest.mark.parametrize("tau", [1.0, 0.05, 1e-3])
def test_topk_finds_its_threshold_for_any_scores(scores, tau):
    values = {
        "even": torch.linspace(0, 1, 1000),
        "gauss": torch.randn(1000, generator=generator()),
        "equal": torch.zeros(1000),
        "one high": torch.cat([torch.tensor([50.0]), torch.zeros(999)]),
        "two values": torch.arange(1000).remainder(2).float(),
    }[scores]
    budgets = torch.tensor([1.0, 10.0, 500.0, 999.0])
    masks = soft_topk(values[None], budgets, tau)
    assert torch.allclose(masks.sum(-1)[0], budgets, rtol=2e-3, atol=2e-3)


def test_topk_ranks_the_single_pixels_of_a_picture():
    scores = torch.randn(1, 224 * 224, generator=generator(), requires_grad=True)
    budgets = torch.linspace(0, 1, 10)[1:-1] * 224 * 224
    with PeakStorage() as meter:
        masks = soft_topk(scores, budgets, 0.1)
        (gradient,) = torch.autograd.grad(masks[:, 2].sum() + masks[0, 3, 5], scores)
    assert torch.allclose(masks.sum(-1)[0], budgets, rtol=1e-5)
    assert gradient.shape == scores.shape and torch.isfinite(gradient).all()
    assert meter.peak < 8 * 4 * len(budgets) * 224 * 224  # O(K N), nothing quadratic


def test_the_sum_of_a_mask_has_no_gradient():
    """It is fixed by the budget, so nothing can change it."""
    scores = torch.randn(2, 40, dtype=torch.float64, generator=generator(), requires_grad=True)
    (gradient,) = torch.autograd.grad(soft_topk(scores, torch.tensor([7.0]), 0.3).sum(), scores)
    assert gradient.abs().max() < 1e-12


class Refuses64Bits(TorchDispatchMode):
    """As a device without float64 does."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        assert getattr(result, "dtype", None) != torch.float64, f"{function} makes float64"
        return result


@pytest.mark.parametrize("operator", ["sinkhorn", "topk"])
def test_devices_without_float64_rank_in_float32(operator, monkeypatch):
    """The same masks and gradients up to what float32 rounds, and nothing in float64 on the way."""
    scores = torch.randn(2, 400, generator=generator(), requires_grad=True)
    budgets, weights = torch.tensor([0.5, 40.0, 333.3]), torch.randn(2, 3, 400, generator=generator(1))

    def ranked():
        masks = both(scores, budgets, 0.1)[operator]
        return masks.detach(), torch.autograd.grad(masks, scores, weights)[0]

    exact, slope = ranked()
    monkeypatch.setattr(precision, "WITHOUT_FLOAT64", {"cpu"})
    with Refuses64Bits():
        masks, gradient = ranked()
    assert torch.allclose(masks, exact, atol=1e-4) and (gradient - slope).abs().max() < 1e-3 * slope.abs().max()
    wide = both(scores.detach(), budgets.double(), 0.1)[operator]  # budgets may come from a device that has float64
    assert wide.dtype == torch.float32 and torch.equal(wide, masks)


def test_noise_is_gumbel_and_from_its_generator():
    one = draw_gumbel((200_000,), generator(1), torch.zeros(1))
    assert torch.equal(one, draw_gumbel((200_000,), generator(1), torch.zeros(1)))
    assert abs(float(one.mean()) - 0.5772) < 0.01 and abs(float(one.var()) - math.pi**2 / 6) < 0.03
    assert torch.isfinite(one).all()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: gumbel_sinkhorn(torch.rand(4), 1.0, noise=0), r"shape \(4,\); give"),
        (lambda: gumbel_sinkhorn(torch.rand(1, 4), 0.0, noise=0), "tau=0.0; give a temperature above 0"),
        (lambda: gumbel_sinkhorn(torch.rand(1, 4), 1.0), "give generator="),
        (lambda: soft_topk(torch.rand(1, 4), torch.tensor([0.0, 2.0]), 1.0), "both excluded"),
        (lambda: soft_topk(torch.rand(1, 4), torch.tensor([4.0]), 1.0), "both excluded"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ExplainerError, match=message):
        call()
