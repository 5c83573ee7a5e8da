"""Bars on a terminal, lines elsewhere."""

import io
import sys

import pytest
from transformers.utils import logging

from hf_explain.jobs import progress as module
from hf_explain.jobs.progress import only_lines, progress

pytestmark = pytest.mark.filterwarnings("ignore:Cannot enable progress bars")  # which conftest.py turns off for good


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    shown = logging.is_progress_bar_enabled()
    monkeypatch.setattr(module, "asked_for_lines", False)
    logging.enable_progress_bar()
    yield
    (logging.enable_progress_bar if shown else logging.disable_progress_bar)()


@pytest.fixture
def busy(monkeypatch):
    """Every item counts as long."""
    monkeypatch.setattr(module, "EVERY", 0.0)


def test_a_log_file_gets_lines(busy, capsys):
    with progress(total=4, desc="training") as bar:
        for step in range(4):
            bar.set_postfix({"deletion": f"{step / 10:.3f}"}, refresh=False)
            bar.update()
    said = capsys.readouterr().err
    assert "\r" not in said and "training: 2 of 4, 00:00 gone, 00:00 left, deletion=0.100" in said.splitlines()


def test_what_has_no_end_says_how_far_it_is(busy, capsys):
    with progress(desc="explaining", unit=" pictures") as bar:
        bar.update(3)
    assert "explaining: 3 pictures, 00:00 gone" in capsys.readouterr().err.splitlines()


def test_what_is_short_says_nothing(capsys):
    assert list(progress(range(100), desc="soon done")) == list(range(100))
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    list(progress(range(5), desc="adding", mininterval=0))
    assert "100%" in sys.stderr.getvalue() and "\r" in sys.stderr.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_the_switch_of_transformers_is_respected(terminal, busy, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    logging.disable_progress_bar()
    list(progress(range(3), desc="adding"))
    assert sys.stderr.getvalue() == ""
    logging.enable_progress_bar()
    list(progress(range(3), desc="adding", shown=False))
    assert sys.stderr.getvalue() == ""


def test_a_command_without_a_terminal_keeps_lines_of_its_own(busy, capsys):
    only_lines()
    assert not logging.is_progress_bar_enabled()
    list(progress(range(3), desc="adding"))
    assert "adding: 3 of 3" in capsys.readouterr().err
