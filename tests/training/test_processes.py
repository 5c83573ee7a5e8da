"""Two processes give what one gives, and stop together."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_cases import (
    CONFIG,
    HELD_OUT,
    ROWS,
    at_step,
    disturb,
    equal,
    killed_while_writing,
    losses,
    make,
    run,
    start,
    timeless,
    too_large,
    wait,
)

from hf_explain import ExplainerError
from hf_explain.training.checkpoints import checkpoints
from hf_explain.training.dry_run import dry_run
from hf_explain.training.log import read_log


def test_a_killed_run_goes_on_to_the_bit(tmp_path, whole):
    """kill -9 while a checkpoint is being written; the one before it is in an earlier epoch."""
    assert wait(start(1, killed_while_writing, tmp_path, 4, {})) == [-signal.SIGKILL]
    assert [Path(c).name for c in checkpoints(tmp_path)] == ["checkpoint-2"]
    assert any(path.name.endswith(".unfinished") for path in tmp_path.iterdir())
    resumed, result = run(tmp_path, resume_from_checkpoint="last")
    assert result.step == 6 and result.log[0]["step"] == 3
    assert equal(resumed, whole[0]) and result.best_step == whole[1].best_step
    assert timeless(read_log(tmp_path / "training_log.jsonl")) == timeless(whole[1].log)
    assert not any(path.name.endswith(".unfinished") for path in tmp_path.iterdir())


def two(rank, folder):
    """What two processes must show, one training after the other; the first one tells."""
    half = {"per_device_train_batch_size": 2}
    found = {"whole": run(**half)}
    found["resumed"] = run(folder / "killed", resume_from_checkpoint="last", **half)
    found["one at a time"] = run(per_device_train_batch_size=1, gradient_accumulation_steps=2)
    with pytest.MonkeyPatch.context() as patch:
        if rank == 1:
            disturb(patch, too_large(1))
        found["out of memory"] = run(**half)
    with pytest.MonkeyPatch.context() as patch:
        if rank == 1:
            disturb(patch, at_step(3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
        found["stopped"] = run(folder / "stopped", **half)
    found["went on"] = run(folder / "stopped", resume_from_checkpoint="last", **half)
    different = make()  # as if the processes had begun with other weights
    with torch.no_grad():
        next(different.head.parameters()).add_(rank)
    found["other beginnings"] = run(explainer=different, **half)
    with pytest.MonkeyPatch.context() as patch:
        if rank == 1:
            disturb(patch, at_step(1, None))
        with pytest.raises(ExplainerError) as error:
            run(**half)
        found["not finite"] = str(error.value)
    costs = replace(CONFIG, references=("black",), max_steps=2, per_device_eval_batch_size=2, **half)
    found["cost"] = dry_run(make(), ROWS, costs, HELD_OUT).passes
    torch.save(found, folder / f"found-{rank}.pt")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What the two processes found."""
    os.environ["ACCELERATE_USE_CPU"] = "true"
    folder = tmp_path_factory.mktemp("two")
    victims = start(2, killed_while_writing, folder / "killed", 4, {"per_device_train_batch_size": 2})
    victims[0].join(120)
    assert victims[0].exitcode == -signal.SIGKILL
    victims[1].kill()
    assert [Path(c).name for c in checkpoints(folder / "killed")] == ["checkpoint-2"]
    assert wait(start(2, two, folder)) == [0, 0]
    return [torch.load(folder / f"found-{rank}.pt", weights_only=False) for rank in (0, 1)]


def test_both_processes_have_the_same_weights(both):
    for name in ("whole", "resumed", "out of memory", "went on", "other beginnings"):
        assert equal(both[0][name][0], both[1][name][0]), name


def test_a_killed_run_of_two_processes_goes_on_to_the_bit(both):
    assert equal(both[0]["resumed"][0], both[0]["whole"][0])
    assert both[0]["resumed"][1].log[0]["step"] == 3


def test_two_processes_follow_the_curve_of_one(both, whole):
    torch.testing.assert_close(losses(both[0]["whole"][1]), losses(whole[1]), atol=1e-4, rtol=0)
    scores = [[line["eval/score"] for line in r.log if "eval/score" in line] for r in (both[0]["whole"][1], whole[1])]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4) and len(scores[0]) == 3


def test_memory_that_runs_out_on_one_process_only(both):
    """All processes begin the step again with smaller micro-batches."""
    assert equal(both[0]["out of memory"][0], both[0]["one at a time"][0])


def test_a_signal_to_one_process_stops_all(both):
    assert [found["stopped"][1].stopped_by for found in both] == [signal.SIGTERM] * 2
    assert both[0]["stopped"][1].step == 4
    assert equal(both[0]["went on"][0], both[0]["whole"][0])


def test_a_loss_that_breaks_on_one_process_ends_all(both):
    for found in both:
        assert "step 1: the loss of pictures 2 to 3 of the batch" in found["not finite"]


def test_a_dry_run_counts_the_pictures_of_all_processes(both):
    """Two steps of 2 pictures on each of two processes, and one evaluation of 3 pictures, as in `test_dry_run`."""
    assert [found["cost"] for found in both] == [2 * 2 * (2 + 1 + 2 * 2 * 2) + 3 * (1 + 2 * (1 + 1 + 2))] * 2
