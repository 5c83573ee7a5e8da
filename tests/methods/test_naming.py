"""Methods with options, as people write them."""

import numpy as np
import pytest
import torch

from hf_explain import METHODS, ExplainerError
from hf_explain.methods.naming import find_method, options_of, read_method, spelled, split_names


@pytest.mark.parametrize(
    "text, name, options",
    [
        ("Grad-CAM", "grad_cam", {}),
        ("occlusion()", "occlusion", {}),
        (" occlusion( window=8,stride = 4 ) ", "occlusion", {"window": 8, "stride": 4}),
        ("semantic-pullback(variant=ascent)", "semantic_pullback", {"variant": "ascent"}),
        ("semantic_pullback(variant='ascent')", "semantic_pullback", {"variant": "ascent"}),
        ("score_cam(channels=None)", "score_cam", {"channels": None}),
        ("smoothgrad(noise=1e-1)", "smoothgrad", {"noise": 0.1}),
        ("occlusion(reference=-0.5)", "occlusion", {"reference": -0.5}),
    ],
)
def test_a_name_and_options(text, name, options):
    assert read_method(text) == (name, options)
    assert spelled(spelled(text)) == spelled(text) and read_method(spelled(text)) == (name, options)
    method = find_method(text)
    assert method is METHODS[name] if not options else (method.func, method.keywords) == (METHODS[name], options)


def test_names_in_a_list():
    assert split_names("a, b(x=1, y=(2, 3)),,c(z='d') ,") == ["a", "b(x=1, y=(2, 3))", "c(z='d')"]
    assert split_names("") == []


def test_both_ways_to_give_options():
    assert find_method("rise(masks=9)", {"cells": 4}).keywords == {"masks": 9, "cells": 4}
    assert find_method("feature_ablation", {"regions": torch.zeros(2, 2)}).func is METHODS["feature_ablation"]
    assert find_method("rise", {"masks": np.int64(4), "share": 1}).keywords["masks"] == 4
    with pytest.raises(ExplainerError, match="masks of rise was given twice, in the name and beside it; give it once"):
        find_method("rise(masks=9)", {"masks": 9})


@pytest.mark.parametrize(
    "text, said",
    [
        ("occlusion(windw=3)", "unknown option of occlusion 'windw'; did you mean 'window'? choose from window,"),
        ("occlusion(window=abc)", "window='abc' of occlusion; give an integer or None."),
        ("occlusion(window=True)", "window=True of occlusion; give an integer or None."),
        ("occlusion(window=3.5)", "window=3.5 of occlusion; give an integer or None."),
        ("rise(share=much)", "share='much' of rise; give a number."),
        ("gradient(x=1)", "gradient has no options, but x=1 was given; leave it out."),
        ("rise(seed=3)", "seed is no option of rise; give it to the pipeline as seed=, or to a command as --seed."),
        ("magick(x=3)", "unknown method 'magick'; choose from random, "),
        *(
            (text, "is no method with options; give a name, and in brackets option=value with commas, such as")
            for text in (
                "occlusion(8)", "occlusion(window=8", "occlusion(window=8))", "occlusion(**{})", "rise(masks=2+2)",
                "rise(masks=print(1))", "rise(masks=1)(cells=2)", "rise(masks=1, masks=2)", "rise(masks=)", "rise(\n",
                "rise(masks=lambda: 1)", "rise(*[1])", "rise(masks=1),random", "rise(masks='\0')", "rise(" + "(" * 500,
            )
        ),
    ],
)  # fmt: skip
def test_refusals(text, said):
    with pytest.raises(ExplainerError) as refused:
        find_method(text)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_every_method_tells_its_options():
    for name, method in METHODS.items():
        for option in options_of(method):
            with pytest.raises(ExplainerError, match=f"; choose from .*{option}"):
                find_method(name, {"no such": 1})
    assert options_of(METHODS["occlusion"]) == ["window", "stride", "reference", "batch_size"]


def test_methods_of_others_need_no_annotations(monkeypatch):
    def own(classifier, pixel_values, targets=None, *, size=3, kind: "Unknown" = None):  # noqa: F821
        return size

    monkeypatch.setitem(METHODS, "own", own)
    assert find_method("own(size=big)").keywords == {"size": "big"}
