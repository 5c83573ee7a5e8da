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
        return size * per_picture.get(size, 1.0)

    monkeypatch.setattr(packing, "run", run)
    return tried


@pytest.mark.parametrize(
    ("per_picture", "found"),
    [
        ({4: 0.001, 8: 0.0005}, None),  # light: it does not matter
        ({4: 0.010, 8: 0.009, 16: 0.008}, 16),  # and 32 do not fit
        ({4: 0.010, 8: 0.007, 16: 0.011}, 8),
        ({4: 0.010, 8: 0.0099}, 4),  # no gain that is worth the memory
        ({4: 0.2, 8: 0.1}, 4),  # more than a second: not tried
    ],
)
def test_the_fastest_is_taken(classifier, monkeypatch, per_picture, found):
    tried = times(monkeypatch, per_picture)
    assert packing.fastest_batch(classifier.model, pictures()) == found
    before = len(tried)
    assert packing.fastest_batch(classifier.model, pictures()) == found and len(tried) == before


def test_the_first_process_decides_for_all(classifier, monkeypatch):
    times(monkeypatch, {4: 0.010, 8: 0.007})
    assert packing.fastest_batch(classifier.model, pictures()) == 8
    monkeypatch.setattr(packing, "KNOWN", {})  # another process, for which 4 would be faster
    times(monkeypatch, {4: 0.006, 8: 0.007})
    assert packing.fastest_batch(classifier.model, pictures()) == 8
    assert packing.remember(packing.key_of(classifier.model, pictures(), False), 4) == 8
    assert packing.fastest_batch(classifier.model, pictures(), gradient=True) == 4  # that is another question


def test_a_home_that_cannot_be_written(classifier, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(packing, "FOLDER", tmp_path / "file" / "batches")
    times(monkeypatch, {4: 0.010, 8: 0.007})
    assert packing.fastest_batch(classifier.model, pictures()) == 8


def test_forwards_are_packed_where_nobody_needs_them_together(classifier, monkeypatch):
    times(monkeypatch, {4: 0.010, 8: 0.007})
    x = pictures(20)
    with torch.no_grad(), counted(classifier.model) as seen:
        packed = classifier(x)
    assert seen == [8, 8, 4]
    with counted(classifier.model) as seen:
        whole = classifier(x.clone().requires_grad_())
    assert seen == [20] and torch.allclose(packed, whole, atol=1e-5)
    handle = classifier.model.register_forward_hook(lambda module, inputs, output: None)
    with torch.no_grad(), counted(classifier.model) as seen:
        classifier(x)
    handle.remove()
    assert seen == [20]
