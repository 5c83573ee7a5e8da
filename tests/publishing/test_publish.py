"""`hf-explain publish`: what goes where, what the card says, that it loads again, and what is not published."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from families import save_classifier
from huggingface_hub import ModelCard
from loopback_hub import LoopbackHub

import hf_explain
from hf_explain import cli
from hf_explain.data.scenes import CLASSES
from hf_explain.evaluating.card import fingerprint_of
from hf_explain.publishing import card as published_card
from hf_explain.publishing.space import space_files

ROOT = Path(__file__).resolve().parents[2]

# The author's classifier is on the Hub; what follows is one process, since every start takes seconds.
PLAY = """
import json, subprocess, sys
from families import build, processor
from huggingface_hub import HfApi, ModelCard
from hf_explain import RankingExplainerForImageClassification as Ranking
from hf_explain.cli import main

build("resnet", size=32).push_to_hub("tester/classifier")
processor(32).push_to_hub("tester/classifier")
card = ModelCard("---\\nlicense: cc-by-4.0\\n---\\n")
card.push_to_hub("tester/classifier")
explainer = Ranking.from_classifier("tester/classifier", preset="tiny")
explainer.config.trained_steps = 7
explainer.save_pretrained("explainer")
common = ["publish", "--explainer", "explainer", "--hub_model_id", "tester/published", "--license", "mit"]
common += ["--remote_code", "--space", "--pictures", "cat.png", "--trained_on", "some/pictures"]
print("DRY")
assert main([*common, "--dry_run"]) == 0
assert not HfApi().repo_exists("tester/published")
print("REAL")
assert main([*common, "--hub_private"]) == 0

import hf_explain
from transformers import pipeline

pipe = pipeline("image-attribution", model="tester/published")
entry, = pipe("cat.png")
expected, = pipeline("image-attribution", model="explainer")("cat.png")
assert (entry["attribution"] == expected["attribution"]).all() and pipe.model.config.trained_steps == 7
code = '''
from transformers import pipeline
pipe = pipeline("image-attribution", model="tester/published", revision="remote-code", trust_remote_code=True)
print("MAP", pipe("cat.png")[0]["attribution"].shape)
'''
subprocess.run([sys.executable, "-c", code], check=True)

# An author edits the card on the Hub: the next push keeps what is not ours.
card = ModelCard.load("tester/published")
card.text += "\\n## Thanks\\n\\nTo my dog.\\n"
card.push_to_hub("tester/published")
assert main(common) == 0
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """(what was printed, files of main, of the remote-code branch and of the Space, the card before the edit)."""
    folder = tmp_path_factory.mktemp("published")
    values = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    PIL.Image.fromarray(values).save(folder / "cat.png")
    with LoopbackHub() as hub:
        done = subprocess.run(
            [sys.executable, "-c", PLAY],
            env={
                **os.environ, **hub.environment(folder / "home"), "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")]),
            },
            cwd=folder, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        branches = {name: hub.files("tester/published", name) for name in ("main", "remote-code")}
        branches["space"] = hub.files("tester/published", repo_type="space")
        private = (
            hub.repos["model", "tester/published"]["private"] and hub.repos["space", "tester/published"]["private"]
        )
    return {"printed": done.stdout, "folder": folder, "private": private, **branches}


def test_the_dry_run_lists_what_is_pushed(published):
    """File by file and byte by byte; `PLAY` has looked that there was no repository after it."""
    dry, real = published["printed"].split("REAL")
    assert "nothing was sent" in dry and real.count("/commit/") == 6 and published["private"]
    listed = re.split(r"^(?=\S)", dry.split("DRY")[1].strip(), flags=re.M)
    titles = {"main": "tester/published, branch main", "remote-code": "branch remote-code", "space": "space tester/"}
    for kind, title in titles.items():
        text = next(one for one in listed if title in one and (kind == "space") == one.startswith("space"))
        named = {
            name: int(size.replace(",", "")) for size, name in re.findall(r"^ +([\d,]+)  (\S+)$", text, flags=re.M)
        }
        there = {name: len(data) for name, data in published[kind].items() if name != ".gitattributes"}
        named.pop("README.md"), there.pop("README.md")  # the card was edited afterwards
        assert named and named.items() <= there.items(), kind


def test_what_is_in_the_repository(published):
    main, branch = set(published["main"]), set(published["remote-code"])
    assert {"README.md", "config.json", "model.safetensors", "preprocessor_config.json", "figures/maps.png"} <= main
    assert not any(name.startswith("classifier/") for name in main) and "pipeline_image_attribution.py" not in main
    assert "pipeline_image_attribution.py" in branch and "MAP (40, 60)" in published["printed"]
    assert json.loads(published["remote-code"]["config.json"])["custom_pipelines"]
    assert published["main"]["figures/maps.png"].startswith(b"\x89PNG")


def test_the_card(published):
    card = ModelCard(published["main"]["README.md"].decode())
    assert card.data.license == "mit" and card.data.base_model == "tester/classifier"
    assert card.data.datasets == ["some/pictures"] and card.data.model_name == "published"
    for said in (
        "- optimizer steps: 7", "pictures: some/pictures, as its author states", "arXiv:2604.05819",
        "comes under `mit`", "The classifier, `tester/classifier`, comes under `cc-by-4.0`, says its repository",
        "figures/maps.png", "## Limits", 'model="tester/published"', "Not measured yet", "To my dog.",
    ):  # fmt: skip
        assert said in card.text, said
    assert len(re.findall("^## Training$", card.text, flags=re.M)) == 1 and str(published["folder"]) not in card.content


def test_the_space(published):
    files = {name: data.decode() for name, data in published["space"].items() if name != ".gitattributes"}
    assert files == space_files("tester/published", "classifier")
    front = yaml.safe_load(files["README.md"].split("---")[1])
    assert front["models"] == ["tester/published"] and front["sdk"] == "gradio" and front["app_file"] == "app.py"
    assert 'make(["tester/published"])' in files["app.py"]
    compile(files["app.py"], "app.py", "exec")
    ours = ROOT / "spaces" / "image_attribution"
    if ours.exists():  # the general Space: the same app, the same versions
        assert files["requirements.txt"] == (ours / "requirements.txt").read_text()
        there = yaml.safe_load((ours / "README.md").read_text().split("---")[1])
        assert {key: front[key] for key in ("sdk_version", "python_version")} == {
            key: there[key] for key in ("sdk_version", "python_version")
        }
        imports = re.findall(r"^(?:from|import) .*$", files["app.py"], flags=re.M)
        assert "from hf_explain.app.start import make, serve" in imports
        assert "from hf_explain.app.start import make, serve" in (ours / "app.py").read_text()


# ---- without a Hub ----


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of `hf-explain train`, its classifier inside."""
    folder = tmp_path_factory.mktemp("trained")
    classifier = save_classifier(folder / "classifier-folder", size=32, labels=dict(enumerate(CLASSES)))
    quick = "--max_steps 2 --per_device_train_batch_size 2 --budgets 4 --grids 3 5 --eval_budgets 3 --eval_size 2"
    quick += " --eval_steps 2 --save_steps 2 --num_workers 0 --preset tiny --dataset_size 4 --dataset scenes"
    os.environ["ACCELERATE_USE_CPU"] = "true"
    arguments = [
        *quick.split(),
        "--classifier",
        classifier,
        "--include_classifier",
        "--output_dir",
        folder / "explainer",
    ]
    assert cli.main(["train", *map(str, arguments)]) == 0
    return folder / "explainer"


@pytest.fixture(scope="module")
def results(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    arguments = ["--explainer", trained, "--dataset", "scenes", "--dataset_size", 4, "--budgets", 4]
    arguments += ["--methods", "learned,random", "--output_dir", folder]
    assert cli.main(["evaluate", *map(str, arguments)]) == 0
    return folder


def publish(folder, *more):
    return cli.main(["publish", "--explainer", str(folder), "--hub_model_id", "you/explainer", *map(str, more)])


def laid_out(folder, scratch, results=None, **said):
    """The card that would be pushed, and the files beside it."""
    from hf_explain.publishing.folders import lay_out

    explainer = hf_explain.ExplainerForImageClassification.from_pretrained(str(folder))
    said = published_card.Statement(**said)
    uploads = lay_out(scratch, explainer, Path(folder), "you/explainer", said, include=True, results=results)
    return ModelCard.load(uploads[0].folder / "README.md"), uploads


def test_the_measured_numbers_are_in_the_card(trained, results, tmp_path):
    card, (upload,) = laid_out(trained, tmp_path, results)
    found = json.loads((results / "results.json").read_text())
    value = found["methods"]["learned"]["values"]["aha/mean/deletion"]
    mean, ends = f"{value['mean']:.3f}", f"({value['low']:.3f}–{value['high']:.3f})"
    assert f"| {mean} {ends} |" in card.text.replace("**", "")
    one = next(one for one in card.data.eval_results if one.metric_type == "deletion")
    assert one.metric_value == pytest.approx(value["mean"], abs=1e-4) and one.metric_args["budgets"] == 4
    assert "4 points, reference mean" in card.text and "Not measured yet" not in card.text
    assert card.data.model_name == "explainer" and str(trained.parent) not in card.content
    names = {name for name, _ in upload.files()}
    assert {"figures/curves-aha-mean.png", "figures/sheet.png", "classifier/model.safetensors"} <= names
    assert "figures/sheet.png" in card.text


def test_the_training_is_in_the_card(trained, tmp_path):
    card, _ = laid_out(trained, tmp_path)
    state = json.loads((trained / "checkpoint-2" / "training_state.json").read_text())
    assert f"held-out score {state['best_score']:.4f} at step 2" in card.text and "a little too good" in card.text
    assert f"learning_rate: {state['settings']['learning_rate']:g}" in card.text and "global batch: 2" in card.text
    assert "The license of the classifier is not known." in card.text


def test_an_own_card_is_kept(trained, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(trained, mine)
    sections = '# mine\n\n```python\nload("mine")\n```\n\n## Training\n\nold\n\n## Mine\n\nkept\n'
    (mine / "README.md").write_text("---\nlicense: mit\ntags: [stripes]\n---\n\n" + sections)
    (tmp_path / "scratch").mkdir()
    card, _ = laid_out(mine, tmp_path / "scratch")
    assert card.data.license == "mit" and "## Mine\n\nkept" in card.text and "old" not in card.text
    assert "# you/explainer\n" in card.text and 'load("you/explainer")' in card.text


def test_a_dry_run_sends_nothing(trained, monkeypatch, capsys):
    """Nor does it ask for the card the repository may have, which takes long with no network."""
    monkeypatch.setattr(published_card, "card_to_push", lambda *_: pytest.fail("the Hub was asked"))
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    assert publish(trained, "--dry_run", "--space", "--hub_space_id", "you/app") == 0
    said = capsys.readouterr().out
    assert (
        "you/explainer, branch main:" in said and "space you/app, branch main:" in said and "nothing was sent" in said
    )
    assert "checkpoint-2" not in said and "training_log.jsonl" not in said
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_what_is_refused(trained, results, tmp_path, capsys):
    def refused(folder, *more):
        assert publish(folder, "--dry_run", *more) == 2
        error = capsys.readouterr().err.strip()
        assert "Traceback" not in error and error.splitlines()[-1].startswith("hf-explain: ")
        return error

    explainer = hf_explain.ExplainerForImageClassification.from_pretrained(str(trained))
    with torch.no_grad():
        next(explainer.head.parameters()).add_(1)
    explainer.save_pretrained(tmp_path / "other")
    said = refused(tmp_path / "other", "--results", results)
    assert f"but {tmp_path / 'other'} holds {fingerprint_of(explainer.head)[:12]}; measure this one" in said
    explainer.config.trained_steps = 0
    explainer.save_pretrained(tmp_path / "untrained")
    assert "has not been trained" in refused(tmp_path / "untrained")
    assert publish(tmp_path / "untrained", "--dry_run", "--untrained", "a starting point") == 0
    capsys.readouterr()
    local = hf_explain.RankingExplainerForImageClassification.from_classifier(
        str(trained.parent / "classifier-folder"), preset="tiny"
    )
    local.config.trained_steps = 1
    local.save_pretrained(tmp_path / "local")
    assert "is the local folder" in refused(tmp_path / "local")
    assert publish(tmp_path / "local", "--dry_run", "--include_classifier") == 0
    capsys.readouterr()
    assert "there is no folder '/no/where'" in refused("/no/where")
    assert "holds no results" in refused(trained, "--results", tmp_path)
    assert "'a/b/c' is no name of a repository" in refused(trained, "--hub_model_id", "a/b/c")


def test_an_untrained_explainer_says_so(trained, tmp_path):
    explainer = hf_explain.ExplainerForImageClassification.from_pretrained(str(trained))
    explainer.config.trained_steps = 0
    explainer.save_pretrained(tmp_path / "untrained")
    (tmp_path / "scratch").mkdir()
    card, _ = laid_out(tmp_path / "untrained", tmp_path / "scratch", untrained="a starting point")
    assert "**none: its maps mean nothing.** a starting point" in card.text
