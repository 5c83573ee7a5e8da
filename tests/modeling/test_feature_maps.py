"""Every native family of transformers whose input is a picture, by name: what is read, at which sizes, and that a call
leaves no trace."""

from functools import cache

import pytest
import torch
import transformers as T
from families import CONFIGS, LABELS, build, processor, stages, transformer
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from hf_explain import Classifier, RankingExplainerForImageClassification
from hf_explain.modeling.errors import ExplainerError
from hf_explain.modeling.feature_maps import choose_features, infer_grid, probe, read_features
from hf_explain.modeling.model_call import call, configured_size

# What a head reads of the tiny classifier at 64 x 64: channels, pixels per cell, tokens that are no patches.
ONE_GRID = [16, 16, 16, 16], [8, 8, 8, 8]
WINDOWS = [8, 16, 32], [4, 8, 16], [0, 0, 0]
FOUR_STAGES = [8, 12, 16, 24], [4, 8, 16, 32], [0, 0, 0, 0]
STEM_AND_FOUR = [8, 8, 12, 16, 24], [2, 4, 8, 16, 32], [0, 0, 0, 0, 0]
FAMILIES = {
    "vit": (*ONE_GRID, [1] * 4),
    "vit_msn": (*ONE_GRID, [1] * 4),
    "deit": (*ONE_GRID, [2] * 4),
    "ijepa": (*ONE_GRID, [0] * 4),
    "clip": (*ONE_GRID, [1] * 4),
    "metaclip_2": (*ONE_GRID, [1] * 4),
    "siglip": (*ONE_GRID, [0] * 4),
    "beit": (*ONE_GRID, [1] * 4),
    "data2vec-vision": (*ONE_GRID, [1] * 4),
    "dinov2": (*ONE_GRID, [1] * 4),
    "dinov2_with_registers": (*ONE_GRID, [5] * 4),
    "swin": WINDOWS,
    "swinv2": WINDOWS,
    "donut-swin": WINDOWS,
    "focalnet": WINDOWS,
    "hiera": ([8, 16, 32, 64], [4, 8, 16, 32], [0] * 4),
    "convnext": FOUR_STAGES,
    "convnextv2": FOUR_STAGES,
    "resnet": FOUR_STAGES,
    "bit": ([8, 16, 16, 24], [4, 8, 16, 32], [0] * 4),
    "hgnet_v2": FOUR_STAGES,
    "regnet": STEM_AND_FOUR,
    "textnet": STEM_AND_FOUR,
    "mobilenet_v1": ([8, 16, 32, 64, 128], [2, 4, 8, 16, 32], [0] * 5),
    "mobilenet_v2": ([4, 4, 12, 40], [4, 8, 16, 32], [0] * 4),
    "mobilevit": STEM_AND_FOUR,
    "mobilevitv2": ([16, 32, 64, 96, 128], [2, 4, 8, 16, 32], [0] * 5),
    "efficientnet": ([8, 8, 16, 24], [2, 4, 8, 16], [0] * 4),
    "poolformer": FOUR_STAGES,
    "segformer": FOUR_STAGES,
    "pvt_v2": FOUR_STAGES,
    "cvt": ([8, 12, 16], [4, 8, 16], [0] * 3),
    "swiftformer": FOUR_STAGES,
    "pvt": ([8, 12, 16, 24], [4, 8, 16, 32], [0, 0, 0, 1]),
    "levit": ([16, 24, 32], [16, 32, 64], [0] * 3),
}
EXCLUDED = {
    "dinat": "needs natten",
    "imagegpt": "refused: color tokens",
    "perceiver": "refused: latents",
    "pp_lcnet": "refused: its output has no logits",
    "shieldgemma2": "refused: a language model",
    "siglip2": "refused: packed patches",
    "timm_wrapper": "needs timm: test_timm.py",
}
FIXED_SIZE = {"hiera", "pvt", "levit"}
# Stride from which on random weights show no place: attention over the whole picture drowns it. Measured: away from
# the border, one changed block changes all cells of these stages by nearly the same amount.
NOT_LOCAL = {"mobilevit": 8, "mobilevitv2": 32, "levit": 32}


def ranking(model, image_processor=None, **options):
    image_processor = image_processor or processor(64)
    return RankingExplainerForImageClassification.from_classifier(model, image_processor, preset="tiny", **options)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tiny tensors: a second thread costs more than it helps."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def explainer_of(name):
    return ranking(build(name))


def state_of(model):
    """Everything a call could have changed."""
    windows = [(m.window_size, m.shift_size) for m in model.modules() if hasattr(m, "set_shift_and_window_size")]
    modes = [m.training for m in model.modules()]
    return {k: v.clone() for k, v in model.state_dict().items()}, windows, modes


def assert_unchanged(model, before):
    tensors, windows, modes = state_of(model)
    assert tensors.keys() == before[0].keys() and all(torch.equal(v, before[0][k]) for k, v in tensors.items())
    assert (windows, modes) == before[1:]
    for module in model.modules():
        assert not module._forward_pre_hooks and not module._backward_hooks and not module._backward_pre_hooks
        # transformers' capture hooks, installed by the first call with output_hidden_states=True, stay for good
        assert all(hook.__module__.startswith("transformers.") for hook in module._forward_hooks.values())


def test_every_family_of_transformers_is_here_or_excluded_with_a_reason():
    assert not FAMILIES.keys() & EXCLUDED.keys()
    assert FAMILIES.keys() | EXCLUDED.keys() == set(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES)
    assert FAMILIES.keys() == CONFIGS.keys()


# ---- each family ----


@pytest.mark.parametrize("name", FAMILIES)
def test_explains(name):
    explainer = explainer_of(name)
    model, maps = explainer.classifier.model, explainer.config.read_maps()
    channels, strides, prefixes = FAMILIES[name]
    assert [m.channels for m in maps] == channels
    assert [m.stride for m in maps] == [(s, s) for s in strides]
    assert [m.prefix for m in maps] == prefixes

    pixel_values = torch.randn(2, 3, 64, 64)
    output = explainer(pixel_values)
    assert output.attributions.shape == (2, 64, 64) and output.logits.shape == (2, len(LABELS))
    assert output.attributions.isfinite().all() and output.attributions.flatten(1).std(1).min() > 0
    torch.testing.assert_close(output.logits, model(pixel_values).logits)
    targets = torch.tensor([[0, 4, 2], [1, 2, 3]])
    several = explainer(pixel_values, targets=targets).attributions
    assert several.shape == (2, 3, 64, 64)
    torch.testing.assert_close(several[:, 1], explainer(pixel_values, targets=targets[:, 1]).attributions)

    # The selection that saves memory gives what a call for everything gives.
    everything = read_features(model, pixel_values, probe(model, (64, 64))[1])[1]
    for feature, state in zip(maps, read_features(model, pixel_values, maps)[1], strict=True):
        assert state.shape == (2, feature.channels, *(64 // s for s in map(int, feature.stride)))
        torch.testing.assert_close(state, everything[feature.index])


@pytest.mark.parametrize("name", FAMILIES)
def test_other_sizes_and_no_trace(name):
    explainer = explainer_of(name)
    model, pixel_values = explainer.classifier.model, torch.randn(1, 3, 64, 64)
    first, before = model(pixel_values).logits, state_of(model)
    for size in [(64, 96), (112, 80), (70, 100)]:
        other = torch.randn(2, 3, *size)
        if name in FIXED_SIZE:
            refusal = rf"{type(model).__name__} refused .* {size[0]} x {size[1]}, .* 64 x 64; resize the pictures"
            with pytest.raises(ExplainerError, match=refusal):
                explainer(other)
        else:
            assert explainer(other).attributions.shape == (2, *size)
    assert_unchanged(model, before)
    assert torch.equal(model(pixel_values).logits, first)


@pytest.mark.parametrize("name", FAMILIES)
def test_model_in_training_mode_is_read_in_eval_mode_and_stays_as_it_was(name):
    model, pixel_values = build(name), torch.randn(2, 3, 64, 64, requires_grad=True)
    expected = model(pixel_values).logits
    model.train()
    next(model.children()).eval()  # a part that was frozen by hand
    before = state_of(model)
    logits = Classifier(model)(pixel_values)
    assert torch.equal(logits, expected)
    assert_unchanged(model, before)
    logits.square().sum().backward()
    assert pixel_values.grad.abs().sum() > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_a_changed_block_changes_the_matching_cell(name):
    """Catches transposed, flipped and shifted maps. Changes are summed over random models, since one is noisy."""
    # the few channels of a tiny MobileNet would shift the picture by the chance of their depthwise filters
    wide = {"depth_multiplier": 0.5} if name.startswith("mobilenet") else {}
    model, weights = build(name, size=128, **wide).double(), torch.Generator().manual_seed(0)
    features = probe(model, (128, 128))[1]
    sizes = [(128, 128)] if name in FIXED_SIZE else [(128, 128), (128, 192)]
    spots = {
        size: [(int(y * size[0]), int(x * size[1])) for y, x in [(0.15, 0.8), (0.8, 0.15), (0.55, 0.55)]]
        for size in sizes
    }
    changes = {}
    for _ in range(8 if name == "mobilevitv2" else 4):
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, 0.45 / parameter[0].numel() ** 0.5, generator=weights)
            for size in sizes:
                pictures = torch.randn(1, 3, *size, dtype=torch.float64, generator=weights).repeat(4, 1, 1, 1)
                for picture, (y, x) in zip(pictures[1:], spots[size], strict=True):
                    picture[:, y : y + 4, x : x + 4] += 20
                for feature, state in zip(features, read_features(model, pictures, features)[1], strict=True):
                    change = (state[1:] - state[:1]).abs().sum(1)  # (3, h, w)
                    total = changes.setdefault((size, feature), torch.zeros_like(change))
                    total += change / change.sum((1, 2), keepdim=True)
    for (size, feature), change in changes.items():
        if feature.stride[0] >= NOT_LOCAL.get(name, 1000):
            continue
        h, w = change.shape[1:]
        # exactly there where cells are patches (a class token too many is one cell), else one cell beside at most
        patches = feature.layout == "tokens" and name != "levit"  # it has convolutions before its tokens
        near = 0 if patches or min(h, w) <= 2 else 1
        for (y, x), cells in zip(spots[size], change, strict=True):
            row, column = divmod(int(cells.argmax()), w)
            assert y * h // size[0] - near <= row <= (y + 3) * h // size[0] + near, (size, feature)
            assert x * w // size[1] - near <= column <= (x + 3) * w // size[1] + near, (size, feature)


def test_swin_windows_that_shrink_are_given_back():
    """Swin sets window_size and shift_size of a layer for good when a picture is smaller than its window."""
    model = build("swin", depths=[2, 2], num_heads=[1, 2], window_size=8)  # the second stage is 8 x 8: it fits once
    large, small = torch.randn(1, 3, 128, 128), torch.randn(1, 3, 64, 64)
    classifier = Classifier(model)
    first = classifier(large)
    classifier(small)
    assert torch.equal(classifier(large), first)
    model(small)  # what happens without: this test would notice
    assert not torch.equal(model(large).logits, first)


# ---- the rule ----


@pytest.mark.parametrize(
    "count, size, patch, registers, expected",
    [
        (197, (224, 224), 16, 0, (1, 14, 14)),  # ViT-B/16, BEiT
        (577, (384, 384), 16, 0, (1, 24, 24)),
        (281, (224, 320), 16, 0, (1, 14, 20)),
        (198, (224, 224), 16, 0, (2, 14, 14)),  # DeiT, distilled
        (257, (224, 224), 14, 0, (1, 16, 16)),  # DINOv2, CLIP-L/14
        (1370, (518, 518), 14, 0, (1, 37, 37)),
        (261, (224, 224), 14, 4, (5, 16, 16)),  # DINOv2 with registers
        (201, (224, 224), 16, 4, (5, 14, 14)),  # DINOv3
        (729, (384, 384), 14, 0, (0, 27, 27)),  # SigLIP so400m: 384 / 14 = 27.4
        (256, (224, 224), 14, 0, (0, 16, 16)),  # I-JEPA
        (3136, (224, 224), None, 0, (0, 56, 56)),  # PVT
        (784, (224, 224), None, 0, (0, 28, 28)),
        (196, (224, 224), None, 0, (0, 14, 14)),
        (50, (224, 224), None, 0, (1, 7, 7)),  # its last stage has a class token
        (3136, (224, 224), 4, 0, (0, 56, 56)),  # Swin
        (784, (224, 224), 4, 0, (0, 28, 28)),
        (49, (224, 224), 4, 0, (0, 7, 7)),
        (196, (224, 224), 16, 0, (0, 14, 14)),  # LeViT
        (49, (224, 224), 16, 0, (0, 7, 7)),
        (16, (224, 224), 16, 0, (0, 4, 4)),
        (9, (16, 16), 8, 4, (5, 2, 2)),  # not 3 x 3
        (69, (64, 64), 8, 4, (5, 8, 8)),
        (7, (32, 48), 16, 0, (1, 2, 3)),
        (1, (64, 64), 16, 0, (0, 1, 1)),
    ],
)
def test_grid_of_real_sizes(count, size, patch, registers, expected):
    prefixes = list(dict.fromkeys([0, 1, 2, 1 + registers, 2 + registers]))
    assert infer_grid(count, *size, patch and (patch, patch), prefixes) == expected


def test_tokens_that_fit_no_grid():
    with pytest.raises(ExplainerError, match="75 tokens fit no grid of a 64 x 64 picture"):
        infer_grid(75, 64, 64, (8, 8), [0, 1, 2])


@pytest.mark.parametrize("name", ["vit", "dinov2"])
def test_patches_that_do_not_divide_the_probed_size(name):
    """64 holds 4 patches of 14, 16 pixels apart at that size; 112 holds 8 of them, not 7."""
    explainer = ranking(build(name, patch_size=14))
    assert explainer.config.feature_maps[0]["stride"] == [14, 14]
    maps = explainer.read(torch.randn(1, 3, 112, 140))[1]
    assert [m.shape[-2:] for m in maps] == [(8, 10)] * 4


def test_which_hidden_states_a_head_reads():
    assert [f.index for f in choose_features(probe(build("vit", num_hidden_layers=12), (64, 64))[1])] == [3, 6, 9, 12]
    assert [f.index for f in choose_features(probe(build("vit", num_hidden_layers=2), (64, 64))[1])] == [1, 2]
    assert [f.index for f in choose_features(probe(build("swiftformer"), (64, 64))[1])] == [1, 3, 5, 7]


def test_configured_size():
    assert configured_size(build("clip").config) == configured_size(build("hiera").config) == (64, 64)
    assert configured_size(build("resnet").config) is None


def test_out_of_memory_is_not_taken_for_a_wrong_size(monkeypatch):
    model = build("vit")

    def forward(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model, "forward", forward)
    with pytest.raises(torch.OutOfMemoryError):
        call(model, torch.zeros(1, 3, 96, 96))


# ---- refused ----


def pp_lcnet():
    blocks = [[[3, 8, 8, 2, False]]] * 5
    return T.PPLCNetForImageClassification(T.PPLCNetConfig(block_configs=blocks, stem_channels=8, class_expand=16))


def siglip2():
    return T.Siglip2ForImageClassification(T.Siglip2Config(vision_config=transformer(64) | {"num_patches": 64}))


def imagegpt():
    return T.ImageGPTForImageClassification(
        T.ImageGPTConfig(n_embd=8, n_layer=1, n_head=1, vocab_size=9, n_positions=16)
    )


def perceiver():
    config = T.PerceiverConfig(num_latents=2, d_latents=8, num_blocks=1, num_self_attends_per_block=1)
    config.num_self_attention_heads = config.num_cross_attention_heads = 1
    return T.PerceiverForImageClassificationLearned(config)


def bert():
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 9}
    return T.BertModel(T.BertConfig(**size))


class Silent(T.ResNetForImageClassification):
    def forward(self, pixel_values, output_hidden_states=None, return_dict=True):
        return ImageClassifierOutput(logits=super().forward(pixel_values).logits)


class Flat(T.ResNetForImageClassification):
    def forward(self, pixel_values, output_hidden_states=None, return_dict=True):
        logits = super().forward(pixel_values).logits
        return ImageClassifierOutput(logits=logits, hidden_states=(logits[:, None].expand(-1, 75, -1),))


class Strict(T.ResNetForImageClassification):
    def forward(self, pixel_values):
        return super().forward(pixel_values)


@pytest.mark.parametrize(
    "make, said",
    [
        (imagegpt, "ImageGPTForImageClassification takes input_ids, .*; give an image classification model"),
        (perceiver, "PerceiverForImageClassificationLearned takes inputs, .*; give an image classification model"),
        (bert, "BertModel takes input_ids, .*; give an image classification model"),
        (
            siglip2,
            r"Siglip2ForImageClassification has no spatial hidden states \(its input is packed .*; use a classifier",
        ),
        (pp_lcnet, r"PPLCNetForImageClassification returns no \(batch, num_labels\) logits; give an image classifier"),
        (lambda: Silent(build("resnet").config), "Silent returns no hidden states, .*; use an image classifier"),
        (
            lambda: Flat(build("resnet").config),
            "states of Flat have no place .*: 75 tokens fit no grid .*; use a model",
        ),
        (
            lambda: Strict(build("resnet").config),
            "Strict cannot be called with a picture and output_h.*; give an image",
        ),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_refused_in_one_sentence(make, said):
    with pytest.raises(ExplainerError, match=said) as error:
        ranking(make().eval())
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


@pytest.mark.parametrize("model_type", ["imagegpt", "perceiver", "siglip2", "shieldgemma2", "vit_mae"])
def test_families_that_have_no_place_are_refused_by_name(model_type):
    model = build("vit")
    model.config.model_type = model_type
    with pytest.raises(ExplainerError, match="ViTForImageClassification has no spatial hidden states"):
        probe(model, (64, 64))


# ---- a second backbone ----

TOWER = transformer(64)
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def clip():
    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 9}
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    return T.CLIPModel(T.CLIPConfig(vision_config=TOWER, text_config=text, projection_dim=8))


BACKBONES = {
    "vit": lambda: T.ViTModel(T.ViTConfig(**TOWER)),
    "dinov2": lambda: T.Dinov2Model(T.Dinov2Config(**CONFIGS["dinov2"](64))),
    "dinov3": lambda: T.DINOv3ViTModel(T.DINOv3ViTConfig(**TOWER, num_register_tokens=4)),
    "clip": clip,
    "clip vision": lambda: T.CLIPVisionModel(T.CLIPVisionConfig(**TOWER)),
    "siglip vision": lambda: T.SiglipVisionModel(T.SiglipVisionConfig(**TOWER)),
    "convnext": lambda: T.ConvNextModel(T.ConvNextConfig(**stages(64))),
}


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_second_backbone_sees_the_same_picture(name, order):
    torch.manual_seed(0)
    model = BACKBONES[name]().eval()
    if order == "RGB":
        theirs = processor(64, **IMAGENET)
    else:
        theirs = T.MobileViTImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    explainer = ranking(build("swin"), backbone=(model, theirs))
    assert explainer.backbone is getattr(model, "vision_model", model)
    expected = [(16, 8.0)] * 4 if name != "convnext" else [(8, 4.0), (12, 8.0), (16, 16.0), (24, 32.0)]
    assert [(m.channels, m.stride[0]) for m in explainer.config.read_maps()] == expected

    picture = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8).numpy()
    ours = processor(64)(images=picture, return_tensors="pt")["pixel_values"]
    seen = []
    handle = explainer.backbone.register_forward_pre_hook(
        lambda m, a, k: seen.append(k["pixel_values"]), with_kwargs=True
    )
    output = explainer(ours)
    handle.remove()
    torch.testing.assert_close(seen[0], theirs(images=picture, return_tensors="pt")["pixel_values"], atol=1e-5, rtol=0)
    torch.testing.assert_close(output.logits, explainer.classifier(ours))  # the classifier is asked as ever
    assert explainer(torch.randn(2, 3, 64, 96)).attributions.shape == (2, 64, 96)


def test_channels_last_states_of_a_backbone():
    """SAM's vision model: (B, h, w, C) without any sign of it."""
    size = {"hidden_size": 16, "output_channels": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 32}
    grid = {"image_size": 64, "patch_size": 8, "window_size": 4, "global_attn_indexes": [1], "num_pos_feats": 4}
    model = T.SamVisionModel(T.SamVisionConfig(**size, **grid)).eval()
    features, pixel_values = probe(model, (64, 64))[1], torch.randn(2, 3, 64, 64)
    assert {(f.channels, f.stride, f.layout) for f in features} == {(16, (8.0, 8.0), "channels_last")}
    output, maps = read_features(model, pixel_values, features[1:])
    for state, one in zip(output.hidden_states[1:], maps, strict=True):
        assert torch.equal(state.permute(0, 3, 1, 2), one)


@pytest.mark.parametrize(
    "make, said",
    [
        (
            lambda: T.ViTMAEModel(T.ViTMAEConfig(**TOWER)),
            r"ViTMAEModel has no spatial .*at random\).*; use a classifier",
        ),
        (bert, "BertModel cannot be called with a picture .*; give an image classifier"),
    ],
)
def test_refused_backbones(make, said):
    with pytest.raises(ExplainerError, match=said):
        ranking(build("swin"), backbone=(make().eval(), processor(64)))
