"""Loads what author.py published, without a token in the environment; argv: file of the results, shared folder."""

import os
import pickle
import sys
import tempfile

import numpy as np
import PIL.Image
import torch
from checks import error_of, run
from families import build
from huggingface_hub import HfApi
from loopback_hub import STRANGER_TOKEN, TOKEN
from transformers import AutoConfig, AutoModel, pipeline

import hf_explain

Explainer, Ranking = hf_explain.ExplainerForImageClassification, hf_explain.RankingExplainerForImageClassification
SHARED, temporary = sys.argv[2], tempfile.TemporaryDirectory()
expected = torch.load(os.path.join(SHARED, "expected.pt"))
picture = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (75, 133, 3), dtype=np.uint8))


def maps(explainer):
    with torch.no_grad():
        return explainer(expected["pixel_values"]).attributions


def assert_same(explainer):
    assert type(explainer) is Ranking and not explainer.training
    assert torch.equal(maps(explainer), expected["maps"])


def task(repo_id, **kwargs):
    return pipeline("image-attribution", model=repo_id, **kwargs)


def folder(name):
    return os.path.join(temporary.name, name)


def refusal(repo_id, **kwargs):
    """The one sentence that refuses a repository, the same through every door."""
    messages = {
        error_of("ExplainerError", door, repo_id, **kwargs)
        for door in (Explainer.from_pretrained, Ranking.from_pretrained, AutoModel.from_pretrained, task)
    }
    assert len(messages) == 1, messages
    return messages.pop()


def check_other_kinds():
    kinds = {
        "ltx": hf_explain.LtxExplainerForImageClassification,
        "diffmask": hf_explain.DiffMaskExplainerForImageClassification,
    }
    for name, kind in kinds.items():
        read = hf_explain.ExplainerForImageClassification.from_pretrained(f"tester/{name}")
        assert type(read) is kind
        with torch.no_grad():
            maps = read(expected["pixel_values"]).attributions
        assert torch.allclose(maps, torch.load(os.path.join(sys.argv[2], f"{name}.pt")), rtol=0, atol=1e-6)


def check_every_door():
    for door in (Explainer, Ranking, AutoModel, hf_explain.AutoModelForImageAttribution):
        assert_same(door.from_pretrained("tester/explainer"))
    assert AutoConfig.from_pretrained("tester/explainer").classifier_name_or_path == "tester/classifier"
    assert hf_explain.ExplainerConfig.from_pretrained("tester/explainer").image_size == [64, 64]
    found = task("tester/explainer")(picture)[0]
    assert found["attribution"].shape == (75, 133) and found["heatmap"].size == (133, 75)
    assert_same(task("tester/explainer").model)


def check_revisions():
    pinned = HfApi().list_repo_refs("tester/explainer").branches
    commits = {branch.name: branch.target_commit for branch in pinned}
    for revision in ("seed-1", commits["seed-1"]):
        moved = Explainer.from_pretrained("tester/explainer", revision=revision)
        assert not torch.equal(maps(moved), expected["maps"])
        assert torch.equal(maps(task("tester/explainer", revision=revision).model), maps(moved))
        assert torch.equal(maps(AutoModel.from_pretrained("tester/explainer", revision=revision)), maps(moved))
    assert_same(Explainer.from_pretrained("tester/explainer", revision=commits["main"]))
    assert_same(Explainer.from_pretrained("tester/explainer", revision="main"))
    message = error_of("OSError", Explainer.from_pretrained, "tester/explainer", revision="nowhere")
    assert "nowhere is not a valid git identifier" in message


def check_classifier_inside_is_read_at_the_commit_of_the_head():
    assert_same(Explainer.from_pretrained("tester/whole"))
    assert_same(task("tester/whole").model)
    seed_1 = build("vit", seed=1)
    for other in (
        Explainer.from_pretrained("tester/whole", revision="other"),
        task("tester/whole", revision="other").model,
    ):
        assert torch.equal(other.classifier.model.classifier.weight, seed_1.classifier.weight)


def check_a_second_backbone():
    wanted = torch.load(os.path.join(SHARED, "backbone.pt"))
    for repo_id in ("tester/two", "tester/two-whole"):
        explainer = Explainer.from_pretrained(repo_id)
        assert torch.equal(maps(explainer), wanted)
        again = Explainer.from_pretrained(repo_id, config=explainer.config)  # the backbone knows no sdpa
        assert torch.equal(maps(again), wanted)


def check_attention_reaches_the_classifier():
    request = {"attn_implementation": "eager"}
    for explainer in (
        Explainer.from_pretrained("tester/explainer", **request),
        Ranking.from_pretrained("tester/explainer", **request),
        AutoModel.from_pretrained("tester/explainer", **request),
        hf_explain.AutoModelForImageAttribution.from_pretrained("tester/whole", **request),
        task("tester/explainer", model_kwargs=dict(request)).model,
    ):
        assert explainer.classifier.model.config._attn_implementation == "eager"
        assert torch.allclose(maps(explainer), expected["maps"], atol=1e-5)
    default = Explainer.from_pretrained("tester/explainer")
    assert default.classifier.model.config._attn_implementation == "sdpa"
    assert_same(Explainer.from_pretrained("tester/explainer", config=default.config))


def check_dtype_and_device():
    for dtype in (torch.bfloat16, torch.float16):
        for explainer in (
            Explainer.from_pretrained("tester/explainer", dtype=dtype),
            AutoModel.from_pretrained("tester/explainer", dtype=str(dtype).removeprefix("torch.")),
            task("tester/whole", dtype=dtype).model,
        ):
            assert {p.dtype for p in explainer.parameters()} == {dtype}
            assert explainer.classifier.dtype == dtype
    assert_same(Explainer.from_pretrained("tester/explainer", device_map="cpu"))
    assert_same(AutoModel.from_pretrained("tester/whole", device_map="cpu"))
    assert_same(task("tester/explainer", device_map="cpu").model)
    assert_same(Explainer.from_pretrained("tester/explainer", dtype="auto"))


def check_loading_info():
    for door in (Explainer, Ranking, AutoModel):
        explainer, info = door.from_pretrained("tester/explainer", output_loading_info=True)
        assert_same(explainer)
        assert not info["missing_keys"] and not info["unexpected_keys"]


def check_low_precision_checkpoints():
    for repo_id in ("tester/half", "tester/half-head"):
        half = Explainer.from_pretrained(repo_id)
        assert half.dtype == torch.bfloat16
        assert torch.allclose(maps(half), expected["maps"], atol=0.1 * float(expected["maps"].abs().max()))
    assert Explainer.from_pretrained("tester/half").classifier.dtype == torch.bfloat16


def check_own_classifier():
    mine = build("vit", seed=0)
    assert_same(Explainer.from_pretrained("tester/explainer", classifier=mine))
    assert_same(Explainer.from_pretrained("tester/whole", classifier=hf_explain.Classifier(mine)))
    Explainer.from_pretrained("tester/explainer", classifier=build("vit", seed=0).to(torch.bfloat16))
    for other in (build("vit", seed=1), build("vit", seed=1).to(torch.bfloat16)):
        message = error_of("ExplainerError", Explainer.from_pretrained, "tester/explainer", classifier=other)
        assert "fingerprint" in message and "classifier=" in message
    head = Explainer.from_pretrained("tester/explainer", load_classifier=False)
    assert head.classifier is None
    state = head.state_dict()
    explainer = Ranking.from_pretrained(None, config=head.config, state_dict=state, classifier=mine)
    assert_same(explainer)
    assert_same(Ranking.from_pretrained(None, config=head.config, state_dict=state))


def check_cache_dir_local_files_and_force():
    cache = folder("cache")
    message = error_of("OSError", Explainer.from_pretrained, "tester/whole", cache_dir=cache, local_files_only=True)
    assert "couldn't find them in the cached files" in message
    for repo_id in ("tester/explainer", "tester/whole"):
        where = {"cache_dir": os.path.join(cache, repo_id)}
        assert_same(Explainer.from_pretrained(repo_id, **where))
        assert_same(Explainer.from_pretrained(repo_id, local_files_only=True, **where))
        assert_same(AutoModel.from_pretrained(repo_id, local_files_only=True, **where))
        assert_same(task(repo_id, model_kwargs=dict(where)).model)
        stored = [
            os.path.join(path, name)
            for path, _, names in os.walk(where["cache_dir"])
            for name in names
            if name == "model.safetensors" and "classifier" in path
        ]
        assert len(stored) == 1, stored
        blob = os.path.realpath(stored[0])
        with open(blob, "r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(b"\x00\x00\x00\x40")
        assert "fingerprint" in error_of("ExplainerError", Explainer.from_pretrained, repo_id, **where)
        assert_same(Explainer.from_pretrained(repo_id, force_download=True, **where))
        assert_same(Explainer.from_pretrained(repo_id, **where))


def check_private_classifier():  # before it is in the cache, from which a pinned commit is read without asking
    for token in ({}, {"token": STRANGER_TOKEN}):
        message = refusal("tester/of-private", **token)
        assert "classifier tester/private-classifier" in message and "token=" in message
    for door in (Explainer.from_pretrained, AutoModel.from_pretrained, task):
        door("tester/of-private", token=TOKEN)


def check_private_explainer():
    for door in (Explainer.from_pretrained, Ranking.from_pretrained, AutoModel.from_pretrained, task):
        for token in ({}, {"token": STRANGER_TOKEN}):
            message = error_of("OSError", door, "tester/private", **token)
            assert "tester/private is not a local folder" in message and "token" in message
    for door in (Explainer.from_pretrained, AutoModel.from_pretrained, task):
        door("tester/private", token=TOKEN)


def check_gated_classifier():
    for token in ({}, {"token": STRANGER_TOKEN}):
        message = refusal("tester/of-gated", **token)
        assert "classifier tester/gated-classifier" in message and "gated" in message
    Explainer.from_pretrained("tester/of-gated", token=TOKEN)


def check_references_that_reach_outside():
    message = refusal("tester/absolute")
    assert "a path on its author's machine" in message and "include_classifier=True" in message
    assert "'../classifier'" in refusal("tester/parent") and "classifier=" in refusal("tester/parent")
    message = refusal("tester/absolute-backbone")
    assert "'/home/somebody/backbone'" in message and "backbone=" in message


def check_code_of_a_classifier_never_runs():
    for trust in ({}, {"trust_remote_code": True}):
        for door in (Explainer.from_pretrained, AutoModel.from_pretrained, task):
            door("tester/of-with-code", **trust)
        message = refusal("tester/of-needs-code", **trust)
        assert "classifier tester/needs-code" in message
    assert not os.path.exists(os.environ["EXECUTED"])


def check_classifier_that_moved():
    for repo_id in ("tester/of-main", "tester/of-none"):
        for options in ({}, {"dtype": torch.bfloat16}):
            message = refusal(repo_id, **options)
            assert "classifier tester/moving" in message and "fingerprint" in message and "weights differ" in message
    for repo_id in ("tester/of-commit", "tester/pinned-elsewhere"):
        message = refusal(repo_id)
        assert "could not be loaded" in message and "classifier=" in message
        commit = AutoConfig.from_pretrained(repo_id).classifier_revision
        assert commit in message and f"{commit} is not a valid git identifier" in message
        Explainer.from_pretrained(repo_id, classifier=build("vit", seed=0))


def check_pickles_are_never_read():
    pickle.loads, torch.load = None, None
    message = refusal("tester/pickle")
    assert "pytorch_model.bin" in message and "model.safetensors" in message
    assert "use_safetensors" in error_of(
        "ExplainerError", Explainer.from_pretrained, "tester/explainer", use_safetensors=False
    )
    assert "model.safetensors" in refusal("tester/weightless")


def check_other_wrong_ones():
    assert "weights of tester/damaged are damaged" in refusal("tester/damaged")
    assert "lacks" in refusal("tester/other-head") and "another config" in refusal("tester/other-head")
    head = Explainer.from_pretrained("tester/whole", load_classifier=False)
    message = error_of("ExplainerError", head.save_pretrained, folder("headless"))
    assert "load_classifier=True" in message and not os.path.exists(folder("headless"))
    assert "format 99" in refusal("tester/newer") and "pip install --upgrade hf-explain" in refusal("tester/newer")
    assert "classifier=" in refusal("tester/nameless")
    message = error_of("ExplainerError", Explainer.from_pretrained, "tester/classifier")
    assert "'vit'" in message and "from_classifier" in message
    message = error_of("OSError", Explainer.from_pretrained, "tester/missing")
    assert "tester/missing is not a local folder" in message


def check_a_push_needs_a_token():
    explainer = Explainer.from_pretrained("tester/explainer")
    assert "401" in error_of("HfHubHTTPError", explainer.push_to_hub, "tester/new")
    error_of("HfHubHTTPError", explainer.push_to_hub, "tester/explainer", token=STRANGER_TOKEN)


run(globals())
