"""Scenes: pictures with known evidence, drawn on the spot, so that everything runs with no network.

A scene has a smooth random background, one to three blobs in the stripe texture of one class (redundant, graded
evidence), up to two in textures of other classes (counter-evidence), and plain blobs that mean nothing. Its label is
the texture with the largest visible area. A scene depends on nothing but (seed, index, size).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

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
        box, inside = blob(random, size, radius)
        color = plain(random) if texture == BACKGROUND else stripes(random, size, texture, box)
        np.copyto(image[:, *box], color, where=inside)
        segments[box][inside] = texture
    image += 0.03 * random.standard_normal(image.shape, dtype=np.float32)
    areas = np.bincount(segments.ravel() + 1, minlength=len(CLASSES) + 1)[1:]  # without BACKGROUND, which is -1
    pixels = (255 * image + 0.5).clip(0, 255).astype(np.uint8)  # the cast cuts, so this rounds
    return Scene(np.ascontiguousarray(pixels.transpose(1, 2, 0)), int(areas.argmax()), segments)


def draw_scenes(count: int, seed: int, size: int = 64, start: int = 0):
    """(images (N, H, W, 3) uint8, labels (N,), segments (N, H, W) int8) of the scenes `start`, `start` + 1, ...

    >>> [a.shape for a in draw_scenes(3, seed=1)]
    [(3, 64, 64, 3), (3,), (3, 64, 64)]
    """
    scenes = [draw_scene(seed, index, size) for index in range(start, start + count)]
    images, segments = np.stack([s.image for s in scenes]), np.stack([s.segments for s in scenes])
    return images, np.array([s.label for s in scenes]), segments


def load_scenes(count: int, seed: int, size: int = 64):
    """The same as a `datasets.Dataset` with image, label, evidence (mask) and segments.

    >>> load_scenes(2, seed=0).column_names
    ['image', 'label', 'evidence', 'segments']
    """
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


# ---- what a scene is made of: all lengths are shares of the picture; all arrays are float32, colors first ----

WHOLE = (slice(None), slice(None))


@cache
def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x (1, W) and y (H, 1) of the pixels' centers in [0, 1]."""
    at = ((np.arange(size) + 0.5) / size).astype(np.float32)
    at.flags.writeable = False  # everybody gets the same one
    return at[None, :], at[:, None]


def background(random, size: int) -> np.ndarray:
    """A few slow waves in random colors, (3, H, W) around gray."""
    x, y = grid(size)
    base, colors = random.uniform(0.3, 0.7, (3, 1)), random.normal(0, 0.1, (3, 4))
    angle, phase = random.uniform(0, 2 * np.pi, (2, 4)).astype(np.float32)
    turns = random.uniform(0.3, 1.5, 4).astype(np.float32)
    a = 2 * np.pi * turns * np.sin(angle) * y + phase  # (H, 4)
    b = 2 * np.pi * turns * np.cos(angle) * x.T  # (W, 4)
    # cos(a + b) = cos(a) cos(b) - sin(a) sin(b), so the sum over the waves is a product of matrices.
    rows = np.concatenate([np.cos(a), -np.sin(a), np.ones_like(y)], axis=1)
    columns = np.concatenate([np.cos(b), np.sin(b), np.ones_like(y)], axis=1)
    weights = np.concatenate([colors, colors, base], axis=1).astype(np.float32)
    return (weights[:, None] * rows) @ columns.T


def blob(random, size: int, radius: float):
    """An irregular disk somewhere inside the picture: the box around it, as two slices, and its pixels there, bool."""
    center = random.uniform(radius, 1 - radius, 2)
    height = random.uniform(0, 0.2, 4) / (2, 3, 4, 5) * 2  # of the bumps of the edge, two to five around
    bumps = height * np.exp(1j * random.uniform(0, 2 * np.pi, 4))
    reach = radius * (1 + height.sum())
    left, top = np.maximum(0, (center - reach) * size).astype(int).tolist()
    right, bottom = np.ceil((center + reach) * size).astype(int).tolist()
    x, y = grid(size)
    z = (x[:, left:right] - float(center[0])) + 1j * (y[top:bottom] - float(center[1]))
    distance = np.abs(z)
    z /= np.maximum(distance, 1e-6)  # cos(turns * angle) is the real part of z ** turns
    edge = 0
    for bump in reversed(bumps.tolist()):
        edge = (edge + bump) * z
    return (slice(top, bottom), slice(left, right)), distance < radius * (1 + (edge * z).real)


def plain(random) -> np.ndarray:
    """A color, (3, 1, 1)."""
    return random.random((3, 1, 1), dtype=np.float32)


def stripes(random, size: int, texture: int, box=WHOLE) -> np.ndarray:
    """(3, H, W) in a box of the picture: smooth stripes between two colors that differ enough to be seen."""
    period, direction = divmod(texture, len(DIRECTIONS))
    angle = math.radians(list(DIRECTIONS.values())[direction])
    turns = 2 * math.pi * 64 / list(PERIODS.values())[period]
    x, y = grid(size)
    phase = turns * math.cos(angle) * x[:, box[1]] + random.uniform(0, 2 * math.pi)
    wave = np.sin(phase + turns * math.sin(angle) * y[box[0]])
    one, other = plain(random), plain(random)
    while np.abs(one - other).max() < 0.4:
        other = plain(random)
    share = 0.5 + 0.5 / math.tanh(2) * np.tanh(2 * wave)
    return other + share * (one - other)


SCENES = 8000


class SceneRows:
    """Scenes with label and evidence, drawn when they are read."""

    def __init__(self, count: int, seed: int, size: int):
        self.count, self.seed, self.size = count, seed, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> dict:
        scene = draw_scene(self.seed, row, self.size)
        return {"image": scene.image, "label": CLASSES[scene.label], "mask": scene.evidence}


def to_pixels(classifier, images: np.ndarray) -> torch.Tensor:
    """pixel_values of equal-sized RGB pictures (N, H, W, 3) uint8 that need no resizing.

    >>> from hf_explain.data.scenes import draw_scenes
    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> to_pixels(random_classifier(), draw_scenes(2, seed=0, size=32)[0]).shape
    torch.Size([2, 3, 32, 32])
    """
    rgb = torch.as_tensor(images).permute(0, 3, 1, 2).float() / 255
    return classifier.pixel_space.from_rgb(rgb)
