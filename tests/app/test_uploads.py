"""What the app lets in."""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import PIL.Image
import pytest
from app_cases import CASES, ROOT, png_header, write_picture
from loopback_hub import LoopbackHub

from hf_explain import ExplainerError
from hf_explain.app.models import LEARNED, Models
from hf_explain.app.uploads import Limits, read_upload


@pytest.mark.parametrize(("name", "write", "said"), CASES, ids=[case[0] for case in CASES])
def test_bad_uploads_are_refused_in_one_sentence(tmp_path, name, write, said):
    path = tmp_path / name
    write(path)
    with pytest.raises(ExplainerError, match=said) as error:
        read_upload(path, name, Limits(upload_bytes=2_000_000))
    text = str(error.value)
    assert str(tmp_path) not in text and "\n" not in text and text.count(". ") == 0 and len(text) < 200


def test_a_picture_is_known_by_its_content_and_bounded(tmp_path):
    """A PNG called .jpg is what the web is full of."""
    path = write_picture(tmp_path / "wide.png", 1, size=(3000, 600))
    path.rename(tmp_path / "wide.jpg")
    found = read_upload(tmp_path / "wide.jpg")
    assert found.image.size == (1024, 205) and found.image.mode == "RGB"
    again = read_upload(tmp_path / "wide.jpg", "another.png")
    assert found == again and hash(found) == hash(again)
    assert found != read_upload(write_picture(tmp_path / "other.png", 2))


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(30_000, 30_000))
    monkeypatch.setattr(PIL.Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ExplainerError, match="pixels"):
        read_upload(path)


def test_models_a_visitor_may_not_name(folder, tmp_path, monkeypatch):
    models = Models({"tiny": folder})
    monkeypatch.chdir(tmp_path)
    Path("owner/name").mkdir(parents=True)
    for name in (folder, "../tiny", "tiny/../../etc", "owner/name", "https://elsewhere.org/x", "", "a b/c"):
        with pytest.raises(
            ExplainerError, match=r"^besides .* list, this page loads those of the Hub only; give an id"
        ):
            models.load(name)
    with pytest.raises(ExplainerError, match=r"^tester/nothing could not be loaded: the Hub cannot be reached\.$"):
        models.load("tester/nothing")
    with pytest.raises(ExplainerError, match="this app explains tiny only"):
        Models({"tiny": folder}, open=False).load("tester/nothing")
    assert not models.loading


def test_a_model_is_loaded_once_and_forgotten_in_turn(folder, monkeypatch):
    models = Models(dict.fromkeys("abc", folder), kept=2)
    with ThreadPoolExecutor(4) as pool:
        assert len({id(one) for one in pool.map(models.load, "aaaa")}) == 1
    first = models.load("a")
    models.load("b")
    assert models.load("a") is first
    models.load("c")
    assert list(models.loaded) == ["a", "c"]


HUB = """
import json, os, sys
import torch
from families import build, processor
from huggingface_hub import HfApi
from loopback_hub import LoopbackHub
from hf_explain import ExplainerError, RankingExplainerForImageClassification
from hf_explain.app.models import Models
from hf_explain.app.uploads import Limits

api, owner = HfApi(), os.environ["HF_TOKEN"]
for name in ("plain", "hidden", "pickled", "coded", "bare"):
    build("resnet").push_to_hub(f"tester/{name}", private=name == "hidden")
    if name != "bare":
        processor(64).push_to_hub(f"tester/{name}")
build("vit", hidden_size=256, intermediate_size=1024).push_to_hub("tester/wide")
processor(64).push_to_hub("tester/wide")
explainer = RankingExplainerForImageClassification.from_classifier("tester/wide", preset="tiny")
explainer.push_to_hub("tester/explainer")
config = json.load(open(api.hf_hub_download("tester/coded", "config.json")))
config |= {"model_type": "strange", "auto_map": {"AutoConfig": "code.C", "AutoModelForImageClassification": "code.M"}}
api.upload_file(path_or_fileobj=json.dumps(config).encode(), path_in_repo="config.json", repo_id="tester/coded")
api.upload_file(path_or_fileobj=b"raise SystemExit('ran')", path_in_repo="code.py", repo_id="tester/coded")

said = {}
def ask(key, name, **settings):
    try:
        said[key] = Models({}, **settings).load(name).methods[0]
    except ExplainerError as error:
        said[key] = str(error)

ask("plain", "tester/plain")
ask("explainer", "tester/explainer")
ask("hidden", "tester/hidden")
ask("missing", "tester/missing")
ask("coded", "tester/coded")
ask("bare", "tester/bare")
ask("large", "tester/plain", limits=Limits(model_bytes=1000))
head = os.path.getsize(api.hf_hub_download("tester/explainer", "model.safetensors"))
ask("large classifier", "tester/explainer", limits=Limits(model_bytes=head))
print(json.dumps(said))
"""


def test_models_of_the_hub(tmp_path):
    """Public ones are read; hidden, missing, large and coding ones are refused in a sentence."""
    with LoopbackHub() as hub:
        environment = {**os.environ, **hub.environment(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
        done = subprocess.run(
            [sys.executable, "-c", HUB], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=240
        )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["plain"] == "random" and said["explainer"] == LEARNED
    assert said["hidden"] == "tester/hidden could not be loaded: there is no public model of that id."
    assert said["missing"] == "tester/missing could not be loaded: there is no public model of that id."
    assert said["coded"] == "tester/coded could not be loaded: it needs code of its own, which this app does not run."
    assert said["bare"] == "tester/bare has no image processor beside it; choose another model."
    for key, name in (("large", "plain"), ("large classifier", "wide")):
        assert re.fullmatch(rf"the weights of tester/{name} have .* GB, but this app takes up to .*", said[key]), said[
            key
        ]
