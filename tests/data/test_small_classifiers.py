"""Small classifiers of the scenes: every recipe learns, and what is blanked on the way is blanked as said."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForImageClassification, ViTConfig, ViTForImageClassification

from hf_explain import ExplainerError
from hf_explain.data.scenes import CLASSES
from hf_explain.data.small_classifiers import (
    BLANK_REFERENCES,
    LARGE,
    RECIPES,
    Recipe,
    blank_some,
    build_classifier,
    random_regions,
    train_classifier,
)
from hf_explain.modeling.pixel_space import PixelSpace
from hf_explain.modeling.references import reference_image

SPACE = PixelSpace(gain=(2.0, 2.0, 2.0), offset=(-1.0, -1.0, -1.0))
ONCE = Recipe(small=None, large=None, epochs=1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(count, size=64, seed=1):
    return torch.rand(count, 3, size, size, generator=generator(seed)) * 2 - 1


def labels(count):
    return torch.arange(count) % len(CLASSES)


def fit(model, count=8, size=64, recipe=ONCE, seed=0, **options):
    options = {"batch_size": count} | options
    train_classifier(model, pictures(count, size), labels(count), SPACE, recipe=recipe, seed=seed, **options)
    return model


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---- recipes ----


@pytest.mark.parametrize("size", [32, 64, LARGE], ids=["smallest", "small", "large"])
@pytest.mark.parametrize("backbone", RECIPES)
def test_every_recipe_builds_and_trains(backbone, size):
    model, count = build_classifier(backbone, size), 4 if size == LARGE else 8
    before = weights(model)
    fit(model, count, size, replace(RECIPES[backbone], epochs=1), batch_size=count // 2)
    assert not model.training
    after = dict(model.named_parameters())
    assert all(torch.isfinite(p).all() for p in after.values())
    still = [name for name, p in after.items() if torch.equal(p, before[name])]
    assert len(still) < 0.1 * len(after), still  # mask tokens and the like
    with torch.no_grad():
        logits = model(pictures(2, size)).logits
    assert logits.shape == (2, len(CLASSES)) and torch.isfinite(logits).all() and not torch.equal(*logits)


@pytest.mark.parametrize("backbone", RECIPES)
def test_large_ones_are_full_size_and_small_ones_small(backbone):
    with torch.device("meta"):
        counts = [sum(p.numel() for p in build_classifier(backbone, size).parameters()) for size in (64, LARGE, 224)]
    assert counts[0] < 1e6 < 3e6 < min(counts[1:])


def test_it_knows_its_classes_when_loaded_again(tmp_path):
    model = build_classifier("resnet", 32)
    model.save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert again.config.id2label == dict(enumerate(CLASSES))
    assert again.config.label2id == {name: index for index, name in enumerate(CLASSES)}
    assert equal(weights(model), weights(again))


def test_learning():
    """Two kinds of pictures that differ in color are told apart after a few epochs."""
    x, y = pictures(48), torch.arange(48) % 2
    x[y == 1, 0] += 1
    model = build_classifier("resnet", 64)
    train_classifier(model, x, y, SPACE, recipe=replace(RECIPES["resnet"], epochs=4), batch_size=16)
    new = pictures(20, seed=5)
    new[10:, 0] += 1
    with torch.no_grad():
        assert (model(new).logits.argmax(-1) == (torch.arange(20) >= 10)).float().mean() > 0.85


# ---- seeds ----


@pytest.mark.parametrize("backbone", ["vit", "resnet"])
def test_the_seed_alone_decides(backbone):
    """To the bit, whatever random numbers others drew before; and nobody else's numbers change."""

    def made(seed, others):
        torch.manual_seed(others)
        state = torch.get_rng_state()
        model = build_classifier(backbone, 32, seed)
        untrained = weights(model)
        fit(model, 12, 32, batch_size=6, seed=seed)
        assert torch.equal(state, torch.get_rng_state())
        return untrained, weights(model)

    one, same, other = made(0, others=1), made(0, others=2), made(3, others=1)
    for mine, again, different in zip(one, same, other, strict=True):
        assert equal(mine, again) and not equal(mine, different)
    assert not equal(*one)


def test_the_seed_of_the_training_alone_decides_too():
    """The order of the pictures, and dropout, which draws from the global generator."""
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=16,
        num_labels=len(CLASSES), hidden_dropout_prob=0.5,
    )  # fmt: skip

    def made(seed, others, batch_size):
        torch.manual_seed(0)
        model = ViTForImageClassification(config)
        torch.manual_seed(others)
        return weights(fit(model, 6, 32, seed=seed, batch_size=batch_size))

    for batch_size in (6, 2):
        one = made(0, 1, batch_size)
        assert equal(one, made(0, 2, batch_size)) and not equal(one, made(1, 1, batch_size))


# ---- the loop ----


class Watched(torch.nn.Module):
    """Keeps what it sees."""

    def __init__(self):
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.zeros(len(CLASSES))), []

    def forward(self, pixel_values):
        assert self.training
        self.seen.append(pixel_values.clone())
        return SimpleNamespace(logits=pixel_values.mean((1, 2, 3))[:, None] * self.weight)


def watch(plain, epochs=2):
    """The batches of a training on 20 pictures, six per step, and which pictures are whole in them."""
    x, model = pictures(20, 16), Watched()
    fit_on = replace(ONCE, epochs=epochs, plain=plain)
    steps = []
    train_classifier(
        model, x, labels(20), SPACE, recipe=fit_on, batch_size=6, progress=lambda them: steps.append(len(them)) or them
    )
    assert not model.training and steps == [len(model.seen)] == [4 * epochs]
    return x, model.seen


def test_an_epoch_shows_every_picture_once():
    x, seen = watch(plain=1.0)
    places = {tuple(picture[0, 0].tolist()): index for index, picture in enumerate(x)}
    order = [[places[tuple(picture[0, 0].tolist())] for picture in batch] for batch in seen]
    first, second = ([i for batch in order[e : e + 4] for i in batch] for e in (0, 4))
    assert sorted(first) == sorted(second) == list(range(20)) and first != second != sorted(second)
    assert all(torch.equal(batch, x[which]) for batch, which in zip(seen, order, strict=True))  # none is blanked


@pytest.mark.parametrize("plain", [0.0, 0.5])
def test_blanking_begins_after_the_plain_share(plain):
    x, seen = watch(plain)
    whole = [sum(any(torch.equal(p, q) for q in x) for p in batch) for batch in seen]
    assert whole == [len(b) if step < plain * 8 else len(b) - len(b) // 2 for step, b in enumerate(seen)]


# ---- blanking ----


@pytest.mark.parametrize("size", [(64, 64), (32, 48), (7, 5)])
def test_the_share_is_exact_at_every_scale(size):
    random, count = generator(), size[0] * size[1]
    shares = torch.tensor([0.0, 0.25, 0.5, 0.9, 1.0]).view(-1, 1, 1)
    expected = [0, *(-(-count * share // 1) for share in (0.25, 0.5, 0.9)), count]
    for _ in range(20):
        regions = random_regions(torch.zeros(5, 3, *size), shares, random)
        assert regions.dtype == torch.bool and regions.shape == (5, *size)
        assert regions.sum((1, 2)).tolist() == pytest.approx(expected, abs=1e-3)


def test_regions_are_of_many_scales():
    """From a quarter of the picture's side to single pixels: how often a neighbor has the same fate tells."""
    random, alike = generator(), []
    for _ in range(60):
        regions = random_regions(torch.zeros(1, 3, 64, 64), torch.tensor(0.5), random)
        alike.append(float((regions[:, :, 1:] == regions[:, :, :-1]).float().mean()))
    assert min(alike) < 0.55 and max(alike) > 0.95 and len({round(a, 1) for a in alike}) >= 4


def test_half_of_a_batch_is_blanked_by_each_reference_in_turn():
    x = pictures(13, 32)
    kept, used, shares, which = x.clone(), [], [], set()
    random = generator()
    for _ in range(10):
        out = blank_some(x, SPACE, random)
        assert torch.equal(x, kept)
        changed = [i for i in range(13) if not torch.equal(out[i], x[i])]
        assert len(changed) == 6
        which |= set(changed)
        for i in changed:
            gone = (out[i] != x[i]).any(0)
            blanks = {r: reference_image(x[i : i + 1], SPACE, r)[0] for r in BLANK_REFERENCES}
            (reference,) = [r for r, blank in blanks.items() if torch.allclose(out[i][:, gone], blank[:, gone])]
            used.append(reference)
            shares.append(float(gone.float().mean()))
    assert {r: used.count(r) for r in BLANK_REFERENCES} == dict.fromkeys(BLANK_REFERENCES, 20)
    assert which == set(range(13))
    assert max(shares) <= 0.9 + 1 / 1024 and max(shares) > 0.8 and min(shares) < 0.1
    assert sum(shares) / 60 == pytest.approx(0.45, abs=0.1)


def test_blanking_draws_from_its_generator_only():
    x, state = pictures(6, 32), torch.get_rng_state()
    one, same, other = (blank_some(x, SPACE, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(state, torch.get_rng_state())


def test_a_batch_of_one_is_left_alone():
    assert torch.equal(blank_some(pictures(1, 32), SPACE, generator()), pictures(1, 32))


# ---- refusals ----


def test_an_unknown_backbone():
    with pytest.raises(ExplainerError, match=r"unknown backbone 'vgg'; choose from vit, .*resnet"):
        build_classifier("vgg")


@pytest.mark.parametrize("size", [0, -32, 16, 65, 100])
def test_sizes_that_patches_do_not_fit(size):
    with pytest.raises(ExplainerError, match=f"size={size}; give a multiple of 32 pixels"):
        build_classifier("vit", size)
