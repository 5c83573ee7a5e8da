"""On the CPU, and a run that nothing disturbed."""

import os

import pytest
from training_cases import run


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.fixture(scope="module")
def whole():
    """The head and result of a run that nothing disturbed."""
    os.environ["ACCELERATE_USE_CPU"] = "true"
    return run()
