"""Models of the user's: what is changed of them, and where they are from."""

import logging
import shutil

import pytest
import torch
from explainer_cases import make
from families import build, pictures, processor
from transformers import AutoModelForImageClassification, pipeline

from hf_explain import Classifier, ExplainerError, ExplainerForImageClassification
from hf_explain.explaining.auto import EXPLAINERS


def from_folder(tmp_path, family="swin"):
    """A classifier that was saved and loaded, so that it has a name."""
    build(family).save_pretrained(tmp_path / "base")
    processor(64).save_pretrained(tmp_path / "base")
    return AutoModelForImageClassification.from_pretrained(tmp_path / "base")


def test_a_model_as_it_was_loaded_is_referred_to(tmp_path):
    explainer = EXPLAINERS[0].from_classifier(from_folder(tmp_path), preset="tiny")
    assert explainer.config.classifier_name_or_path == str(tmp_path / "base")
    explainer.save_pretrained(tmp_path / "explainer")
    assert not (tmp_path / "explainer" / "classifier").exists()
    assert ExplainerForImageClassification.from_pretrained(tmp_path / "explainer").classifier.dtype == torch.float32


@pytest.mark.parametrize("how", ["trained since", "folder gone"])
def test_a_model_that_is_no_longer_what_its_name_says_is_saved_inside(tmp_path, how, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    model = from_folder(tmp_path)
    if how == "trained since":
        with torch.no_grad():
            model.classifier.bias += 1
    else:
        shutil.rmtree(tmp_path / "base")
    explainer = EXPLAINERS[0].from_classifier(model, processor(64), preset="tiny")
    assert explainer.config.classifier_name_or_path is None and "saved with the explainer" in caplog.text
    explainer.save_pretrained(tmp_path / "explainer")
    again = ExplainerForImageClassification.from_pretrained(tmp_path / "explainer")
    with torch.no_grad():
        assert torch.equal(again(pictures()).attributions, explainer(pictures()).attributions)


def test_a_given_classifier_stays_as_it_is(tmp_path):
    make(EXPLAINERS[0]).save_pretrained(tmp_path / "x")
    mine = build("swin")
    again = ExplainerForImageClassification.from_pretrained(tmp_path / "x", classifier=mine, dtype=torch.bfloat16)
    assert again.classifier.model is mine and mine.dtype == torch.float32
    assert again.head.class_maps.classes.weight.dtype == torch.bfloat16
    build("swin").save_pretrained(tmp_path / "moved")
    processor(64).save_pretrained(tmp_path / "moved")
    loaded = Classifier.from_pretrained(str(tmp_path / "moved"))
    ExplainerForImageClassification.from_pretrained(tmp_path / "x", classifier=loaded, dtype=torch.bfloat16)
    assert loaded.dtype == torch.float32  # also one that we loaded for the user
    by_path = ExplainerForImageClassification.from_pretrained(tmp_path / "x", classifier=tmp_path / "moved")
    assert by_path.classifier.name_or_path == str(tmp_path / "moved") and by_path.image_processor is not None


def test_attach_checks_what_it_joins(tmp_path):
    make(EXPLAINERS[0]).save_pretrained(tmp_path)
    alone = ExplainerForImageClassification.from_pretrained(tmp_path, load_classifier=False)
    with pytest.raises(ExplainerError, match="has the fingerprint"):
        alone.attach(Classifier(build("swin", seed=3), processor(64)))
    with pytest.raises(ExplainerError, match="reads the classifier only; omit backbone="):
        alone.attach(Classifier(build("swin"), processor(64)), build("vit").vit)
    assert alone.classifier is None


def with_backbone(classifier_dtype=torch.float32):
    pair = (build("dinov2").dinov2, processor(64, image_mean=[0.4] * 3, image_std=[0.2] * 3))
    return EXPLAINERS[0].from_classifier(
        build("swin").to(classifier_dtype), processor(64), backbone=pair, preset="tiny"
    )


def test_a_backbone_keeps_its_own_dtype(tmp_path):
    explainer = with_backbone(torch.bfloat16)
    explainer.save_pretrained(tmp_path)
    again = ExplainerForImageClassification.from_pretrained(tmp_path)
    assert again.classifier.dtype == torch.bfloat16 and again.backbone.dtype == torch.float32
    with torch.no_grad():
        assert torch.equal(again(pictures()).attributions, explainer(pictures()).attributions)


def test_a_backbone_of_other_weights_is_refused(tmp_path):
    with_backbone().save_pretrained(tmp_path)
    right, wrong = build("dinov2").dinov2, build("dinov2", seed=4).dinov2
    assert ExplainerForImageClassification.from_pretrained(tmp_path, backbone=right).backbone is right
    with pytest.raises(ExplainerError, match="backbone Dinov2Model has the fingerprint"):
        ExplainerForImageClassification.from_pretrained(tmp_path, backbone=wrong)
    wrong.save_pretrained(tmp_path / "backbone")
    with pytest.raises(ExplainerError, match=r"backbone .* has the fingerprint .* give the right one with backbone="):
        ExplainerForImageClassification.from_pretrained(tmp_path)


def test_one_integer_may_be_of_any_kind():
    import numpy as np

    explainer, x = make(EXPLAINERS[0]), pictures(2)
    expected = explainer(x, targets=3)
    for target in (torch.tensor(3), np.int64(3), torch.tensor([3, 3], dtype=torch.int16), np.array([3, 3], np.uint8)):
        found = explainer(x, targets=target)
        assert found.targets.tolist() == [3, 3] and torch.equal(found.attributions, expected.attributions)


@pytest.mark.parametrize(
    "targets, message",
    [
        (True, "type torch.bool are no classes; give None, one integer"),
        ("zebra", "'zebra' are no classes; give"),
        ([[1, 2], [3]], "are no classes; give"),
        (torch.tensor([1.0, 2.0]), "type torch.float32 are no classes; give"),
        ([1, 9], "target 9 is no class; give integers from 0 to 4"),
        ([-1, 0], "target -1 is no class; give"),
        ([1], r"shape \(1,\) for 2 images; give"),
        (torch.zeros(2, 0, dtype=torch.long), r"shape \(2, 0\) for 2 images; give"),
    ],
)
def test_wrong_targets(targets, message):
    with pytest.raises(ExplainerError, match=message):
        make(EXPLAINERS[0])(pictures(2), targets=targets)


def test_targets_and_top_k_exclude_each_other():
    with pytest.raises(ExplainerError, match="both given"):
        make(EXPLAINERS[0])(pictures(2), targets=1, top_k=2)


def test_an_untrained_explainer_says_so(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    explainer = make(EXPLAINERS[0])
    pipeline("image-attribution", model=explainer)
    assert "has not been trained" in caplog.text
    caplog.clear()
    explainer.config.trained_steps = 10
    pipeline("image-attribution", model=explainer)
    assert "trained" not in caplog.text


@pytest.mark.parametrize(
    "option, message",
    [
        ({"hidden_size": 0}, "hidden_size=0; give a positive multiple of 8"),
        ({"hidden_size": 8.0}, "hidden_size=8.0; give"),
        ({"pixel_size": 6}, "pixel_size=6; give a positive multiple of 4"),
        ({"num_blocks": 1.5}, "num_blocks=1.5; give an integer of at least 1"),
    ],
)
def test_wrong_options_of_the_head(option, message):
    with pytest.raises(ExplainerError, match=message):
        make(EXPLAINERS[0], **option)


def test_loading_arguments_belong_to_names():
    with pytest.raises(
        ExplainerError, match="dtype was given with a SwinForImageClassification that is loaded already"
    ):
        make(EXPLAINERS[0], dtype=torch.bfloat16)


def test_a_processor_given_beside_a_classifier_is_used():
    classifier = Classifier(build("swin"))
    explainer = EXPLAINERS[0].from_classifier(classifier, processor(64), preset="tiny")
    assert explainer.image_processor is not None and classifier.image_processor is None
