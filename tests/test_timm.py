"""Classifiers of timm through transformers' TimmWrapper. They need a second environment: docs/timm.md."""

import pytest

pytest.importorskip("timm")

import numpy as np
import PIL.Image
import torch
import transformers as T
from families import LABELS, processor
from transformers import pipeline

import hf_explain
from hf_explain.modeling.errors import ExplainerError
from hf_explain.modeling.feature_maps import probe

pytestmark = pytest.mark.timm

# architecture, its arguments, (channels, stride) of what a head reads, whether pictures may have another size
MODELS = {
    "resnet18": (
        {"channels": [8, 12, 16, 24]},
        [(64, 2), (8, 4), (12, 8), (16, 16), (24, 32)],
        True,
    ),
    "convnext_atto": (
        {"depths": [1, 1, 1, 1], "dims": [8, 12, 16, 24]},
        [(8, 4), (12, 8), (16, 16), (24, 32)],
        True,
    ),
    "vit_tiny_patch16_224": (
        {"img_size": 64, "depth": 5, "embed_dim": 24, "num_heads": 2},
        [(24, 16)] * 4,
        False,
    ),
    "deit_tiny_distilled_patch16_224": (
        {"img_size": 64, "depth": 5, "embed_dim": 24, "num_heads": 2},
        [(24, 16)] * 4,
        False,
    ),
    "swin_tiny_patch4_window7_224": (
        {"img_size": 64, "embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 1, 2, 2], "window_size": 4},
        [(8, 4), (16, 8), (32, 16), (64, 32)],
        False,
    ),
}


def build(name):
    config = T.TimmWrapperConfig(architecture=name, model_args=MODELS[name][0], num_labels=len(LABELS))
    config.id2label, config.label2id = dict(LABELS), {v: k for k, v in LABELS.items()}
    config.pretrained_cfg = {  # as repositories of timm have it; the image processor is made from it
        "input_size": [3, 64, 64],
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    torch.manual_seed(0)
    return T.TimmWrapperForImageClassification(config).eval()


@pytest.fixture(params=MODELS)
def folder(request, tmp_path):
    """A checkpoint as timm's repositories are: no preprocessor_config.json."""
    build(request.param).save_pretrained(tmp_path / "classifier")
    return request.param, tmp_path / "classifier"


@pytest.mark.parametrize("name", MODELS)
def test_explains(name):
    model = build(name)
    explainer = hf_explain.RankingExplainerForImageClassification.from_classifier(model, processor(64), preset="tiny")
    maps = explainer.config.read_maps()
    assert [(m.channels, m.stride) for m in maps] == [(c, (s, s)) for c, s in MODELS[name][1]]
    assert {(m.layout, m.prefix) for m in maps} == {("map", 0)}  # timm takes the class tokens off
    pixel_values, targets = torch.randn(2, 3, 64, 64), torch.tensor([[0, 1, 4], [2, 2, 3]])
    output = explainer(pixel_values)
    assert output.attributions.shape == (2, 64, 64) and output.attributions.isfinite().all()
    torch.testing.assert_close(output.logits, model(pixel_values).logits)
    assert explainer(pixel_values, targets=targets).attributions.shape == (2, 3, 64, 64)
    # the maps are those of the layers they say they are
    everything = model(pixel_values, output_hidden_states=True).hidden_states
    for feature, state in zip(maps, explainer.read(pixel_values)[1], strict=True):
        torch.testing.assert_close(state, everything[feature.index])

    other = torch.randn(2, 3, 64, 96)
    if MODELS[name][2]:
        assert explainer(other).attributions.shape == (2, 64, 96)
    else:
        with pytest.raises(ExplainerError, match="TimmWrapperForImageClassification refused pictures of 64 x 96"):
            explainer(other)


def test_save_load_pipeline(folder, tmp_path):
    _, classifier = folder
    explainer = hf_explain.RankingExplainerForImageClassification.from_classifier(str(classifier), preset="tiny")
    assert type(explainer.image_processor).__name__ == "TimmWrapperImageProcessor"
    pixel_values = torch.randn(2, 3, 64, 64)
    expected = explainer(pixel_values)
    for place, include in [("head", False), ("both", True)]:
        explainer.save_pretrained(tmp_path / place, include_classifier=include)
        again = hf_explain.ExplainerForImageClassification.from_pretrained(tmp_path / place)
        output = again(pixel_values)
        torch.testing.assert_close(output.attributions, expected.attributions)
        torch.testing.assert_close(output.logits, expected.logits)
        picture = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8))
        result = pipeline("image-attribution", model=str(tmp_path / place))(picture, target="zebra")
        assert result[0]["label"] == "zebra" and result[0]["attribution"].shape == (80, 100)
        assert np.isfinite(result[0]["attribution"]).any()


def test_as_a_second_backbone():
    torch.manual_seed(0)
    config = T.TimmWrapperConfig(architecture="convnext_atto", model_args=MODELS["convnext_atto"][0])
    backbone = T.TimmWrapperModel(config).eval()
    explainer = hf_explain.RankingExplainerForImageClassification.from_classifier(
        build("resnet18"), processor(64), backbone=(backbone, processor(64)), preset="tiny"
    )
    assert [m.channels for m in explainer.config.read_maps()] == [8, 12, 16, 24]
    assert explainer(torch.randn(2, 3, 64, 64)).attributions.shape == (2, 64, 64)


def test_architecture_without_hidden_states_is_refused(monkeypatch):
    model = build("resnet18")
    monkeypatch.delattr(type(model.timm_model), "forward_intermediates")
    with pytest.raises(ExplainerError, match=r"TimmWrapperForImageClassification cannot be called .*; give an image"):
        probe(model, (64, 64))
