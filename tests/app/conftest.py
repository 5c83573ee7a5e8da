"""The app's models and what is asked of them."""

import pytest
from app_cases import make_explainer, write_picture

from hf_explain.app.answers import Answers
from hf_explain.app.models import Models
from hf_explain.app.uploads import read_upload


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_explainer(tmp_path_factory.mktemp("app") / "tiny")


@pytest.fixture(scope="module")
def answers(folder):
    return Answers(Models({"tiny": folder}))


@pytest.fixture(scope="module")
def model(answers):
    return answers.models.load("tiny")


@pytest.fixture
def picture(tmp_path):
    return read_upload(write_picture(tmp_path / "cat.png", 0))
