"""LTX and Vision DiffMask train with the guarantees of ranking: exact wherever they stop, whatever the batch."""

import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from families import build, pictures, processor
from training_cases import (
    CONFIG,
    HELD_OUT,
    ROWS,
    SIZE,
    at_step,
    disturb,
    equal,
    head,
    killed_while_writing,
    losses,
    start,
    timeless,
    too_large,
    wait,
)

from hf_explain import (
    DiffMaskExplainerForImageClassification,
    ExplainerError,
    ExplainerForImageClassification,
    LtxExplainerForImageClassification,
)
from hf_explain.training import train
from hf_explain.training.checkpoints import checkpoints
from hf_explain.training.dry_run import dry_run
from hf_explain.training.log import read_log

METHODS = {"ltx": LtxExplainerForImageClassification, "diffmask": DiffMaskExplainerForImageClassification}
PLAIN = replace(CONFIG, budgets=None, grids=None, learning_rate=1e-2)
each = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


def make(method):
    return METHODS[method].from_classifier(build("resnet", 0, SIZE), processor(SIZE))


def run(method, output_dir=None, explainer=None, rows=ROWS, stop_after=None, held_out=HELD_OUT, **changes):
    explainer = explainer or make(method)
    output_dir = output_dir and str(output_dir)
    result = train(explainer, rows, replace(PLAIN, **changes), held_out, output_dir, False, stop_after)
    return head(explainer), result


@pytest.fixture(scope="module")
def whole():
    """Undisturbed runs."""
    os.environ["ACCELERATE_USE_CPU"] = "true"
    return {method: run(method) for method in METHODS}


@each
def test_only_what_learns_moves(method, whole):
    begun = head(make(method))
    moved = {name for name in begun if not torch.equal(begun[name], whole[method][0][name])}
    learns = {name for name, p in make(method).head.named_parameters() if p.requires_grad}
    assert moved <= learns | {"multipliers"} and len(moved) > len(learns) / 2
    assert torch.isfinite(losses(whole[method][1])).all()
    scores = [line["eval/score"] for line in whole[method][1].log if "eval/score" in line]
    assert len(scores) == 3 and whole[method][1].best_score == min(scores)


@each
def test_a_killed_run_goes_on_to_the_bit(method, tmp_path, whole):
    assert wait(start(1, killed_while_writing, tmp_path, 4, {}, partial(run, method))) == [-signal.SIGKILL]
    assert [Path(c).name for c in checkpoints(tmp_path)] == ["checkpoint-2"]
    resumed, result = run(method, tmp_path, resume_from_checkpoint="last")
    assert result.step == 6 and result.log[0]["step"] == 3
    assert equal(resumed, whole[method][0]) and result.best_step == whole[method][1].best_step
    assert timeless(read_log(tmp_path / "training_log.jsonl")) == timeless(whole[method][1].log)
    again = ExplainerForImageClassification.from_pretrained(tmp_path)
    assert equal(head(again), whole[method][0]) and again.config.trained_steps == result.best_step


@each
def test_a_signal_saves_and_the_run_goes_on_to_the_bit(method, tmp_path, whole, monkeypatch):
    with monkeypatch.context() as patch:
        disturb(patch, at_step(2, lambda: os.kill(os.getpid(), signal.SIGTERM)))
        _, result = run(method, tmp_path)
    assert result.stopped_by == signal.SIGTERM and result.step == 3
    assert equal(run(method, tmp_path, resume_from_checkpoint="last")[0], whole[method][0])


@each
def test_memory_that_runs_out_changes_rounding_only(method, whole, monkeypatch):
    disturb(monkeypatch, too_large(2))
    _, result = run(method)
    torch.testing.assert_close(losses(result), losses(whole[method][1]), atol=1e-3, rtol=1e-3)


@each
def test_a_loss_that_is_not_finite_ends_the_run(method, tmp_path, monkeypatch):
    disturb(monkeypatch, at_step(3, None))
    with pytest.raises(ExplainerError, match=r"step 3: the loss of pictures 0 to 3 .* checkpoint is .*checkpoint-2"):
        run(method, tmp_path)


def two(rank, method, folder):
    half = {"per_device_train_batch_size": 2}
    found = {"whole": run(method, **half)}
    found["resumed"] = run(method, folder / "killed", resume_from_checkpoint="last", **half)
    torch.save(found, folder / f"found-{rank}.pt")


@each
def test_two_processes(method, tmp_path, whole):
    """Killed and gone on with to the bit; the same curve as one process with all of the batch."""
    half = {"per_device_train_batch_size": 2}
    victims = start(2, killed_while_writing, tmp_path / "killed", 4, half, partial(run, method))
    victims[0].join(120)
    assert victims[0].exitcode == -signal.SIGKILL
    victims[1].kill()
    assert wait(start(2, two, method, tmp_path)) == [0, 0]
    one, other = (torch.load(tmp_path / f"found-{rank}.pt", weights_only=False) for rank in (0, 1))
    for name in one:
        assert equal(one[name][0], other[name][0]), name
    assert equal(one["resumed"][0], one["whole"][0])
    torch.testing.assert_close(losses(one["whole"][1]), losses(whole[method][1]), atol=1e-3, rtol=1e-3)


@each
def test_a_dry_run_says_what_it_costs_and_changes_nothing(method):
    explainer = make(method)
    before = head(explainer)
    cost = dry_run(explainer, ROWS, PLAIN, HELD_OUT)
    assert equal(head(explainer), before) and cost.passes > 0 and "peak memory" in str(cost)
    assert cost.head_parameters == sum(p.numel() for p in explainer.head.parameters())


@each
def test_the_command(method, tmp_path, capsys):
    from families import save_classifier

    from hf_explain.cli import main

    folder = save_classifier(tmp_path / "classifier")
    call = ["train", "--classifier", str(folder), "--method", method, "--dataset", "scenes", "--dataset_size", "12"]
    call += ["--output_dir", str(tmp_path / "out"), "--max_steps", "2", "--per_device_train_batch_size", "4"]
    assert main([*call, "--num_workers", "0", "--eval_size", "4"]) == 0
    said = capsys.readouterr().out
    assert "holds the explainer of step" in said and f"held-out {'loss' if method == 'ltx' else 'share'}" in said
    explainer = ExplainerForImageClassification.from_pretrained(tmp_path / "out")
    assert type(explainer) is METHODS[method]
    assert explainer(pictures(1, tuple(explainer.config.image_size))).attributions.std() > 0


@each
def test_settings_of_other_methods_are_refused(method):
    with pytest.raises(ExplainerError, match=f"budgets=4 is no setting of {method}; leave it out"):
        run(method, budgets=4)
