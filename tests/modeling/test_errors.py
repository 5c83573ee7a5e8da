"""Wrong input at the public door: one sentence that says what came, what was expected and what to do."""

import json
import re
import shutil

import numpy as np
import PIL.Image
import pytest
import torch
from families import build, processor
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, pipeline

from hf_explain import (
    Classifier,
    ExplainerError,
    ExplainerForImageClassification,
    RankingExplainerForImageClassification,
)

PICTURE = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A complete explainer folder, to be copied and spoiled."""
    folder = tmp_path_factory.mktemp("explainer")
    explainer = RankingExplainerForImageClassification.from_classifier(build("swin"), processor(64), preset="tiny")
    explainer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "explainer")
    return tmp_path / "explainer"


def edit_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def explain(model, *args, images=PICTURE, make=None, **kwargs):
    """Through `pipeline(...)`, as a user would."""
    return pipeline(
        "image-attribution", model=model if isinstance(model, torch.nn.Module) else str(model), **make or {}
    )(images, *args, **kwargs)


def spoil_head(folder):
    weights = load_file(folder / "model.safetensors")
    weights["head.class_maps.classes.weight"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def lose_weights(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["head.class_maps.classes.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def pickle_head(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def other_classifier(folder):
    build("swin", seed=7).save_pretrained(folder / "classifier")


def refer(name, **kwargs):
    return lambda folder: edit_config(folder, classifier_included=False, classifier_name_or_path=name, **kwargs)


def nan_classifier(folder):
    model = build("swin")
    with torch.no_grad():
        model.classifier.weight.fill_(float("nan"))
    model.save_pretrained(folder / "plain")
    processor(64).save_pretrained(folder / "plain")


def save_plain(model):
    def save(folder):
        model().save_pretrained(folder / "plain")
        processor(64).save_pretrained(folder / "plain")

    return save


def regression():
    model = build("swin")
    model.config.problem_type = "regression"
    return model


def two_labels():
    model = build("swin")
    model.config.id2label = {0: "a", 1: "b"}
    return model


def bert():
    return BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1))


def broken_file(folder):
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))


def nothing(folder):
    pass


# name: what is done to the folder, what is called with it, what the sentence must say
CASES = {
    "target out of range": (nothing, lambda f: explain(f, target=7), "target 7 is no class; .* from 0 to 4"),
    "unknown label": (nothing, lambda f: explain(f, target="zebar"), "unknown target 'zebar'; nearest labels: 'zebra'"),
    "ambiguous label": (
        nothing,
        lambda f: explain(f, target="crane"),
        "2 classes, 2 .*, 3 .*give one of these indices",
    ),
    "fewer targets": (
        nothing,
        lambda f: explain(f, images=[PICTURE] * 3, target=[1, 2]),
        "2 targets for 3 images; give",
    ),
    "tensor targets": (
        nothing,
        lambda f: ExplainerForImageClassification.from_pretrained(f)(torch.zeros(3, 3, 64, 64), targets=[1, 2]),
        r"targets of shape \(2,\).* for 3 images; give",
    ),
    "corrupt file": (
        broken_file,
        lambda f: explain(f, images=str(f / "broken.png")),
        "broken.png' cannot be read as a picture .*; check",
    ),
    "missing file": (nothing, lambda f: explain(f, images="no/such/cat.jpg"), "no file 'no/such/cat.jpg'; give"),
    "empty list": (nothing, lambda f: explain(f, images=[]), "empty list of pictures.*give at least one"),
    "not a picture": (nothing, lambda f: explain(f, images=[3.5]), "float is no picture; give a PIL image"),
    "NaN head": (spoil_head, explain, "hold NaN or infinite values .*load an earlier checkpoint"),
    "NaN classifier": (
        nan_classifier,
        lambda f: explain(f / "plain", make={"method": "gradient"}),
        "returned NaN or infinite values.*load it again",
    ),
    "NaN classifier, explainer": (
        nan_classifier,
        lambda f: RankingExplainerForImageClassification.from_classifier(str(f / "plain")),
        "NaN or infinite logits .*load them again",
    ),
    "text model": (
        save_plain(bert),
        lambda f: explain(f / "plain", make={"method": "gradient"}),
        "BertModel.*give an image classif",
    ),
    "headless model": (
        save_plain(lambda: build("vit").vit),
        lambda f: explain(f / "plain", make={"method": "gradient"}),
        "ViTModel, which has no trained image classification head; give an image classifier",
    ),
    "regression head": (
        save_plain(regression),
        lambda f: explain(f / "plain", make={"method": "gradient"}),
        "regression head .*give a classifier",
    ),
    "no places": (
        nothing,
        lambda f: RankingExplainerForImageClassification.from_classifier(bert()),
        "BertModel takes input_ids",
    ),
    "another classifier": (
        other_classifier,
        explain,
        "has the fingerprint .*made for .*give the right one with classifier=",
    ),
    "classifier gone": (
        lambda f: shutil.rmtree(f / "classifier"),
        explain,
        "could not be loaded .*; give it with classifier=",
    ),
    "pickle": (pickle_head, explain, "pytorch_model.bin, a pickle, .* save it again"),
    "weights missing": (lose_weights, explain, "lacks 1 tensors of the head.*save it again"),
    "reference upwards": (refer("../classifier"), explain, "'../classifier', which contains '..'; give .*classifier="),
    "reference into nowhere": (
        refer("/no/such/folder"),
        explain,
        "/no/such/folder.* could not be loaded .*; give it with",
    ),
    "no reference": (refer(None), explain, "names no classifier; give the one it was made for with classifier="),
    "newer format": (lambda f: edit_config(f, format_version=99), explain, "has format 99.*upgrade hf-explain"),
    "plain without method": (
        save_plain(lambda: build("swin")),
        lambda f: explain(f / "plain"),
        "plain classifier, so a method is needed; give method= one of random, gradient",
    ),
    "unknown method": (
        save_plain(lambda: build("swin")),
        lambda f: explain(f / "plain", make={"method": "magic"}),
        "unknown method 'magic'; choose from random",
    ),
    "method on an explainer": (
        nothing,
        lambda f: explain(f, method="gradient"),
        "is a learned explainer; leave method out",
    ),
    "measure": (nothing, lambda f: explain(f, measure="best"), "unknown preset 'best'; choose from aha"),
    "refine_steps": (
        nothing,
        lambda f: explain(f, refine_steps=-1),
        "refine_steps=-1; give an integer of at least 0",
    ),
    "top_k": (nothing, lambda f: explain(f, top_k=0), "top_k=0; give an integer of at least 1"),
    "target and top_k": (nothing, lambda f: explain(f, target=1, top_k=2), "both given; give"),
    "output_size": (nothing, lambda f: explain(f, output_size="big"), 'output_size=\'big\'; choose "image" or "model"'),
    "no image processor": (
        nothing,
        lambda f: explain(build("swin"), make={"method": "gradient"}),
        "no image processor was found .*give image_processor=",
    ),
    "another image processor": (
        nothing,
        lambda f: explain(f, make={"image_processor": processor(64, image_mean=[0.1] * 3)}),
        "was made for .*leave image_processor out",
    ),
    "unknown preset": (
        nothing,
        lambda f: RankingExplainerForImageClassification.from_classifier(build("swin"), preset="huge"),
        "no preset 'huge'; choose from tiny, small, base",
    ),
    "unknown option": (
        nothing,
        lambda f: RankingExplainerForImageClassification.from_classifier(build("swin"), width=3),
        "unknown option width .*its head has finest, hidden_size",
    ),
    "a classifier as explainer": (
        save_plain(lambda: build("swin")),
        lambda f: ExplainerForImageClassification.from_pretrained(f / "plain"),
        "holds a 'swin' model, not an explainer; make one",
    ),
    "wrong pixel values": (
        nothing,
        lambda f: ExplainerForImageClassification.from_pretrained(f)(torch.zeros(3, 64, 64)),
        r"shape \(3, 64, 64\), but a tensor \(batch, 3, height, width\) is needed; give",
    ),
    "fixed size": (
        nothing,
        lambda f: RankingExplainerForImageClassification.from_classifier(build("hiera"), processor(64), preset="tiny")(
            torch.zeros(1, 3, 96, 96)
        ),
        "refused pictures of 96 x 96, it is configured for 64 x 64; resize the pictures",
    ),
    "labels do not fit": (
        nothing,
        lambda f: ExplainerForImageClassification.from_pretrained(f).attach(Classifier(two_labels())),
        "classes, but this explainer was made for 5; give the classifier",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_sentence(name, folder):
    spoil, call, expected = CASES[name]
    spoil(folder)
    with pytest.raises(ExplainerError) as caught:
        call(folder)
    sentence = str(caught.value)
    assert re.search(expected, sentence), sentence
    assert "\n" not in sentence and len(sentence) < 700 and sentence.endswith("."), sentence
    assert not isinstance(caught.value, (ValueError, OSError, TypeError, RuntimeError))  # which transformers swallows
