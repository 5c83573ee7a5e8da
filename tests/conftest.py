"""No network, no progress bars, one cache for the whole run; tiny classifiers with random weights made from configs."""

import os
import tempfile

# Read by huggingface_hub when it is imported, so before anything else.
os.environ.update(
    HF_HOME=tempfile.mkdtemp(prefix="hf_explain_tests_"),
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_TELEMETRY="1",
)
os.environ.pop("HF_TOKEN", None)

import pytest
import torch
from families import build, processor
from transformers.utils import logging

import hf_explain

logging.disable_progress_bar()
torch.set_num_threads(1)  # the models are tiny: a second thread only waits for the first


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def swin():
    """A fresh tiny Swin classifier of 5 classes, 64 x 64."""
    return build("swin")


@pytest.fixture
def swin_processor():
    return processor(64)


@pytest.fixture
def explainer(swin, swin_processor):
    """A fresh untrained ranking explainer of the tiny Swin."""
    return hf_explain.RankingExplainerForImageClassification.from_classifier(swin, swin_processor, preset="tiny")


@pytest.fixture
def vit():
    return build("vit")
