"""Settings of a training, and what is refused of them."""

import pytest
import torch
from training_cases import run

from hf_explain import ExplainerError
from hf_explain.training import TrainingConfig


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"mixed_precision": "fp16"}, "mixed_precision='fp16' is not offered: .* take 'bf16'"),
        ({"mixed_precision": "int8"}, "choose auto, no or bf16"),
        ({"max_steps": -1}, "max_steps=-1; give 0 or more"),
        ({"save_steps": 0}, "save_steps=0; give 1 or more"),
        ({"learning_rate": 0}, "learning_rate=0; give a positive number"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"warmup_ratio": 2}, "warmup_ratio=2; give a share"),
        ({"grids": (9, 4)}, "give two counts of cells in rising order"),
        ({"grids": (4,)}, "give two values"),
        ({"grids": (4, "many")}, "grids holds 'many'"),
        ({"references": ("grey",)}, "unknown reference 'grey'; choose from black, mean, blur, noise"),
        ({"eval_references": "2"}, "give a gray from 0 to 1"),
        ({"eval_references": ()}, "name at least one"),
        ({"eval_budgets": 2}, "at least 3 points"),
        ({"objective": "best"}, "unknown objective 'best'; choose from default"),
        ({"operator": "sort"}, "unknown operator 'sort'"),
    ],
)
def test_wrong_settings(changes, said):
    with pytest.raises(ExplainerError, match=said):
        TrainingConfig(**changes)


def test_settings_of_the_objective():
    objective = TrainingConfig(grids=("4", "pixels"), references=("black", "0.5"), tau=(1.0, 0.1)).objective_of(
        "ranking"
    )
    assert objective.grids == (4, None) and objective.references == ("black", 0.5) and objective.tau == (1.0, 0.1)


def test_the_learning_rate_rises_and_falls():
    config = TrainingConfig(max_steps=100, warmup_ratio=0.1, learning_rate=1.0)
    rates = [config.learning_rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == 1.0 and 0 < rates[99] < 1e-3
    assert rates[55] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "rows, said",
    [
        ([], "the data set is empty"),
        ([{"image": 1}] * 4, "holds a dict without 'pixel_values'"),
        ([{"pixel_values": torch.zeros(3, 32, 32 + i)} for i in range(4)], "equal for all, is needed"),
    ],
)
def test_wrong_rows(rows, said):
    with pytest.raises(ExplainerError, match=said):
        run(rows=rows, num_workers=1)
