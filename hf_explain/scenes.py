"""Scenes: pictures with known evidence, drawn on the spot, so that everything runs with no network.

A scene has a smooth random background, one to three blobs in the stripe texture of one class (redundant, graded
evidence), up to two in textures of other classes (counter-evidence), and plain blobs that mean nothing. Its label is
the texture with the largest visible area. A scene depends on nothing but (seed, index, size).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DIRECTIONS = {"vertical": 0.0, "rising": 45.0, "horizontal": 90.0, "falling": 135.0}  # of the stripes' normal
PERIODS = {"fine": 4.0, "coarse": 8.0}  # pixels of a 64-pixel picture
CLASSES = [f"{period} {direction} stripes" for period in PERIODS for direction in DIRECTIONS]
BACKGROUND = -1


@dataclass(frozen=True)
class Scene:
    """image (H, W, 3) uint8, label, and segments (H, W) int8: whose texture is where, -1 for nobody's."""

    image: np.ndarray
    label: int
    segments: np.ndarray

    @property
    def evidence(self) -> np.ndarray:
        """(H, W) bool: the pixels of the label's texture."""
        return self.segments == self.label


def draw_scene(seed: int, index: int, size: int = 64) -> Scene:
    """The scene of this seed and index.

    >>> scene = draw_scene(seed=0, index=0)
    >>> scene.image.shape, bool(scene.evidence.any())
    ((64, 64, 3), True)
    """
    random = np.random.default_rng([seed, index])
    label, *others = (int(c) for c in random.permutation(len(CLASSES)))
    blobs = [(label, random.uniform(0.07, 0.14)) for _ in range(random.integers(3))]  # (texture, radius)
    blobs += [(others[i], random.uniform(0.08, 0.15)) for i in range(random.integers(3))]
    blobs += [(BACKGROUND, random.uniform(0.06, 0.16)) for _ in range(random.integers(3))]
    random.shuffle(blobs)
    blobs.append((label, random.uniform(0.16, 0.26)))  # the main one, in front
    image, segments = background(random, size), np.full((size, size), BACKGROUND, np.int8)
    for texture, radius in blobs:
        texture = int(texture)
        inside = blob(random, size, float(radius))
        image[inside] = plain(random) if texture == BACKGROUND else stripes(random, size, texture)[inside]
        segments[inside] = texture
    image += random.normal(0, 0.03, image.shape)
    areas = np.bincount(segments[segments != BACKGROUND], minlength=len(CLASSES))
    return Scene((image.clip(0, 1) * 255).round().astype(np.uint8), int(areas.argmax()), segments)


def draw_scenes(count: int, seed: int, size: int = 64, start: int = 0):
    """(images (N, H, W, 3) uint8, labels (N,), segments (N, H, W) int8) of the scenes `start`, `start` + 1, ...

    >>> [a.shape for a in draw_scenes(3, seed=1)]
    [(3, 64, 64, 3), (3,), (3, 64, 64)]
    """
    scenes = [draw_scene(seed, index, size) for index in range(start, start + count)]
    images, segments = np.stack([s.image for s in scenes]), np.stack([s.segments for s in scenes])
    return images, np.array([s.label for s in scenes]), segments


def load_scenes(count: int, seed: int, size: int = 64):
    """The same as a `datasets.Dataset` with image, label, evidence (mask) and segments."""
    import datasets  # heavy, and not needed to draw

    features = datasets.Features(
        image=datasets.Image(),
        label=datasets.ClassLabel(names=CLASSES),
        evidence=datasets.Array2D((size, size), "bool"),
        segments=datasets.Array2D((size, size), "int8"),
    )
    images, labels, segments = draw_scenes(count, seed, size)
    columns = {
        "image": list(images),
        "label": labels.tolist(),
        "evidence": segments == labels[:, None, None],
        "segments": segments,
    }
    return datasets.Dataset.from_dict(columns, features=features)


# ---- what a scene is made of; all lengths are shares of the picture ----


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the pixels' centers in [0, 1]."""
    at = (np.arange(size) + 0.5) / size
    return at[None, :], at[:, None]


def background(random, size: int) -> np.ndarray:
    """A few slow waves in random colors, (H, W, 3) around gray."""
    x, y = grid(size)
    image = np.zeros((size, size, 3)) + random.uniform(0.3, 0.7, 3)
    for _ in range(4):
        angle, turns, phase = random.uniform(0, 2 * np.pi), random.uniform(0.3, 1.5), random.uniform(0, 2 * np.pi)
        wave = np.cos(2 * np.pi * turns * (x * np.cos(angle) + y * np.sin(angle)) + phase)
        image += 0.1 * wave[..., None] * random.normal(0, 1, 3)
    return image


def blob(random, size: int, radius: float) -> np.ndarray:
    """(H, W) bool: an irregular disk somewhere inside the picture."""
    x, y = grid(size)
    center = random.uniform(radius, 1 - radius, 2)
    dx, dy = x - center[0], y - center[1]
    angle, edge = np.arctan2(dy, dx), np.ones((size, size))
    for turns in (2, 3, 4, 5):
        edge += random.uniform(0, 0.2) / turns * 2 * np.cos(turns * angle + random.uniform(0, 2 * np.pi))
    return np.hypot(dx, dy) < radius * edge


def plain(random) -> np.ndarray:
    """A color, (3,)."""
    return random.uniform(0, 1, 3)


def stripes(random, size: int, texture: int) -> np.ndarray:
    """(H, W, 3): smooth stripes between two colors that differ enough to be seen."""
    period, direction = divmod(texture, len(DIRECTIONS))
    angle = np.deg2rad(list(DIRECTIONS.values())[direction])
    x, y = grid(size)
    turns = 64 / list(PERIODS.values())[period]
    wave = np.sin(2 * np.pi * (turns * (x * np.cos(angle) + y * np.sin(angle)) + random.uniform()))
    one, other = plain(random), plain(random)
    while np.abs(one - other).max() < 0.4:
        other = plain(random)
    share = 0.5 + 0.5 * np.tanh(2 * wave) / np.tanh(2)
    return one * share[..., None] + other * (1 - share[..., None])
