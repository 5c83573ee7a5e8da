"""The faithfulness task of Vision DiffMask: which patches a classifier that counts red ones needs."""

import json

import numpy as np
import pytest
import torch

from hf_explain import ExplainerError, ExplainerForImageClassification
from hf_explain.cli import main
from hf_explain.demo.counting import COLORS, Counting, draw_counting, f1, run


def test_pictures_are_what_they_say():
    images, labels, red = draw_counting(500, seed=3)
    again, _, other = draw_counting(500, seed=3)
    assert np.array_equal(images, again) and np.array_equal(red, other) and set(labels) == set(range(10))
    patches = images.reshape(500, 3, 16, 3, 16, 3).transpose(0, 1, 3, 2, 4, 5).reshape(500, 3, 3, 256, 3)
    assert (patches == patches[:, :, :, :1]).all()  # one color each
    assert np.array_equal((patches[:, :, :, 0] == COLORS[0]).all(-1), red)
    assert np.array_equal(red.sum((1, 2)), labels)
    assert abs(red[labels == 4].mean((1, 2)).mean() - 4 / 9) < 1e-6 and red[labels == 1].any(0).all()  # anywhere


def test_f1():
    kept, red = torch.tensor([[True, True, False]]), torch.tensor([[True, False, True]])
    assert f1(kept, red) == 0.5 and f1(red, red) == 1 and f1(~red, red) == 0


def test_gates_find_the_red_patches(tmp_path):
    """From nothing: the classifier counts, and the gates keep what it counts."""
    results = run(Counting(output_dir=str(tmp_path)), say=lambda text: None)
    assert results["accuracy"] >= 0.99
    assert results["f1"] >= 0.95 > results["f1_all_kept"] + 0.2
    assert set(results["f1_by_count"]) == set(range(1, 10))
    assert json.loads((tmp_path / "metrics.json").read_text())["f1"] == results["f1"]
    explainer = ExplainerForImageClassification.from_pretrained(tmp_path / "explainer")
    assert explainer.config.trained_steps == Counting().steps


def test_wrong_settings(tmp_path):
    with pytest.raises(ExplainerError, match="pictures=0; give at least 1"):
        run(Counting(output_dir=str(tmp_path), pictures=0))


def test_the_command(tmp_path, capsys):
    few = ["--pictures", "64", "--held_out", "32", "--epochs", "1", "--steps", "1", "--batch_size", "8"]
    assert main(["counting", "--output_dir", str(tmp_path), *few]) == 0
    said = capsys.readouterr().out
    assert "new pictures rightly" in said and "keeping all of them" in said
