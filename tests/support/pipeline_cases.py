"""What the tests of the pipeline share."""

import numpy as np
import PIL.Image
import pytest
from families import LABELS, build, processor

import hf_explain
from hf_explain import ExplainerError

KEYS = {"label", "index", "score", "attribution", "heatmap", "box"}
TASK = "image-attribution"


def picture(width=40, height=30, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return PIL.Image.fromarray(noise)


PICTURES = [picture(40 + i, 30 + 2 * i, seed=i) for i in range(4)]


def make_explainer(model=None, image_processor=None):
    model = model if model is not None else build("swin")
    make = hf_explain.RankingExplainerForImageClassification.from_classifier
    return make(model, image_processor or processor(64), preset="tiny")


def assert_same(results, expected, atol=1e-5):
    assert len(results) == len(expected)
    for one, other in zip(results, expected, strict=True):
        assert [r["label"] for r in one] == [r["label"] for r in other]
        for r, e in zip(one, other, strict=True):
            np.testing.assert_allclose(r["attribution"], e["attribution"], atol=atol)
            assert r["score"] == pytest.approx(e["score"], abs=atol) and r["box"] == e["box"]


def assert_refused(call, *words):
    with pytest.raises(ExplainerError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400 and message.endswith(".") and ";" in message, message
    for word in words:
        assert word in message, message


def check_result(result, size):
    width, height = size
    assert set(result) == KEYS
    assert result["label"] in LABELS.values() and isinstance(result["score"], float) and 0 <= result["score"] <= 1
    assert result["attribution"].dtype == np.float32 and result["attribution"].shape == (height, width)
    assert result["heatmap"].mode == "RGB" and result["heatmap"].size == (width, height)
    left, top, right, bottom = result["box"]
    seen = np.isfinite(result["attribution"])
    assert seen[top:bottom, left:right].all() and seen.sum() == (right - left) * (bottom - top)
