"""Which method is defined for which tiny classifier, and settings that make the slow ones quick."""

from functools import partial

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
