"""The demo, made minuscule: what it writes, what it says, and what it refuses. Nothing it measures means anything."""

import contextlib
import io
import json
import logging
import re
from dataclasses import fields, replace

import numpy as np
import PIL.Image
import pytest
import torch
from families import build, processor
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    ResNetForImageClassification,
    pipeline,
)

from hf_explain import METHODS, AutoModelForImageAttribution, Classifier, ExplainerError, cli
from hf_explain.data.scenes import CLASSES, draw_scene, draw_scenes, to_pixels
from hf_explain.data.small_classifiers import BLANK_REFERENCES, build_classifier
from hf_explain.demo import run as demo_module
from hf_explain.demo.comparison import LABELS, Scenes, summarize
from hf_explain.demo.run import Clock, Demo, accuracies, make_classifier, make_explainer
from hf_explain.demo.settings import check, command, neighborhood, settings_used, splits, training_config
from hf_explain.faithfulness import measure
from hf_explain.modeling.modeling_ranking import RankingExplainerForImageClassification
from hf_explain.reports.findings import headline, warning
from hf_explain.reports.tables import table
from hf_explain.training import TrainingConfig, train

SETTINGS = {
    "backbone": "resnet", "size": 64, "seed": 1, "train_pictures": 128, "tune_pictures": 3, "report_pictures": 6,
    "epochs": 1, "explainer_steps": 3, "batch_size": 4, "budgets": 5, "refine_steps": 2,
    "references": ("black", "noise"),
}  # fmt: skip
FLAGS = [
    word
    for name, value in SETTINGS.items()
    for word in (f"--{name}", *(value if name == "references" else [str(value)]))
]  # fmt: skip


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, metrics.json, what was printed) of a demo from the command line."""
    folder, said = tmp_path_factory.mktemp("demo") / "new" / "demo", io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setenv("ACCELERATE_USE_CPU", "true")
        assert cli.main(["demo", "--output_dir", str(folder), *FLAGS]) == 0
    return folder, json.loads((folder / "metrics.json").read_text()), said.getvalue()


def demo(folder, **changes):
    return Demo(str(folder), **{**SETTINGS, **changes})


def scene():
    """A picture and (64, 64, 3) what it is made of."""
    return PIL.Image.fromarray(draw_scene(seed=1, index=3).image)


# ---- what is written ----


def test_every_file_is_there(made):
    folder, _, _ = made
    names = {"classifier", "explainer", "metrics.json", "report.html", "overlays.png", "curves.png"}
    assert {path.name for path in folder.iterdir()} == names
    for name in ("overlays.png", "curves.png"):
        image = PIL.Image.open(folder / name).convert("RGB")
        assert min(image.size) > 200 and np.asarray(image).std() > 10


def test_the_classifier_loads(made):
    folder = made[0] / "classifier"
    model, shown = AutoModelForImageClassification.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
    assert list(model.config.id2label.values()) == CLASSES and type(model) is ResNetForImageClassification
    with torch.no_grad():
        assert model(**shown(images=scene(), return_tensors="pt")).logits.shape == (1, len(CLASSES))
    untrained = build_classifier("resnet", 64, seed=1).state_dict()
    assert not torch.equal(model.state_dict()["classifier.1.weight"], untrained["classifier.1.weight"])


@pytest.mark.parametrize("load", [AutoModel, AutoModelForImageAttribution])
def test_the_explainer_loads_with_its_classifier_inside(made, load, tmp_path):
    explainer = load.from_pretrained((made[0] / "explainer").rename(tmp_path / "moved"))
    (tmp_path / "moved").rename(made[0] / "explainer")  # it needs nothing beside it
    assert type(explainer) is RankingExplainerForImageClassification and explainer.config.trained_steps == 3
    beside = AutoModelForImageClassification.from_pretrained(made[0] / "classifier").state_dict()
    assert all(torch.equal(value, beside[name]) for name, value in explainer.classifier.model.state_dict().items())


def test_the_explainer_serves_a_pipeline(made, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    (found,) = pipeline("image-attribution", model=str(made[0] / "explainer"))(scene())
    assert found["attribution"].shape == (64, 64) and np.isfinite(found["attribution"]).all()
    assert found["attribution"].std() > 0 and found["label"] in CLASSES
    assert "has not been trained" not in caplog.text


def test_a_backbone_may_be_explained_by_a_recipe_of_its_own():
    own = training_config(Demo(backbone="convnext", one_pass=True))
    assert own.learning_rate == 3e-3 and own.objective_of("ranking").tau == (0.4, 0.04)
    assert training_config(Demo(backbone="convnext", learning_rate=1e-3)).learning_rate == 1e-3
    assert training_config(Demo()).learning_rate == 5e-3 and training_config(Demo()).tau is None
    own, asked = Demo(backbone="swin"), Demo(backbone="swin", neighborhood=1)
    assert [neighborhood(d) for d in (own, replace(own, size=224), asked, Demo())] == [15, 53, 1, 1]


@pytest.mark.parametrize("backbone, epochs", [("vit", 6), ("convnext", 14)])
def test_what_was_not_given_is_told_as_it_was_used(backbone, epochs):
    settings = settings_used(Demo("some/where", backbone=backbone))
    assert settings["epochs"] == epochs and settings["output_dir"] == "where"
    assert None not in settings.values() and settings.keys() == {f.name for f in fields(Demo)}
    assert settings_used(Demo(backbone=backbone, epochs=3))["epochs"] == 3


def test_the_metrics_say_how_they_were_made(made):
    _, metrics, _ = made
    assert metrics["settings"] == {
        **json.loads(json.dumps(SETTINGS)), "output_dir": "demo",
        **{f.name: f.default for f in fields(Demo) if f.name not in {*SETTINGS, "output_dir"}},
        "learning_rate": 0.005,  # what was used where none was given
        "neighborhood": 1,
    }  # fmt: skip
    assert {f.name for f in fields(Demo)} == set(metrics["settings"])
    assert metrics["data"] | {"classes": None} == {
        "train": {"seed": 0, "pictures": 128},
        "tune": {"seed": 1, "pictures": 3},
        "report": {"seed": 10_001, "pictures": 6},
        "classes": None,
    }
    assert metrics["versions"]["torch"] == torch.__version__ and "CPU thread" in metrics["device"]
    assert metrics["unseen"] == ["noise"] and set(metrics["protocol"]) == {"black", "noise"}
    assert all(protocol["budgets"] == 5 for protocol in metrics["protocol"].values())
    assert metrics["explainer"]["steps"] == 3 and not {"noise"} & set(metrics["explainer"]["references"])
    assert metrics["minutes"] == pytest.approx(sum(metrics["seconds"].values()) / 60)


def test_the_summary_is_that_of_its_pictures(made):
    """Recomputed from the per-picture values, which are rounded to 5 digits."""
    _, metrics, _ = made
    methods, comparisons = summarize([metrics["pictures"]])
    assert list(methods) == list(metrics["methods"]) and set(methods) == set(LABELS)

    def close(one, other):
        return all(one[key] == pytest.approx(other[key], abs=2e-5) for key in ("mean", "low", "high"))

    for name, method in methods.items():
        found = metrics["methods"][name]
        for reference in ("black", "noise"):
            for curve in ("deletion", "insertion"):
                assert close(found["references"][reference][curve], method["references"][reference][curve])
                per_picture = metrics["pictures"][name]["references"][reference][curve]
                assert found["references"][reference][curve]["mean"] == pytest.approx(sum(per_picture) / 6, abs=2e-5)
        for key in ("average_precision", "pointing_game", "class_discrimination"):
            assert (key in found) == (key in method) and (key not in found or close(found[key], method[key]))
    assert len(comparisons) == len(metrics["comparisons"]) > 0
    for one, other in zip(comparisons, metrics["comparisons"], strict=True):
        assert close(one.pop("difference"), other["difference"])
        assert one == {key: value for key, value in other.items() if key != "difference"}


def test_the_accuracies_are_those_of_the_saved_classifier(made):
    folder, metrics, _ = made
    scenes = Scenes(Classifier.from_pretrained(folder / "classifier"), *draw_scenes(6, 10_001))
    accuracy, masked = accuracies(scenes.classifier, scenes)
    assert accuracy == metrics["classifier"]["accuracy"] == masked["0.0"]
    assert accuracy == pytest.approx(float((scenes.targets == scenes.labels).float().mean()))
    assert masked == metrics["classifier"]["accuracy_when_masked"] and list(masked) == sorted(masked, key=float)


def test_accuracy_at_every_share_counts_what_is_blanked():
    """A classifier that names what more than half of is left, and whatever is black otherwise."""
    images, labels, segments = draw_scenes(6, 0, 32)
    images = np.full_like(images, 255)

    class Left(ResNetForImageClassification):
        def forward(self, pixel_values=None, **kwargs):
            output = super().forward(pixel_values, **kwargs)
            white = (pixel_values > 0.99).float().mean((1, 2, 3))
            output.logits = torch.stack([white, torch.full_like(white, 0.6)], 1)
            return output

    plain = build("resnet", size=32)
    plain.config.id2label = {0: "whole", 1: "blanked"}
    classifier = Classifier(Left(plain.config), processor(32)).freeze()
    scenes = Scenes(classifier, images, 0 * labels, segments)
    whole, masked = accuracies(classifier, scenes)
    # of a white picture black and mean leave 1 - share white; the blurred one is white all over
    third = 1 / len(BLANK_REFERENCES)
    assert whole == 1.0
    assert masked == {share: pytest.approx(1.0 if float(share) <= 0.25 else third) for share in masked}


# ---- the report, and what is said ----


def test_the_report_warns_of_a_poor_classifier(made):
    folder, metrics, said = made
    assert metrics["classifier"]["accuracy"] < 0.9
    page = (folder / "report.html").read_text()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
    assert "do not trust its explainer" in text and warning(metrics) in said


def test_the_report_needs_nothing_else(made):
    page = (made[0] / "report.html").read_text()
    sources = re.findall(r"""(?:src|href|srcset|action|data|poster)\s*=\s*["']?([^"'\s>]*)""", page)
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert not re.search(r"<(script|iframe|object|embed)\b|@import|url\((?!['\"]?data:)", page)


def test_the_terminal_tells_the_same_story(made):
    folder, metrics, said = made
    opened, page, script = said.strip().splitlines()[-3:]
    assert opened.endswith(f"Open {folder / 'report.html'}")
    assert page.endswith(f": hf-explain app --model {folder / 'explainer'}")
    assert "; found = " in script and str(folder / "explainer") in script
    assert all(sentence in said for sentence in headline(metrics)) and table(metrics, style="text") in said
    for name in ("resnet", f"{100 * metrics['classifier']['accuracy']:.1f} % of 6 new pictures"):
        assert name in said


def test_the_python_that_is_told_at_the_end_works(made, tmp_path, monkeypatch):
    scene().save(tmp_path / "picture.jpg")
    monkeypatch.chdir(tmp_path)
    values = {}
    exec(made[2].strip().splitlines()[-1].removeprefix("In Python: "), values)
    assert values["found"][0]["attribution"].shape == (64, 64)


def test_the_cases_are_the_best_and_the_worst_picture(made):
    _, metrics, _ = made
    found = metrics["pictures"]["learned"]["references"]["black"]
    quality = [i - d for i, d in zip(found["insertion"], found["deletion"], strict=True)]
    best, worst = metrics["cases"]
    assert (best["kind"], worst["kind"]) == ("success", "failure")
    assert quality[best["image"]] == max(quality) and quality[worst["image"]] == min(quality)
    assert all(
        case["label"] in CLASSES and f"{quality[case['image']]:.2f}" in case["text"] for case in metrics["cases"]
    )


# ---- seeds ----


def weights(folder, **changes):
    """Of the classifier and of the head of a demo's two trainings."""
    settings = demo(folder, train_pictures=16, explainer_steps=2, **changes)
    data = draw_scenes(16, 0)
    classifier, pixel_values = make_classifier(settings, data, torch.device("cpu"))
    explainer = make_explainer(settings, classifier, pixel_values)
    return [{k: v.clone() for k, v in m.state_dict().items()} for m in (classifier.model, explainer.head)]


def test_a_seed_decides_to_the_bit(tmp_path):
    one = weights(tmp_path, seed=0)
    torch.rand(7)  # somebody else's random numbers
    same, other = weights(tmp_path, seed=0), weights(tmp_path, seed=1)
    for mine, again, different in zip(one, same, other, strict=True):
        assert all(torch.equal(mine[k], again[k]) for k in mine)
        assert not any(torch.equal(mine[k], different[k]) for k in mine if k.endswith("weight") and mine[k].ndim > 1)


def test_seeds_report_other_pictures_and_train_on_the_same():
    one, other = (splits(Demo(seed=seed)) for seed in (0, 3))
    assert one[:2] == other[:2] and one[2] != other[2]
    assert all(seed >= 10_000 for _, seed in (one[2], other[2])) and one[0][1] != one[1][1]


def test_the_explainer_learns_from_pictures_without_labels(tmp_path):
    """What it is given are the pictures; the classifier stays as it is."""
    settings, (images, _, _) = demo(tmp_path, explainer_steps=1), draw_scenes(8, 0)
    classifier = Classifier(build("resnet"), processor(64)).freeze()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    explainer = make_explainer(settings, classifier, to_pixels(classifier, images))
    assert not explainer.training and explainer.config.trained_steps == 1
    assert all(torch.equal(before[name], value) for name, value in classifier.state_dict().items())


# ---- an explainer that was not trained ----


class CountsRed(ResNetForImageClassification):
    """The class's probability is .02 plus .96 of the share of red pixels that are left, of 64."""

    def forward(self, pixel_values=None, **kwargs):
        output = super().forward(pixel_values, **kwargs)
        red = (pixel_values[:, 0] - pixel_values[:, 1:].mean(1)) / 2
        share = 0.02 + 0.96 * (red.sum((1, 2)) / 64).clamp(0, 1)
        output.logits = torch.stack([share.log(), (1 - share).log()], 1)
        return output


def red_squares(count, seed):
    """Gray noise with a red square of 8 x 8 pixels each."""
    random = np.random.default_rng(seed)
    images = np.repeat(random.integers(90, 160, (count, 64, 64, 1), dtype=np.uint8), 3, axis=3)
    for image, (top, left) in zip(images, random.integers(0, 57, (count, 2)), strict=True):
        image[top : top + 8, left : left + 8] = (255, 0, 0)
    return images


def test_without_training_it_scores_as_a_random_map(tmp_path):
    """What remains falls linearly with the red that is gone, so the area under deletion is where in the order the red
    comes: half-way for maps that know nothing. A single head may lean to the red or away from it, many do not."""
    plain = build("resnet")
    plain.config.id2label = {0: "red", 1: "other"}
    classifier = Classifier(CountsRed(plain.config), processor(64)).freeze()
    settings = demo(tmp_path, explainer_steps=0, one_pass=True)  # a hybrid begins with the classifier's own slope
    x = to_pixels(classifier, red_squares(8, 10_000))

    def untrained(seed):
        explainer = make_explainer(replace(settings, seed=seed), classifier, to_pixels(classifier, red_squares(2, 0)))
        assert explainer.config.trained_steps == 0
        return explainer

    def deletion(maps):
        report = measure(classifier, x, maps, 0, reference="black", budgets=5, batch_size=64)
        return float(report.deletion.mean())

    @torch.no_grad()
    def scored(explainer):
        return deletion(explainer(x, targets=0).attributions)

    nothing_learned = [scored(untrained(seed)) for seed in range(12)]
    trained = RankingExplainerForImageClassification.from_classifier(classifier, preset="tiny")
    rows = [{"pixel_values": picture} for picture in to_pixels(classifier, red_squares(64, 0))]
    config = TrainingConfig(
        max_steps=40, per_device_train_batch_size=8, learning_rate=2e-2, references=("black",), grids=(8, 16),
        budgets=5, num_workers=0,
    )  # fmt: skip
    train(trained, rows, config)
    learned, random = scored(trained), deletion(METHODS["random"](classifier, x))
    assert random == pytest.approx(0.5, abs=0.03)
    assert np.mean(nothing_learned) == pytest.approx(random, abs=0.15), nothing_learned
    assert learned < 0.2 and learned < np.mean(nothing_learned) - 0.2


def test_no_steps_leave_an_explainer_that_says_so(tmp_path, caplog, monkeypatch):
    build("resnet", size=32).save_pretrained(tmp_path / "classifier")
    processor(32).save_pretrained(tmp_path / "classifier")
    arguments = [
        "--dataset",
        "scenes",
        "--dataset_size",
        "4",
        "--eval_size",
        "0",
        "--preset",
        "tiny",
        "--max_steps",
        "0",
    ]
    where = ["--classifier", str(tmp_path / "classifier"), "--output_dir", str(tmp_path / "explainer")]
    assert cli.main(["train", *arguments, *where, "--num_workers", "0"]) == 0
    explainer = AutoModelForImageAttribution.from_pretrained(tmp_path / "explainer")
    assert explainer.config.trained_steps == 0
    fresh = RankingExplainerForImageClassification.from_classifier(explainer.classifier, preset="tiny", seed=0)
    assert all(torch.equal(v, fresh.head.state_dict()[k]) for k, v in explainer.head.state_dict().items())
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    pipeline("image-attribution", model=str(tmp_path / "explainer"))
    assert "has not been trained" in caplog.text


# ---- refusals ----


@pytest.mark.parametrize(
    "flags, said",
    [
        ("--backbone vgg", "unknown backbone 'vgg'; choose from vit, "),
        ("--size 100", "size=100; give a multiple of 32 pixels"),
        ("--size 0", "size=0; give a multiple of 32 pixels"),
        ("--train_pictures 1", "train_pictures=1; give at least 2"),
        ("--tune_pictures 0", "tune_pictures=0; give at least 2"),
        ("--report_pictures -3", "report_pictures=-3; give at least 2"),
        ("--epochs 0", "epochs=0; give"),
        ("--hidden_size 12", "hidden_size=12; give a positive multiple of 8"),
        ("--neighborhood 4", "neighborhood=4; give an odd number of pixels, 1 for none"),
        ("--budgets 2", "budgets=2; a curve needs at least 3 points"),
        ("--references black pink", "unknown reference 'pink'; choose from"),
        ("--refine_steps -1", "steps"),
        ("--batch_size 0", "per_device_train_batch_size=0; give 1 or more"),
        ("--learning_rate 0", "learning_rate=0.0; give a positive number"),
        ("--explainer_steps -1", "max_steps=-1; give 0 or more"),
        ("--seed -1", "seed=-1; give 0 or more"),
    ],
)
def test_what_can_be_refused_is_refused_at_once(flags, said, tmp_path, capsys, monkeypatch):
    """In one sentence, before anything is trained or written."""
    monkeypatch.setattr(demo_module, "train_classifier", lambda *_, **__: pytest.fail("it began to train"))
    small = [*FLAGS, "--train_pictures", "2"]
    code = cli.main(["demo", "--output_dir", str(tmp_path / "demo"), *small, *flags.split()])
    error = capsys.readouterr().err.strip()
    assert code == 2 and error.startswith("hf-explain: ") and said in error and "\n" not in error
    assert not (tmp_path / "demo" / "classifier").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["demo", "--output_dir", str(tmp_path / "file"), *FLAGS]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("hf-explain: ") and "\n" not in error and "file" in error


def test_run_itself_raises(tmp_path):
    with pytest.raises(ExplainerError, match="report_pictures=1; give at least 2"):
        demo_module.run(demo(tmp_path, report_pictures=1))


# ---- flags ----


def test_every_setting_is_a_documented_flag(capsys):
    assert all(f.metadata["help"] for f in fields(Demo))
    with pytest.raises(SystemExit):
        cli.main(["demo", "--help"])
    said = capsys.readouterr().out
    assert all(f"--{f.name}" in said for f in fields(Demo)) and "vit|" in said


def test_flags_mean_the_settings(monkeypatch):
    seen = []
    monkeypatch.setattr("hf_explain.demo.command.run_demo", seen.append)
    assert cli.main(["demo"]) == 0 == cli.main(["demo", "--output_dir", "x", *FLAGS])
    assert seen == [Demo(), Demo("x", **SETTINGS)]


def test_the_command_makes_it_again():
    assert command(Demo("x")) == "hf-explain demo"
    said = command(Demo("x", one_pass=True, seed=3, references=("black", "0.5")))
    assert said == "hf-explain demo --seed 3 --one_pass --references black 0.5"
    assert check(Demo(references=("black", "0.5", "1"))) == ["black", 0.5, 1.0]


def test_the_clock_keeps_what_took_how_long(capsys):
    clock = Clock()
    with clock("one", "Doing it"):
        pass
    with clock("two", "Doing more"):
        pass
    assert list(clock.seconds) == ["one", "two"] and clock.total() == sum(clock.seconds.values())
    assert capsys.readouterr().out == "Doing it ...\nDoing more ...\n"
