"""training-free methods, `METHODS`: (classifier, pixel_values, targets=None, **options) -> (B, H, W).

Float32, higher = more important. It imports `modeling` and `jobs` only, and a file holds one method or one family of
them; where a method is not defined for a classifier it raises an `ExplainerError` that says so. Start with gradients.py
and calling.py; adding a method is one line in `METHODS` below. By default no method takes more than 300 forwards of a
picture (forwards.py counts them), and naming.py reads names with options.
"""

from collections.abc import Callable

import torch

from .attention import attention_rollout, transformer_attribution
from .cams import grad_cam, grad_cam_plus_plus, layer_cam, score_cam
from .gradients import gradient, input_x_gradient
from .guided import guided_backprop, guided_grad_cam
from .integrated_gradients import integrated_gradients
from .occlusion import occlusion
from .random import random
from .rise import rise
from .semantic_pullback import semantic_pullback
from .smoothgrad import smoothgrad
from .switching import feature_ablation, kernel_shap, lime

METHODS: dict[str, Callable[..., torch.Tensor]] = {
    "random": random,
    # one forward and backward, or a few
    "gradient": gradient,
    "input_x_gradient": input_x_gradient,
    "guided_backprop": guided_backprop,
    "semantic_pullback": semantic_pullback,
    "grad_cam": grad_cam,
    "grad_cam_plus_plus": grad_cam_plus_plus,
    "layer_cam": layer_cam,
    "guided_grad_cam": guided_grad_cam,
    "attention_rollout": attention_rollout,
    "transformer_attribution": transformer_attribution,
    # tens to hundreds
    "smoothgrad": smoothgrad,
    "integrated_gradients": integrated_gradients,
    "score_cam": score_cam,
    "feature_ablation": feature_ablation,
    "occlusion": occlusion,
    "lime": lime,
    "kernel_shap": kernel_shap,
    "rise": rise,
}
