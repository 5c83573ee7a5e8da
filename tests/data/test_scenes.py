"""Pictures with known evidence."""

import numpy as np
import pytest

from hf_explain.data.scenes import (
    BACKGROUND,
    CLASSES,
    DIRECTIONS,
    PERIODS,
    WHOLE,
    background,
    blob,
    draw_scene,
    draw_scenes,
    load_scenes,
    stripes,
)


def test_a_scene_depends_on_seed_and_index_only():
    images, labels, segments = draw_scenes(6, seed=3)
    later = draw_scenes(2, seed=3, start=4)
    assert np.array_equal(images[4:], later[0]) and np.array_equal(segments[4:], later[2])
    assert not np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], draw_scene(seed=4, index=0).image)
    assert images.dtype == np.uint8 and segments.dtype == np.int8 and labels.shape == (6,)


def test_the_label_is_the_texture_with_the_largest_visible_area():
    rivals = 0
    for index in range(60):
        scene = draw_scene(seed=1, index=index)
        areas = [(scene.segments == c).sum() for c in range(len(CLASSES))]
        assert areas[scene.label] == max(areas) > 0
        assert np.array_equal(scene.evidence, scene.segments == scene.label)
        rivals += sum(a > 0 for a in areas) > 1
    assert 20 < rivals < 55  # some pictures have counter-evidence, some have none


def test_classes_are_balanced_and_evidence_is_graded():
    _, labels, segments = draw_scenes(400, seed=1)
    assert np.bincount(labels, minlength=8).min() > 25
    share = (segments == labels[:, None, None]).mean((1, 2))
    assert share.min() > 0.03 and share.max() < 0.5 and 0.1 < share.mean() < 0.25


def test_sizes_show_the_same_scene():
    """With --size 224 the same picture, finer: its blobs are where they were."""
    small, large = draw_scene(seed=1, index=7), draw_scene(seed=1, index=7, size=256)
    assert large.image.shape == (256, 256, 3)
    agreement = (large.segments[2::4, 2::4] == small.segments).mean()
    assert agreement > 0.97 and small.label == large.label


@pytest.mark.parametrize("texture", range(len(CLASSES)))
def test_stripes_in_a_box_are_that_part_of_the_whole(texture):
    box = (slice(5, 40), slice(20, 64))
    whole, part = (stripes(np.random.default_rng(0), 64, texture, b) for b in (WHOLE, box))
    assert np.allclose(whole[:, *box], part, atol=1e-6) and part.shape == (3, 35, 44)


@pytest.mark.parametrize("radius", [0.06, 0.26])
def test_a_blob_is_its_definition_over_the_whole_picture(radius):
    """So its box is never too small; the angles, and all pixels, against the powers of one complex number in a box."""
    size = 48
    at = (np.arange(size) + 0.5) / size
    for seed in range(40):
        random = np.random.default_rng(seed)
        center = random.uniform(radius, 1 - radius, 2)
        height, phase = random.uniform(0, 0.2, 4), random.uniform(0, 2 * np.pi, 4)
        dx, dy = at[None, :] - center[0], at[:, None] - center[1]
        edge = 1.0
        for turns, h, p in zip((2, 3, 4, 5), height, phase, strict=True):
            edge = edge + 2 * h / turns * np.cos(turns * np.arctan2(dy, dx) + p)
        box, inside = blob(np.random.default_rng(seed), size, radius)
        drawn = np.zeros((size, size), bool)
        drawn[box] = inside
        assert (drawn != (np.hypot(dx, dy) < radius * edge)).sum() <= 1  # rounding


def test_background_is_its_waves():
    """The product of matrices against the plain sum of cosines, over the same draws."""
    random, size = np.random.default_rng(5), 16
    base, colors = random.uniform(0.3, 0.7, (3, 1)), random.normal(0, 0.1, (3, 4))
    angle, phase = random.uniform(0, 2 * np.pi, (2, 4))
    turns = random.uniform(0.3, 1.5, 4)
    image = background(np.random.default_rng(5), size)
    assert image.shape == (3, size, size) and image.dtype == np.float32
    for row in range(size):
        for column in range(size):
            x, y = (column + 0.5) / size, (row + 0.5) / size
            waves = np.cos(2 * np.pi * turns * (x * np.cos(angle) + y * np.sin(angle)) + phase)
            assert np.allclose(image[:, row, column], base[:, 0] + colors @ waves, atol=1e-5)


@pytest.mark.parametrize("texture", range(len(CLASSES)))
def test_a_texture_has_its_period_and_direction(texture):
    """The strongest frequency of the stripes, found by a Fourier transform."""
    period, direction = divmod(texture, len(DIRECTIONS))
    image = stripes(np.random.default_rng(0), 64, texture).mean(0)
    spectrum = np.abs(np.fft.fft2(image - image.mean()))[:, :33]
    fy, fx = np.unravel_index(spectrum.argmax(), spectrum.shape)
    fy = fy - 64 if fy > 32 else fy
    turns = 64 / list(PERIODS.values())[period]
    assert abs(np.hypot(fx, fy) - turns) < 1.5
    name = list(DIRECTIONS)[direction]
    assert CLASSES[texture].endswith(f"{name} stripes")
    # Stripes run across the frequency; y points down, so a normal of 45 degrees makes rising stripes.
    expected = {"vertical": (1, 0), "horizontal": (0, 1), "rising": (1, 1), "falling": (1, -1)}[name]
    assert np.sign([round(fx / turns), round(fy / turns)]).tolist() == list(expected)


def test_rising_stripes_rise():
    """Along a step right and up, the color of rising stripes stays; along right and down it changes."""
    image = stripes(np.random.default_rng(0), 64, CLASSES.index("coarse rising stripes"))
    up = np.abs(image[:, 1:, :-1] - image[:, :-1, 1:]).mean()
    down = np.abs(image[:, :-1, :-1] - image[:, 1:, 1:]).mean()
    assert up < 0.01 < down


def test_as_a_data_set():
    data = load_scenes(4, seed=10_000)
    images, labels, segments = draw_scenes(4, seed=10_000)
    for row, image, label, segment in zip(data, images, labels, segments, strict=True):
        assert np.array_equal(np.asarray(row["image"]), image) and row["label"] == label
        assert np.array_equal(row["segments"], segment) and np.array_equal(row["evidence"], segment == label)
    assert data.features["label"].names == CLASSES


def test_plain_blobs_and_background_belong_to_nobody():
    scene = draw_scene(seed=1, index=0)
    assert set(np.unique(scene.segments)) <= {BACKGROUND, *range(len(CLASSES))}
    assert (scene.segments == BACKGROUND).mean() > 0.3
