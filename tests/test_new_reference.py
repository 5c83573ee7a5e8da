"""One entry in `modeling/references.py` is a reference of everything that removes pixels."""

import json

import pytest
import torch
from families import build, pictures, processor, save_classifier

from hf_explain import Classifier, RankingExplainerForImageClassification, cli
from hf_explain.data.scenes import CLASSES
from hf_explain.faithfulness import measure
from hf_explain.modeling.references import REFERENCES, Reference, need, reference_image
from hf_explain.training import TrainingConfig, refine, train
from hf_explain.training.draws import Draws, draw_blank

NAME = "gray noise"


def gray_noise(pixel_values, space, generator):
    gray = torch.rand(pixel_values[:, :1].shape, generator=need(generator), device=generator.device)
    return space.from_rgb(gray.to(pixel_values).expand_as(pixel_values))


@pytest.fixture(autouse=True)
def entry(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setitem(REFERENCES, NAME, Reference(gray_noise, color=True, per_pixel=True))


@pytest.fixture
def classifier():
    return Classifier(build("vit"), processor(64)).freeze()


def test_training(classifier, tmp_path):
    explainer = RankingExplainerForImageClassification.from_classifier(classifier, preset="tiny")
    config = TrainingConfig(
        max_steps=1, num_workers=0, per_device_train_batch_size=2, eval_steps=1, eval_budgets=3,
        references=(NAME,), eval_references=(NAME,),
    )  # fmt: skip
    rows = [{"pixel_values": picture} for picture in pictures(4)]
    train(explainer, rows, config, rows[:2], tmp_path, progress_bar=False)
    assert f"{NAME}/deletion" in (tmp_path / "training_log.jsonl").read_text()
    blank = draw_blank(classifier, pictures(2), NAME, Draws(0))
    rgb = classifier.pixel_space.to_rgb(blank)
    assert torch.allclose(rgb[:, 0], rgb[:, 1], atol=1e-5) and not torch.equal(blank[0], blank[1])


def test_measure(classifier):
    x, maps = pictures(2), torch.rand(2, 64, 64)
    report = measure(classifier, x, maps, reference=NAME, budgets=3)
    assert report.protocol["reference"] == NAME
    blank = reference_image(x[:1], classifier.pixel_space, NAME, torch.Generator().manual_seed(0))
    emptied = classifier(blank).softmax(-1)[0, report.targets]
    assert torch.allclose(report.curves["deletion"][:, -1], emptied, atol=1e-5)


def test_refinement(classifier):
    maps = torch.rand(2, 64, 64)
    settings = {"steps": 2, "budgets": 2, "references": (NAME,), "judges": (NAME,)}
    assert refine(classifier, pictures(2), maps, **settings).shape == maps.shape


def test_command_line(tmp_path):
    save_classifier(tmp_path / "classifier", labels=dict(enumerate(CLASSES)))
    arguments = [
        "evaluate", "--classifier", tmp_path / "classifier", "--dataset", "scenes", "--dataset_size", 4, "--budgets", 3,
        "--methods", "random", "--reference", NAME, "--output_dir", tmp_path / "out",
    ]  # fmt: skip
    assert cli.main([*map(str, arguments)]) == 0
    values = json.loads((tmp_path / "out" / "results.json").read_text())["methods"]["random"]["values"]
    assert {f"aha/{NAME}/deletion", f"aha/{NAME}/insertion"} <= set(values)
