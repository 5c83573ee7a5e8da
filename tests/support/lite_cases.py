"""The pictures that the published EfficientNet-Lite was asked about, for fixtures/lite.npz."""

import numpy as np
import torch

from hf_explain.photos import examples

SIZES = {"lite0": 224, "lite1": 240, "lite2": 260}
SIDE = 260


def pictures():
    """Crops of the cat and of the coffee, and noise (3, 260, 260, 3): nothing is resampled, so they never differ."""
    found = examples()
    crops = [np.asarray(found[name])[30 : 30 + SIDE, 100 : 100 + SIDE] for name in ("cat", "coffee")]
    return np.stack([*crops, np.random.RandomState(0).randint(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)])


def pixel_values(size):
    """The first `size` rows and columns as (x - 127) / 128, in float64."""
    return (torch.from_numpy(pictures()[:, :size, :size].astype(np.float64)).permute(0, 3, 1, 2) - 127) / 128
