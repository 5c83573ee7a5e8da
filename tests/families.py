"""Tiny random classifiers of every native family whose input is a picture, made from configs."""

import torch
import transformers as T

LABELS = {0: "tabby, tabby cat", 1: "tiger cat", 2: "crane, bird", 3: "crane, machine", 4: "zebra"}


def processor(size=64, **kwargs):
    return T.ViTImageProcessorPil(size={"height": size, "width": size}, **kwargs)


def build(model_type, seed=0, size=64, **kwargs):
    """A tiny classifier with random weights and the labels above, in eval mode."""
    config = T.AutoConfig.for_model(model_type, **{**CONFIGS[model_type](size), **kwargs})
    config.id2label, config.label2id = dict(LABELS), {v: k for k, v in LABELS.items()}
    config.architectures = config.architectures or []  # deit and levit: from_config iterates over it
    torch.manual_seed(seed)
    return T.AutoModelForImageClassification.from_config(config).eval()


def transformer(size, **kwargs):
    return {
        "image_size": size,
        "patch_size": 8,
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        **kwargs,
    }


CONFIGS = {
    "vit": transformer,
    "deit": transformer,
    "dinov2": lambda size: {k: v for k, v in transformer(size).items() if k != "intermediate_size"} | {"mlp_ratio": 2},
    "swin": lambda size: {
        "image_size": size,
        "patch_size": 4,
        "embed_dim": 8,
        "depths": [1, 1, 2],
        "num_heads": [1, 2, 2],
        "window_size": 4,
    },
    "convnext": lambda size: {"image_size": size, "hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 1, 1]},
    "resnet": lambda size: {
        "embedding_size": 8,
        "hidden_sizes": [8, 12, 16, 24],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
    },
}
