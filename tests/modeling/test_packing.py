"""How many pictures at once are fastest: found once, agreed on by all processes, and no matter for what comes out."""

import pytest
import torch
from families import build, pictures

from hf_explain import Classifier
from hf_explain.modeling import packing
from hf_explain.modeling.model_call import counted


@pytest.fixture
def classifier(monkeypatch, tmp_path):
    monkeypatch.setattr(packing, "FOLDER", tmp_path / "batches")
    monkeypatch.setattr(packing, "KNOWN", {})
    return Classifier(build("resnet")).freeze()


def times(monkeypatch, per_picture):
    """As if a picture took so long in a batch of a size; the sizes that were tried."""
    tried = []

    def run(model, pixel_values, size, gradient):
        if size > 1:
            tried.append(size)
        if size not in (1, *per_picture):
            raise torch.OutOfMemoryError("no more")
        return size * per_picture.get(size, 0.01)

    monkeypatch.setattr(packing, "run", run)
    return tried


@pytest.mark.parametrize(
    ("per_picture", "found"),
    [
        ({8: 0.001, 16: 0.0005}, None),  # light: it does not matter
        ({8: 0.010, 16: 0.009, 32: 0.008}, 32),  # and 64 do not fit
        ({8: 0.010, 16: 0.007, 32: 0.011}, 16),
        ({8: 0.010, 16: 0.0099}, 8),  # no gain that is worth the memory
        ({8: 0.2, 16: 0.1}, 8),  # would take more than two seconds: not tried
        ({1: 1.0}, 8),  # nor is any
    ],
)
def test_the_fastest_is_taken(classifier, monkeypatch, per_picture, found):
    tried = times(monkeypatch, per_picture)
    assert packing.fastest_batch(classifier.model, pictures()) == found
    before = len(tried)
    assert packing.fastest_batch(classifier.model, pictures()) == found and len(tried) == before


def test_the_first_process_decides_for_all(classifier, monkeypatch):
    times(monkeypatch, {8: 0.010, 16: 0.007})
    assert packing.fastest_batch(classifier.model, pictures()) == 16
    monkeypatch.setattr(packing, "KNOWN", {})  # another process, for which 8 would be faster
    times(monkeypatch, {8: 0.006, 16: 0.007})
    assert packing.fastest_batch(classifier.model, pictures()) == 16
    assert packing.remember(packing.key_of(classifier.model, pictures(), False), 8) == 16
    assert packing.fastest_batch(classifier.model, pictures(), gradient=True) == 8  # that is another question


def test_a_home_that_cannot_be_written(classifier, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(packing, "FOLDER", tmp_path / "file" / "batches")
    times(monkeypatch, {8: 0.010, 16: 0.007})
    assert packing.fastest_batch(classifier.model, pictures()) == 16


def test_forwards_are_packed_where_nobody_needs_them_together(classifier, monkeypatch):
    times(monkeypatch, {8: 0.010, 16: 0.007})
    x = pictures(40)
    with torch.no_grad(), counted(classifier.model) as seen:
        packed = classifier(x)
    assert seen == [16, 16, 8]
    with counted(classifier.model) as seen:
        whole = classifier(x.clone().requires_grad_())
    assert seen == [40] and torch.allclose(packed, whole, atol=1e-5)
    handle = classifier.model.register_forward_hook(lambda module, inputs, output: None)
    with torch.no_grad(), counted(classifier.model) as seen:
        classifier(x)
    handle.remove()
    assert seen == [40]
