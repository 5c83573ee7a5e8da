"""A run goes on where it was, to the bit, and refuses to go on as another."""

import os
from pathlib import Path

import pytest
import torch
from families import build, processor
from training_cases import HELD_OUT, ROWS, SIZE, equal, losses, make, run

from hf_explain import ExplainerError, RankingExplainerForImageClassification
from hf_explain.training import loop as training_module
from hf_explain.training import state as state_module
from hf_explain.training.checkpoints import checkpoints


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"seed": 1}, "seed=0, but this one has seed=1"),
        ({"per_device_train_batch_size": 8}, "global batch=4, but this one has global batch=8"),
        ({"objective": "aha-release"}, "objective="),
        ({"learning_rate": 0.1}, "learning_rate=0.001"),
        ({"explainer": 1}, "of another classifier, "),
        ({"rows": ROWS[:9]}, "pictures=10"),
    ],
)
def test_going_on_with_other_settings_is_refused(changes, said, tmp_path_factory, request):
    folder = request.getfixturevalue("stopped")
    changes = changes | ({"explainer": make(seed=1)} if "explainer" in changes else {})
    with pytest.raises(ExplainerError, match=said):
        run(folder, resume_from_checkpoint="last", **changes)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    os.environ["ACCELERATE_USE_CPU"] = "true"
    folder = tmp_path_factory.mktemp("stopped")
    run(folder, stop_after=2)
    return folder


def test_another_split_of_the_same_batch_may_go_on(stopped, tmp_path, whole):
    checkpoint = str(stopped / "checkpoint-2")
    _, result = run(
        tmp_path, resume_from_checkpoint=checkpoint, per_device_train_batch_size=2, gradient_accumulation_steps=2
    )
    torch.testing.assert_close(losses(result), losses(whole[1])[2:], atol=1e-4, rtol=0)


def test_a_folder_of_an_earlier_run_is_refused(stopped, tmp_path):
    with pytest.raises(ExplainerError, match="checkpoint-2 of an earlier run; go on from it with"):
        run(stopped)
    with pytest.raises(ExplainerError, match=r"is no checkpoint of a training run; .* holds checkpoint-2"):
        run(stopped, resume_from_checkpoint=str(tmp_path))
    with pytest.raises(ExplainerError, match="needs the output_dir"):
        run(resume_from_checkpoint="last")


def test_going_on_from_an_earlier_checkpoint(tmp_path, whole):
    """The later ones go, or the limit would remove the new ones as soon as they are written."""
    run(tmp_path, save_total_limit=3)
    early = str(tmp_path / "checkpoint-2")
    assert len(checkpoints(tmp_path)) == 3
    _, result = run(tmp_path, resume_from_checkpoint=early, save_total_limit=2, stop_after=3)
    assert [Path(c).name for c in checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-3"]
    assert os.path.isdir(result.checkpoint)
    assert equal(run(tmp_path, resume_from_checkpoint="last")[0], whole[0])


def test_checkpoints_of_another_run_are_not_touched(stopped, tmp_path):
    run(tmp_path, stop_after=3)
    with pytest.raises(ExplainerError, match=r"is none of the checkpoints in .* go on from it in another output_dir"):
        run(tmp_path, resume_from_checkpoint=str(stopped / "checkpoint-2"))
    assert [Path(c).name for c in checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-3"]


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"eval_references": ("black",)}, "eval_references=['mean', 'blur'] is now ['black']"),
        ({"eval_budgets": 5}, "eval_budgets=3 is now 5"),
        ({"held_out": HELD_OUT[:2]}, "eval pictures=3 is now 2"),
        ({}, None),
    ],
)
def test_a_best_score_of_another_kind_is_forgotten(changes, said, stopped, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(state_module.logger, "warning", warnings.append)
    scores = iter([9.0, 8.0])  # worse than what the first part had
    fake = lambda *arguments: {"deletion": 0.5, "insertion": 0.5, "score": next(scores)}  # noqa: E731
    monkeypatch.setattr(training_module, "evaluate", fake)
    _, result = run(tmp_path, resume_from_checkpoint=str(stopped / "checkpoint-2"), **changes)
    assert result.best_step == (6 if said else 2)
    assert len(warnings) == bool(said) and all(said in warning for warning in warnings)


def test_last_without_a_checkpoint_begins(tmp_path, whole):
    assert equal(run(tmp_path / "new", resume_from_checkpoint="last")[0], whole[0])


def test_another_head_is_refused(stopped):
    other = RankingExplainerForImageClassification.from_classifier(
        build("resnet", 0, SIZE), processor(SIZE), preset="small"
    )
    with pytest.raises(ExplainerError, match=r"the head in .* has another shape than this one"):
        run(stopped, other, resume_from_checkpoint="last")
