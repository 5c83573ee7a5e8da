"""The snippets of README and how-tos run as they are, against a loopback Hub with tiny stand-ins under those ids."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from loopback_hub import LoopbackHub

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
PAGES = sorted(p for p in [ROOT / "README.md", *ROOT.glob("docs/*.md")] if p.name != "timm.md")  # needs timm

RUN = """
import contextlib, io, json, os, shutil, sys, traceback
import numpy, PIL.Image, torch, transformers
from families import build, processor

for name in ("cat.jpg", "dog.jpg"):
    values = numpy.random.default_rng(len(name)).integers(0, 255, (60, 90, 3), dtype=numpy.uint8)
    PIL.Image.fromarray(values).save(name)

classifier = build("vit", image_size=224, patch_size=32)
labels = {i: f"class {i}" for i in range(1000)} | {281: "tabby, tabby cat", 282: "tiger cat", 340: "zebra"}
classifier.config.id2label, classifier.config.label2id = labels, {v: k for k, v in labels.items()}
classifier.classifier = torch.nn.Linear(classifier.config.hidden_size, 1000)
classifier.push_to_hub("google/vit-base-patch16-224")
processor(224).push_to_hub("google/vit-base-patch16-224")
backbone = transformers.Dinov2Model(transformers.Dinov2Config(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=224, patch_size=56, mlp_ratio=1))
backbone.push_to_hub("facebook/dinov2-base")
processor(224, image_mean=[0.4] * 3, image_std=[0.2] * 3).push_to_hub("facebook/dinov2-base")

from hf_explain.cli import main  # the data set of maps that a command of docs/explain.md makes

os.mkdir("my-pictures")
for name in ("cat.jpg", "dog.jpg"):
    shutil.copy(name, "my-pictures")
explain = "explain --classifier google/vit-base-patch16-224 --method gradient --dataset my-pictures --output_dir maps"
assert main(explain.split()) == 0

results = {}
for page, number, code in json.load(open("snippets.json")):
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, f"{page}, snippet {number}", "exec"), {"__name__": "__main__"})
        results[f"{page} {number}"] = {"printed": printed.getvalue()}
    except Exception:
        results[f"{page} {number}"] = {"error": traceback.format_exc()}
json.dump(results, open("results.json", "w"))
"""


def snippets():
    found = []
    for page in PAGES:
        blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.M | re.S)
        found += [(page.name, number, code) for number, code in enumerate(blocks)]
    return sorted(found, key=lambda s: PAGES.index(next(p for p in PAGES if p.name == s[0])))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    (folder / "snippets.json").write_text(json.dumps(snippets()))
    (folder / "run.py").write_text(RUN)
    with LoopbackHub() as hub:
        environment = {
            **os.environ,
            **hub.environment(folder / "home"),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(TESTS)]),
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            [sys.executable, "run.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        files = {repo: sorted(hub.files(repo)) for repo in ("you/vit-base-explainer",)}
    return json.loads((folder / "results.json").read_text()) | {"files": files}


@pytest.mark.parametrize("page, number", [s[:2] for s in snippets()])
def test_snippet(page, number, results):
    result = results[f"{page} {number}"]
    assert "error" not in result, result["error"]


def test_snippets_do_what_they_say(results):
    first = results["README.md 0"]["printed"]
    assert "(60, 90)" in first
    assert "['tabby, tabby cat', 'tiger cat'] [3, 3]" in results["README.md 1"]["printed"]
    assert "(1, 2, 224, 224)" in results["README.md 2"]["printed"].replace("torch.Size([", "(").replace("])", ")")
    assert {"README.md", "config.json", "model.safetensors"} <= set(results["files"]["you/vit-base-explainer"])


def test_every_page_is_tested_and_linked():
    assert {page.name for page in PAGES} | {"timm.md"} == {"README.md", *(p.name for p in ROOT.glob("docs/*.md"))}
    text = (ROOT / "README.md").read_text() + "".join(p.read_text() for p in ROOT.glob("docs/*.md"))
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / target).exists() or (ROOT / "docs" / target).exists(), target
