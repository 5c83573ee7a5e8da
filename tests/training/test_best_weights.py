"""The best weights are kept, and what is written."""

from pathlib import Path

import pytest
from training_cases import CONFIG, HELD_OUT, ROWS, equal, head, losses, make, run

from hf_explain import ExplainerError, ExplainerForImageClassification
from hf_explain.jobs.processes import Processes
from hf_explain.training import loop as training_module
from hf_explain.training.checkpoints import checkpoints
from hf_explain.training.dry_run import dry_run
from hf_explain.training.held_out import evaluate


def test_the_best_weights_are_kept(monkeypatch, tmp_path):
    heads, scores = [], iter([0.5, 0.3, 0.4])

    def scripted(explainer, *arguments):
        heads.append(head(explainer))
        return {"deletion": 0.5, "insertion": 0.5, "score": next(scores)}

    monkeypatch.setattr(training_module, "evaluate", scripted)
    explainer = make()
    best, result = run(tmp_path, explainer)
    assert (result.best_step, result.best_score, result.step) == (4, 0.3, 6)
    assert equal(best, heads[1]) and not equal(heads[1], heads[2])
    saved = ExplainerForImageClassification.from_pretrained(str(tmp_path))
    assert equal(head(saved), best) and saved.config.trained_steps == explainer.config.trained_steps == 4
    assert saved.image_processor is not None
    last = ExplainerForImageClassification.from_pretrained(str(tmp_path / "checkpoint-6"))
    assert equal(head(last), heads[2]) and last.config.trained_steps == 6


def test_the_score_is_that_of_the_weights_one_gets(whole):
    explainer = make()
    _, result = run(explainer=explainer)
    again = evaluate(explainer, HELD_OUT, CONFIG, Processes())
    assert again["score"] == result.best_score == min(x["eval/score"] for x in result.log if "eval/score" in x)
    assert again["score"] == pytest.approx(again["deletion"] + 1 - again["insertion"])
    assert again["deletion"] == pytest.approx((again["mean/deletion"] + again["blur/deletion"]) / 2)
    assert not explainer.training


def test_the_best_of_an_earlier_part_survives_a_restart(monkeypatch, tmp_path):
    scores = iter([0.3, 0.5, 0.4])
    fake = lambda *arguments: {"deletion": 0.5, "insertion": 0.5, "score": next(scores)}  # noqa: E731
    monkeypatch.setattr(training_module, "evaluate", fake)
    run(tmp_path, stop_after=4)
    early = head(ExplainerForImageClassification.from_pretrained(str(tmp_path)))
    final, result = run(tmp_path, resume_from_checkpoint="last")
    assert result.best_step == 2 and equal(final, early)


def test_a_score_that_is_none_is_never_the_best(monkeypatch, tmp_path):
    scores = iter([float("nan"), 0.5, float("nan")])
    fake = lambda *arguments: {"deletion": 0.5, "insertion": 0.5, "score": next(scores)}  # noqa: E731
    monkeypatch.setattr(training_module, "evaluate", fake)
    _, result = run(tmp_path)
    assert (result.best_step, result.best_score) == (4, 0.5)
    scores = iter([float("nan")] * 3)
    _, result = run()
    assert (result.best_step, result.best_score) == (6, None)


@pytest.mark.parametrize("held_out, said", [([], "eval_dataset is empty"), (iter(ROWS), "eval_dataset has no length")])
def test_held_out_pictures_that_are_none(held_out, said, tmp_path):
    with pytest.raises(ExplainerError, match=said):
        run(tmp_path / "new", held_out=held_out)
    with pytest.raises(ExplainerError, match=said):
        dry_run(make(), ROWS, CONFIG, held_out)
    assert not (tmp_path / "new").exists()


def test_without_held_out_pictures_the_last_weights_are_kept(tmp_path):
    last, result = run(tmp_path, held_out=None)
    saved = ExplainerForImageClassification.from_pretrained(str(tmp_path))
    assert equal(head(saved), last) and saved.config.trained_steps == result.best_step == 6
    assert result.best_score is None


def test_only_so_many_checkpoints_are_kept(tmp_path):
    run(tmp_path, save_steps=1, save_total_limit=2, held_out=None)
    assert [Path(c).name for c in checkpoints(tmp_path)] == ["checkpoint-5", "checkpoint-6"]


def test_no_steps(tmp_path):
    explainer = make()
    before = head(explainer)
    after, result = run(tmp_path, explainer, max_steps=0)
    assert equal(before, after) and result.step == 0 and result.log == []
    assert ExplainerForImageClassification.from_pretrained(str(tmp_path)).config.trained_steps == 0


def test_a_finished_run_may_be_resumed(tmp_path, whole):
    run(tmp_path)
    again, result = run(tmp_path, resume_from_checkpoint="last")
    assert equal(again, whole[0]) and result.log == [] and result.step == 6


def test_a_trained_explainer_can_be_trained_further():
    explainer = make()
    run(explainer=explainer, held_out=None)
    run(explainer=explainer, held_out=None)
    assert explainer.config.trained_steps == 12


def test_training_lowers_the_loss():
    _, result = run(max_steps=25, per_device_train_batch_size=8, held_out=None, references=("black",), grids=(4, 4))
    assert losses(result)[-5:].mean() < losses(result)[:5].mean() - 0.01
