"""HF_HUB_OFFLINE=1 and the cache that reader.py left; argv: file of the results, shared folder."""

import os
import sys

import numpy as np
import PIL.Image
import torch
from checks import error_of, run
from transformers import AutoConfig, AutoModel, pipeline

import hf_explain

Explainer = hf_explain.ExplainerForImageClassification
expected = torch.load(os.path.join(sys.argv[2], "expected.pt"))
picture = PIL.Image.fromarray(np.zeros((75, 133, 3), dtype=np.uint8))


def assert_same(explainer):
    with torch.no_grad():
        assert torch.equal(explainer(expected["pixel_values"]).attributions, expected["maps"])


def check_every_door():
    for repo_id in ("tester/explainer", "tester/whole"):
        for door in (Explainer, AutoModel, hf_explain.AutoModelForImageAttribution):
            assert_same(door.from_pretrained(repo_id))
        pipe = pipeline("image-attribution", model=repo_id)
        assert_same(pipe.model)
        assert pipe(picture)[0]["attribution"].shape == (75, 133)
    assert AutoConfig.from_pretrained("tester/explainer").classifier_name_or_path == "tester/classifier"


def check_revisions():
    for revision in ("main", "seed-1"):
        explainer = Explainer.from_pretrained("tester/explainer", revision=revision)
        assert pipeline("image-attribution", model="tester/explainer", revision=revision).model.dtype == explainer.dtype


def check_new_explainers_of_a_cached_classifier():
    ranking = hf_explain.RankingExplainerForImageClassification
    explainer = ranking.from_classifier("tester/classifier", preset="tiny")
    assert len(explainer.config.classifier_revision) == 40
    assert_same(explainer)


def check_what_is_not_in_the_cache():
    for door in (Explainer.from_pretrained, AutoModel.from_pretrained):
        assert "couldn't connect" in error_of("OSError", door, "tester/missing")


run(globals())
