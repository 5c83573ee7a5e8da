"""Signals, and numbers that are none, end a run as they should."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from training_cases import ROWS, SIZE, at_step, disturb, equal, head, make, run, start, wait

from hf_explain import ExplainerError
from hf_explain.training.batches import Order
from hf_explain.training.checkpoints import checkpoints

# ---- stopping ----


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_and_saves(number, monkeypatch, tmp_path, whole):
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        disturb(patch, at_step(2, lambda: os.kill(os.getpid(), number)))
        _, result = run(tmp_path)
    assert (result.step, result.stopped_by) == (3, number) and result.checkpoint.endswith("checkpoint-3")
    assert signal.getsignal(number) is before
    assert equal(run(tmp_path, resume_from_checkpoint="last")[0], whole[0])


class SignalsAllInAWorker:
    """100 pictures, read slowly; reading the first one of step 5 signals the whole group."""

    def __init__(self, number):
        self.number, self.row = number, Order(100, 0, 4, range(20)).rows(5)[0]

    def __len__(self):
        return 100

    def __getitem__(self, row):
        time.sleep(0.05)
        if row == self.row:
            os.killpg(0, self.number)
            time.sleep(0.2)
        return ROWS[row % len(ROWS)]


def signalled_with_its_workers(rank, folder, number):
    os.setpgrp()
    _, result = run(folder, rows=SignalsAllInAWorker(number), num_workers=2, max_steps=20, held_out=None)
    assert result.stopped_by == number and 0 < result.step <= 6
    assert result.checkpoint.endswith(f"checkpoint-{result.step}") and os.path.isdir(result.checkpoint)
    assert not multiprocessing.active_children()  # shut down, not waited for


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_leaves_the_workers(number, tmp_path):
    """As Ctrl-C in a terminal and job schedulers send it."""
    began = time.monotonic()
    assert wait(start(1, signalled_with_its_workers, tmp_path, number)) == [0]
    assert time.monotonic() - began < 30


def test_a_second_interrupt_does_not_wait(monkeypatch):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    disturb(monkeypatch, at_step(1, twice))
    with pytest.raises(KeyboardInterrupt):
        run()


# ---- numbers that are none ----


def test_a_loss_that_is_not_finite_ends_the_run(monkeypatch, tmp_path, whole):
    with monkeypatch.context() as patch:
        disturb(patch, at_step(3, None))
        with pytest.raises(ExplainerError, match=r"step 3: the loss of pictures 0 to 3 .*checkpoint-2; lower learning"):
            run(tmp_path)
    assert [Path(c).name for c in checkpoints(tmp_path)] == ["checkpoint-2"]
    assert equal(run(tmp_path, resume_from_checkpoint="last")[0], whole[0])


def test_a_gradient_that_is_not_finite_ends_the_run(monkeypatch):
    def steep(loss, explainer, *arguments):
        value, log = loss(explainer, *arguments)
        return value + (0 * next(explainer.head.parameters())).sqrt().sum(), log  # slope: 0 times infinity

    disturb(monkeypatch, steep)
    explainer = make()
    before = head(explainer)
    with pytest.raises(ExplainerError, match=r"step 0: the gradient of pictures 0 to 3 .* there is no checkpoint yet"):
        run(explainer=explainer)
    assert equal(head(explainer), before)


def test_a_picture_that_is_not_finite_is_named():
    rows = [dict(row) for row in ROWS]
    rows[7] = {"pixel_values": torch.full((3, SIZE, SIZE), torch.nan)}
    with pytest.raises(ExplainerError, match=r"the pixel_values of picture \d of the batch \(row 7 of the data set\)"):
        run(rows=rows)
    some = torch.utils.data.Subset([*rows, *ROWS], range(5, 15))
    with pytest.raises(ExplainerError, match=r"\(row 7 of the data set\)"):
        run(rows=some)
