"""Which method is defined for which tiny classifier, settings that make slow ones quick, and what none may change."""

from functools import partial

import torch

from hf_explain import METHODS

NO_RELU = ("guided_backprop", "guided_grad_cam")
ATTENTION = ("attention_rollout", "transformer_attribution")
WITH_RELU = ("resnet",)
OF_ONE_LENGTH = ("vit", "deit", "dinov2", "dinov2_with_registers", "beit", "clip", "siglip")
QUICK = {
    "smoothgrad": {"samples": 3},
    "score_cam": {},
    "lime": {"samples": 80, "regions": 4},
    "kernel_shap": {"samples": 80, "regions": 4},
    "feature_ablation": {"regions": 4},
    "rise": {"masks": 30},
}
SAME_FOR_ALL_CLASSES = ("random", "attention_rollout")


def is_defined(name, family):
    if name in NO_RELU:
        return family in WITH_RELU
    return name not in ATTENTION or family in OF_ONE_LENGTH


def defined(family):
    return [name for name in METHODS if is_defined(name, family)]


def quick(name):
    """The method with settings that take few forwards."""
    return partial(METHODS[name], **QUICK.get(name, {}))


def state_of(model):
    return {
        "values": {k: v.clone() for k, v in model.state_dict().items()},
        "flags": [(p.requires_grad, p.grad) for p in model.parameters()],
        "modes": [m.training for m in model.modules()],
        "hooks": [
            (list(m._forward_hooks), list(m._forward_pre_hooks), list(m._backward_hooks)) for m in model.modules()
        ],
        "classes": [type(m) for m in model.modules()],
        "windows": [(m.window_size, m.shift_size) for m in model.modules() if hasattr(m, "shift_size")],
        "attention": model.config._attn_implementation,
        "dtype": model.dtype,
    }


def assert_unchanged(model, before):
    after = state_of(model)
    values, others = before.pop("values"), after.pop("values")
    assert all(torch.equal(values[k], others[k]) for k in values) and len(values) == len(others)
    assert before == after
