"""Tiny random classifiers of every native family whose input is a picture, made from configs."""

import torch
import transformers as T

LABELS = {0: "tabby, tabby cat", 1: "tiger cat", 2: "crane, bird", 3: "crane, machine", 4: "zebra"}


def processor(size=64, **kwargs):
    return T.ViTImageProcessorPil(size={"height": size, "width": size}, **kwargs)


def pictures(batch=2, size=(64, 64), seed=1):
    """Random pixel values."""
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def build(model_type, seed=0, size=64, labels=LABELS, **kwargs):
    """A tiny classifier with random weights, in eval mode."""
    config = T.AutoConfig.for_model(model_type, **{**CONFIGS[model_type](size), **kwargs})
    config.id2label, config.label2id = dict(labels), {v: k for k, v in labels.items()}
    config.architectures = config.architectures or []  # deit and levit: from_config iterates over it
    torch.manual_seed(seed)
    return T.AutoModelForImageClassification.from_config(config).eval()


def save_classifier(folder, size=64, labels=LABELS):
    """The folder of a tiny classifier with its image processor, as a string."""
    build("resnet", size=size, labels=labels).save_pretrained(folder)
    processor(size).save_pretrained(folder)
    return str(folder)


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


def dinov2(size):
    return {k: v for k, v in transformer(size).items() if k != "intermediate_size"} | {"mlp_ratio": 2}


def vision_tower(size):
    """Of a model of text and pictures, whose classifier keeps the vision part only."""
    return {"vision_config": transformer(size), "text_config": {"bos_token_id": 0, "eos_token_id": 1}}


def windows(size):
    return {
        "image_size": size,
        "patch_size": 4,
        "embed_dim": 8,
        "depths": [1, 1, 2],
        "num_heads": [1, 2, 2],
        "window_size": 4,
    }


def stages(size, **kwargs):
    return {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 1, 1], **kwargs}


def pyramid(size, **kwargs):
    return stages(size, num_attention_heads=[1, 1, 2, 2], mlp_ratios=[2, 2, 2, 2], **kwargs)


# initializer_range: where with the family's own the logits would hardly depend on the picture.
CONFIGS = {
    # one grid, tokens
    "vit": transformer,
    "vit_msn": transformer,
    "deit": transformer,
    "ijepa": transformer,
    "beit": transformer,
    "data2vec-vision": transformer,
    "dinov2": dinov2,
    "dinov2_with_registers": dinov2,
    "clip": vision_tower,
    "metaclip_2": vision_tower,
    "siglip": vision_tower,
    # pyramids of tokens
    "swin": windows,
    "swinv2": windows,
    "donut-swin": windows,
    "focalnet": lambda size: {
        "image_size": size,
        "patch_size": 4,
        "embed_dim": 8,
        "hidden_sizes": [8, 16, 32],
        "depths": [1, 1, 2],
        "focal_levels": [1, 1, 1],
        "focal_windows": [3, 3, 3],
    },
    "hiera": lambda size: {
        "image_size": [size, size],
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
    },
    "pvt": lambda size: pyramid(size, image_size=size, num_labels=len(LABELS)),  # the only config with this field
    "levit": lambda size: {
        "image_size": size,
        "hidden_sizes": [16, 24, 32],
        "num_attention_heads": [1, 1, 2],
        "depths": [1, 1, 1],
        "key_dim": [8, 8, 8],
        "initializer_range": 0.15,
    },
    # pyramids of maps
    "convnext": lambda size: stages(size, image_size=size),
    "convnextv2": lambda size: stages(size, image_size=size),
    "resnet": lambda size: stages(size, embedding_size=8, layer_type="basic"),
    "bit": lambda size: stages(size, embedding_size=8, num_groups=4),
    "regnet": lambda size: stages(size, embedding_size=8, groups_width=4),
    "hgnet_v2": lambda size: {
        "embedding_size": 8,
        "depths": [1, 1, 1, 1],
        "hidden_sizes": [8, 12, 16, 24],
        "stem_channels": [3, 8, 8],
        "stage_in_channels": [8, 8, 12, 16],
        "stage_mid_channels": [4, 4, 8, 8],
        "stage_out_channels": [8, 12, 16, 24],
        "stage_num_blocks": [1, 1, 1, 1],
        "stage_numb_of_layers": [1, 1, 1, 1],
        "initializer_range": 0.35,
    },
    "textnet": lambda size: {
        "image_size": [size, size],
        "stem_out_channels": 8,
        "hidden_sizes": [8, 8, 12, 16, 24],
        "conv_layer_kernel_sizes": [[[3, 3]], [[3, 3], [1, 3]], [[3, 3], [3, 1]], [[3, 3]]],
        "conv_layer_strides": [[2], [2, 1], [2, 1], [2]],
        "initializer_range": 0.1,
    },
    "mobilenet_v1": lambda size: {
        "image_size": size,
        "depth_multiplier": 0.125,
        "min_depth": 4,
        "initializer_range": 0.4,
    },
    "mobilenet_v2": lambda size: {
        "image_size": size,
        "depth_multiplier": 0.125,
        "depth_divisible_by": 4,
        "min_depth": 4,
        "initializer_range": 0.3,
    },
    "mobilevit": lambda size: {
        "image_size": size,
        "hidden_sizes": [8, 12, 16],
        "neck_hidden_sizes": [4, 8, 8, 12, 16, 24, 32],
        "num_attention_heads": 2,
        "expand_ratio": 2.0,
        "initializer_range": 0.4,
    },
    "mobilevitv2": lambda size: {
        "image_size": size,
        "width_multiplier": 0.25,
        "n_attn_blocks": [1, 1, 1],
        "base_attn_unit_dims": [32, 48, 64],
        "initializer_range": 0.3,
    },
    "efficientnet": lambda size: {
        "image_size": size,
        "width_coefficient": 0.25,
        "depth_coefficient": 1.0,
        "kernel_sizes": [3, 3, 5, 3],
        "in_channels": [32, 32, 32, 64],
        "out_channels": [32, 32, 64, 96],
        "strides": [1, 2, 2, 2],
        "num_block_repeats": [1, 1, 2, 1],
        "expand_ratios": [1, 2, 2, 2],
        "hidden_dim": 320,  # the width times 1280
        "initializer_range": 0.7,
    },
    "poolformer": stages,
    "segformer": pyramid,
    "pvt_v2": lambda size: pyramid(size, image_size=size),
    "cvt": lambda size: {
        "embed_dim": [8, 12, 16],
        "num_heads": [1, 2, 2],
        "depth": [1, 2, 3],
        "mlp_ratio": [2.0, 2.0, 2.0],
        "initializer_range": 0.1,
    },
    "swiftformer": lambda size: {
        "image_size": size,
        "embed_dims": [8, 12, 16, 24],
        "depths": [1, 1, 1, 1],
        "mlp_ratio": 2,
        "layer_scale_init_value": 1.0,
    },
}
