"""Remote code where hf_explain is not installed; argv: file of the results, shared folder, folder of checks.py."""

import importlib.util
import os
import sys
import tempfile


class Blind:
    """A finder of modules that does not see hf_explain, however it is installed here."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] == "hf_explain" else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


sys.meta_path[:] = [Blind(finder) for finder in sys.meta_path]
assert importlib.util.find_spec("hf_explain") is None
sys.path.append(sys.argv[3])

import numpy as np
import PIL.Image
import torch
from checks import error_of, run
from transformers import AutoConfig, AutoModel, pipeline

expected = torch.load(os.path.join(sys.argv[2], "expected.pt"))
picture = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (75, 133, 3), dtype=np.uint8))
trust = {"trust_remote_code": True}


def assert_same(explainer):
    assert type(explainer).__module__.startswith("transformers_modules.")
    with torch.no_grad():
        assert torch.allclose(explainer(expected["pixel_values"]).attributions, expected["maps"], rtol=0, atol=1e-6)


def task(**kwargs):
    return pipeline("image-attribution", model="tester/explainer", revision="remote-code", **kwargs)


def check_model():
    assert_same(AutoModel.from_pretrained("tester/explainer", **trust))
    assert_same(AutoModel.from_pretrained("tester/whole", **trust))
    assert AutoConfig.from_pretrained("tester/explainer", **trust).class_conditional
    request = {"attn_implementation": "eager", "dtype": torch.bfloat16}
    explainer = AutoModel.from_pretrained("tester/explainer", revision="remote-code", **request, **trust)
    assert explainer.classifier.model.config._attn_implementation == "eager"
    assert explainer.classifier.dtype == torch.bfloat16


def check_pipeline():
    pipe = task(**trust)
    assert_same(pipe.model)
    found = pipe([picture, picture], top_k=2)
    assert [len(one) for one in found] == [2, 2] and found[0][0]["attribution"].shape == (75, 133)
    assert pipe(picture, target="zebra")[0]["label"] == "zebra"
    inferred = pipeline(None, model="tester/explainer", revision="remote-code", **trust)
    assert type(inferred) is type(pipe)


def check_other_kinds():
    for name in ("hybrid", "ltx", "diffmask"):
        pipe = pipeline("image-attribution", model=f"tester/{name}", revision="remote-code", **trust)
        maps = torch.load(os.path.join(sys.argv[2], f"{name}.pt"))
        for explainer in (AutoModel.from_pretrained(f"tester/{name}", **trust), pipe.model):
            assert type(explainer).__module__.startswith("transformers_modules.")
            with torch.no_grad():
                assert torch.allclose(explainer(expected["pixel_values"]).attributions, maps, rtol=0, atol=1e-5)
        asked = {} if name == "diffmask" else {"top_k": 2}
        found = pipe([picture, picture], batch_size=2, **asked)
        assert [len(one) for one in found] == [asked.get("top_k", 1)] * 2
        assert found[0][0]["attribution"].shape == (75, 133)


def check_what_it_cannot_do_it_says():
    pipe = task(**trust)
    for option in ({"method": "gradient"}, {"refine_steps": 4}, {"measure": "aha"}):
        assert "pip install hf-explain" in error_of("ExplainerError", pipe, picture, **option)


def check_nothing_runs_without_trust():
    assert "trust_remote_code" in error_of("ValueError", task)
    assert "trust_remote_code" in error_of("ValueError", AutoModel.from_pretrained, "tester/explainer")


def check_refusals():
    message = error_of("ExplainerError", AutoModel.from_pretrained, "tester/absolute", **trust)
    assert "include_classifier=True" in message
    assert "fingerprint" in error_of("ExplainerError", AutoModel.from_pretrained, "tester/of-main", **trust)
    assert "format 99" in error_of("ExplainerError", AutoModel.from_pretrained, "tester/newer", **trust)
    assert "safetensors" in error_of("ExplainerError", AutoModel.from_pretrained, "tester/pickle", **trust)


def check_code_of_a_classifier_never_runs():
    AutoModel.from_pretrained("tester/of-with-code", **trust)
    message = error_of("ExplainerError", AutoModel.from_pretrained, "tester/of-needs-code", **trust)
    assert "classifier tester/needs-code" in message
    assert not os.path.exists(os.environ["EXECUTED"])


def check_saving_again_keeps_the_code():
    with tempfile.TemporaryDirectory() as folder:
        AutoModel.from_pretrained("tester/explainer", **trust).save_pretrained(folder)
        assert os.path.isfile(os.path.join(folder, "modeling_ranking.py"))
        assert_same(AutoModel.from_pretrained(folder, **trust))


assert "hf_explain" not in sys.modules
run(globals())
