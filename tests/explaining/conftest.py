"""The pipeline with an explainer and with methods."""

import pytest
import torch
from families import build, processor
from pipeline_cases import PICTURES, TASK, make_explainer
from transformers import pipeline

from hf_explain import METHODS


@pytest.fixture(scope="module")
def explain():
    return pipeline(TASK, model=make_explainer())


@pytest.fixture(scope="module")
def by_gradient():
    return pipeline(TASK, model=build("vit"), image_processor=processor(64), method="gradient")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved explainer with its classifier."""
    path = tmp_path_factory.mktemp("saved") / "explainer"
    make_explainer().save_pretrained(path, include_classifier=True)
    return str(path)


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory):
    """A saved classifier with its processor."""
    path = tmp_path_factory.mktemp("saved") / "classifier"
    build("vit").save_pretrained(path)
    processor(64).save_pretrained(path)
    return str(path)


@pytest.fixture(params=["explainer", "gradient"])
def refinable(request, explain, by_gradient):
    """With the function that gives its maps (T, H, W) before they are refined."""
    if request.param == "explainer":
        return explain, lambda pixels, targets: explain.model(pixels, targets=[targets]).attributions[0].detach()
    columns = lambda pixels, targets: [METHODS["gradient"](by_gradient.classifier, pixels, t) for t in targets]  # noqa: E731
    return by_gradient, lambda pixels, targets: torch.cat(columns(pixels, targets))


@pytest.fixture
def seen(refinable):
    """How many pictures each forward of the classifier was shown."""
    counts = []
    handle = refinable[0].classifier.model.register_forward_pre_hook(
        lambda model, args, kwargs: counts.append(len([*args, *kwargs.values()][0])), with_kwargs=True
    )
    yield counts
    handle.remove()


@pytest.fixture(scope="module")
def expected(explain):
    return [explain(p) for p in PICTURES]
