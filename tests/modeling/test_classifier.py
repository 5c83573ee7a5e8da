"""A model with the space its pictures live in and its labels."""

import pytest
import torch
from families import LABELS, build, pictures, processor

from hf_explain import Classifier, ExplainerError, PixelSpace
from hf_explain.modeling.frozen_models import check_fingerprint, fingerprint


def test_it_changes_nothing_by_being_made_or_called():
    model = build("vit").train()
    flags = [m.training for m in model.modules()]
    classifier = Classifier(model, processor(64))
    logits = classifier(pictures())
    assert flags == [m.training for m in model.modules()] and all(p.requires_grad for p in model.parameters())
    with torch.no_grad():
        assert torch.allclose(logits, model.eval()(pictures()).logits, atol=1e-5)


def test_eval_mode_is_used_even_for_a_training_model():
    model = build("vit", hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5).train()
    classifier = Classifier(model, processor(64))
    assert torch.equal(classifier(pictures()), classifier(pictures()))


def test_from_pretrained(tmp_path):
    build("swin").save_pretrained(tmp_path)
    processor(64).save_pretrained(tmp_path)
    classifier = Classifier.from_pretrained(str(tmp_path))
    assert classifier.size == (64, 64) and classifier.num_labels == 5 and classifier.id2label == LABELS
    assert classifier.pixel_space.is_close(PixelSpace((2, 2, 2), (-1, -1, -1)))
    assert not any(p.requires_grad for p in classifier.parameters()) and not classifier.training
    assert classifier.name_or_path == str(tmp_path) and classifier.revision is None


def test_a_checkpoint_without_a_trained_head_is_refused(tmp_path):
    build("vit").vit.save_pretrained(tmp_path)
    with pytest.raises(ExplainerError, match=r"no trained weights for classifier\.(bias|weight)"):
        Classifier.from_pretrained(str(tmp_path))


@pytest.mark.parametrize(
    "target, index",
    [("zebra", 4), ("tiger cat", 1), ("tabby", 0), ("tabby cat", 0), ("tabby, tabby cat", 0), ("machine", 3), (2, 2)],
)
def test_targets(target, index):
    assert Classifier(build("swin")).target_index(target) == index


def test_targets_of_other_integer_types():
    import numpy as np

    classifier = Classifier(build("swin"))
    assert classifier.target_index(np.int64(3)) == 3 == classifier.target_index(torch.tensor(3))


@pytest.mark.parametrize(
    "target, message",
    [
        ("zebar", r"unknown target 'zebar'; nearest labels: 'zebra'"),
        ("crane", r"names 2 classes, 2 \('crane, bird'\), 3 \('crane, machine'\); give one of these indices"),
        (5, "from 0 to 4"),
        (-1, "from 0 to 4"),
        (True, "is no class"),
        (torch.tensor(True), "is no class"),
        (1.5, "is no class"),
        (None, "is no class"),
        (torch.tensor([1, 2]), "is no class"),
    ],
)
def test_wrong_targets(target, message):
    with pytest.raises(ExplainerError, match=message):
        Classifier(build("swin")).target_index(target)


def test_an_exact_label_wins_over_synonyms():
    model = build("swin")
    model.config.id2label = {0: "crane", 1: "crane, bird", 2: "a", 3: "b", 4: "c"}
    assert Classifier(model).target_index("crane") == 0


def test_scores_follow_the_problem_type():
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    model = build("swin")
    assert torch.allclose(Classifier(model).scores(logits), logits.softmax(-1))
    model.config.problem_type = "multi_label_classification"
    assert torch.allclose(Classifier(model).scores(logits), logits.sigmoid())
    one = build("swin")
    one.config.id2label = {0: "cat"}
    assert torch.allclose(Classifier(one).scores(logits[:, :1]), logits[:, :1].sigmoid())


def test_a_regression_head_is_refused():
    model = build("swin")
    model.config.problem_type = "regression"
    with pytest.raises(ExplainerError, match=r"regression head.*no class to explain"):
        Classifier(model)


def test_nan_weights_are_found_by_the_probe():
    model = build("swin")
    with torch.no_grad():
        model.classifier.weight.fill_(float("nan"))
    with pytest.raises(ExplainerError, match="NaN or infinite logits"):
        Classifier(model, processor(64)).probe()


def test_wrong_labels_are_found_by_the_probe():
    model = build("swin")
    model.config.id2label = {0: "a", 1: "b"}
    with pytest.raises(ExplainerError, match="returns 5 logits, but its config names 2 labels"):
        Classifier(model, processor(64)).probe()


def test_a_gray_classifier_is_refused():
    with pytest.raises(ExplainerError, match="1-channel input"):
        Classifier(build("vit", num_channels=1))


def test_the_fingerprint_knows_the_weights_and_nothing_else():
    one, same, other = fingerprint(build("swin")), fingerprint(build("swin")), fingerprint(build("swin", seed=1))
    assert one == same and set(one) == {"float32", "float16", "bfloat16"}
    assert all(one[k] != other[k] for k in one)
    changed = build("swin")
    with torch.no_grad():
        changed.classifier.bias[0] += 1e-3
    assert fingerprint(changed)["float32"] != one["float32"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_fingerprint_holds_in_every_dtype(dtype):
    expected = fingerprint(build("swin"))
    check_fingerprint(build("swin").to(dtype), expected, "classifier", "x")
    with pytest.raises(ExplainerError, match="classifier x has the fingerprint"):
        check_fingerprint(build("swin", seed=1).to(dtype), expected, "classifier", "x")


def test_the_fingerprint_does_not_move_with_integer_counters():
    model = build("resnet")
    expected = fingerprint(model)
    for module in model.modules():
        if hasattr(module, "num_batches_tracked"):
            module.num_batches_tracked += 1
    assert fingerprint(model) == expected


def test_a_float64_copy_is_the_same_classifier():
    check_fingerprint(build("swin").double(), fingerprint(build("swin")), "classifier", "x")


def test_unusual_labels():
    model = build("swin")
    model.config.id2label = {str(i): f"c{i}" for i in range(5)}
    classifier = Classifier(model)
    assert classifier.id2label == {i: f"c{i}" for i in range(5)} and classifier.target_index("c4") == 4
    model.config.id2label = {i + 1: f"c{i}" for i in range(5)}
    with pytest.raises(ExplainerError, match="target 5 is no class"):
        classifier.target_index("c4")


def test_other_models_are_refused_before_they_are_loaded(tmp_path):
    from transformers import BertConfig, BertModel

    from hf_explain import RankingExplainerForImageClassification

    BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)).save_pretrained(
        tmp_path
    )
    with pytest.raises(ExplainerError, match="holds a 'bert' model, which classifies no pictures; give"):
        Classifier.from_pretrained(str(tmp_path))
    explainer = RankingExplainerForImageClassification.from_classifier(build("swin"), processor(64), preset="tiny")
    explainer.save_pretrained(tmp_path / "x")
    with pytest.raises(ExplainerError, match=r"of an explainer, explainer.classifier"):
        Classifier.from_pretrained(str(tmp_path / "x"))
    with pytest.raises(ExplainerError, match="is an explainer; give its classifier"):
        RankingExplainerForImageClassification.from_classifier(explainer)
    build("swin").save_pretrained(tmp_path / "swin")
    with pytest.raises(ExplainerError, match="holds a 'swin' model, not a RankingExplainer"):
        RankingExplainerForImageClassification.from_pretrained(tmp_path / "swin")


def test_a_missing_folder_is_called_so():
    with pytest.raises(ExplainerError, match="there is no folder '/no/such/thing'; give"):
        Classifier.from_pretrained("/no/such/thing")
