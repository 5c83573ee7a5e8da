"""Training-free methods, one calling form: `(classifier, pixel_values, targets=None, **options) -> (B, H, W)`.

Float32, higher = more important. Adding one is one line in `METHODS`.
"""

from collections.abc import Callable

import torch

from .gradients import gradient, input_x_gradient
from .integrated_gradients import integrated_gradients
from .occlusion import occlusion
from .random import random

METHODS: dict[str, Callable[..., torch.Tensor]] = {
    "random": random,
    "gradient": gradient,
    "input_x_gradient": input_x_gradient,
    "integrated_gradients": integrated_gradients,
    "occlusion": occlusion,
}
