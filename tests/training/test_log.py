"""What a run says: trackers, bars, the log, the dry run."""

import io
import sys
from dataclasses import replace

import pytest
from accelerate.tracking import GeneralTracker
from training_cases import (
    CONFIG,
    HELD_OUT,
    ROWS,
    equal,
    head,
    make,
    run,
)
from transformers.utils import logging

from hf_explain import ExplainerError
from hf_explain.jobs import processes as processes_module
from hf_explain.training.dry_run import dry_run


class Notebook(GeneralTracker):
    """A tracker that keeps what it is told."""

    name, requires_logging_directory = "notebook", False

    def __init__(self):
        super().__init__(_blank=True)
        self.config, self.lines, self.finished = None, [], False

    @property
    def tracker(self):
        return self

    def store_init_configuration(self, values):
        self.config = values

    def log(self, values, step=None, **kwargs):
        self.lines.append({"step": step} | values)

    def finish(self):
        self.finished = True


def test_trackers_get_what_the_log_gets(monkeypatch):
    notebook = Notebook()
    monkeypatch.setattr(processes_module, "trackers", lambda *arguments: [notebook])
    _, result = run(max_steps=2)
    assert notebook.lines == result.log and notebook.finished
    assert notebook.config["seed"] == 0 and notebook.config["grids"] == "(3, 5)"


def test_trackers_that_are_not_there(monkeypatch, tmp_path):
    with pytest.raises(ExplainerError, match="unknown tracker 'paper' in report_to; choose from none, all, "):
        run(report_to="paper")
    monkeypatch.setattr(processes_module, "installed", lambda name: False)
    with pytest.raises(ExplainerError, match="report_to names wandb, which is not installed; pip install wandb"):
        run(report_to=("wandb",))
    assert processes_module.trackers(("all",), None) == []
    monkeypatch.setattr(processes_module, "installed", lambda name: name in ("tensorboard", "trackio"))
    assert processes_module.trackers(("all",), None) == ["trackio"]
    assert set(processes_module.trackers(("all",), "folder")) == {"tensorboard", "trackio"}
    with pytest.raises(ExplainerError, match="writes into output_dir"):
        run(report_to="tensorboard")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    "stream, switch, shown", [(Terminal, True, True), (io.StringIO, True, False), (Terminal, False, False)]
)
def test_the_progress_bar(stream, switch, shown, monkeypatch, tmp_path):
    """On a terminal, unless transformers' switch is off; checkpoints add no bars of their own."""
    explainer = make()
    monkeypatch.setattr(sys, "stderr", stream())
    (logging.enable_progress_bar if switch else logging.disable_progress_bar)()
    try:
        run(tmp_path, explainer, max_steps=2)
        assert logging.is_progress_bar_enabled() == switch
    finally:
        logging.disable_progress_bar()
    said = sys.stderr.getvalue()
    assert ("training" in said) == shown and "shards" not in said
    if shown:
        assert all(word in said for word in ("deletion=", "insertion=", "kappa=", "eval=", "2/2"))


def test_log_lines(whole):
    first, last = whole[1].log[0], whole[1].log[-1]
    assert {"train/loss", "train/deletion", "train/insertion", "train/kappa", "train/learning_rate"} <= first.keys()
    assert first["train/loss"] == pytest.approx(first["train/deletion"] + 1 - first["train/insertion"], abs=1e-5)
    assert {"eval/score", "eval/deletion", "eval/blur/insertion", "eval/mean/deletion"} <= last.keys()


def test_dry_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    explainer = make()
    before = head(explainer)
    config = replace(CONFIG, references=("black",), max_steps=100, eval_steps=50, gradient_accumulation_steps=2)
    cost = dry_run(explainer, ROWS, config, HELD_OUT)
    assert equal(head(explainer), before) and explainer.config.trained_steps == 0 and not any(tmp_path.iterdir())
    # per forward 4 clean pictures, a blank one, and 2 inner budgets of deletion and insertion; two forwards a step
    assert cost.passes_per_step == 2 * (4 + 1 + 2 * 2 * 4)
    # per evaluation and picture: map, under both references clean and one inner budget both ways, and its blur; and
    # the mean color once
    assert cost.passes == 100 * cost.passes_per_step + 2 * (3 * (1 + 2 * (1 + 2) + 1) + 1)
    assert cost.pictures == 10 and cost.pictures_per_step == 8
    assert cost.head_parameters == sum(p.numel() for p in explainer.head.parameters())
    assert cost.hours > 0 and cost.peak_memory > 1e6
    for word in ("parameters", "pictures per epoch", "42 pictures per step", "hours in total", "peak memory"):
        assert word in str(cost)
    assert not explainer.classifier.model._forward_pre_hooks
