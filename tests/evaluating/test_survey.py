"""`hf-explain evaluate`: what it measures, that nothing is computed twice or lost, and what it refuses."""

import csv
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pyarrow.parquet
import pytest
import torch
from families import save_classifier
from huggingface_hub import ModelCard

import hf_explain
from hf_explain import METHODS, Classifier, ExplainerError, cli
from hf_explain.data.judged import open_judged
from hf_explain.data.scenes import CLASSES, draw_scenes
from hf_explain.demo.comparison import order_at_random
from hf_explain.evaluating import grids as survey_grids
from hf_explain.evaluating import survey
from hf_explain.evaluating.card import write_card
from hf_explain.evaluating.methods import read_names
from hf_explain.faithfulness import measure
from hf_explain.jobs.flags import add_flags
from hf_explain.localization import average_precision
from hf_explain.localization.grids import Confident

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--dataset_size", "10", "--block", "4", "--budgets", "4", "--methods", "gradient,input_x_gradient,random"]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """Of the scenes' classes."""
    return save_classifier(tmp_path_factory.mktemp("classifier"), labels=dict(enumerate(CLASSES)))


@pytest.fixture
def explainer(classifier, tmp_path):
    made = hf_explain.RankingExplainerForImageClassification.from_classifier(classifier, preset="tiny")
    made.save_pretrained(tmp_path / "explainer", include_classifier=True)
    return tmp_path / "explainer"


def evaluate(classifier, folder, *more, dataset="scenes"):
    arguments = ["--classifier", classifier, "--dataset", str(dataset), *QUICK, "--output_dir", folder, *more]
    return cli.main(["evaluate", *map(str, arguments)])


def refused(capsys, *arguments):
    assert cli.main(["evaluate", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def numbers(folder):
    """What does not tell of time."""
    results = json.loads((Path(folder) / "results.json").read_text())
    return {name: (m["values"], m["curves"], m["constant_maps"]) for name, m in results["methods"].items()}


def test_the_numbers_are_those_of_measure(classifier, tmp_path, capsys):
    """Every picture's value, computed again with nothing but the public functions."""
    assert evaluate(classifier, tmp_path, "--preset", "aha", "ltx", "--reference", "black") == 0
    images, labels, segments = draw_scenes(10, 10_000, 64)
    model = Classifier.from_pretrained(classifier)
    x = torch.as_tensor(model.image_processor(images=list(images), return_tensors="pt")["pixel_values"])
    targets, labels = model(x).argmax(-1), torch.as_tensor(labels)
    maps = METHODS["gradient"](model, x, targets)
    evidence = torch.as_tensor(segments) == labels[:, None, None]
    found = survey.read_columns(tmp_path, ["gradient"])["gradient"]
    assert found["index"].tolist() == list(range(10)) and found["label"].tolist() == labels.tolist()
    for preset, classes in (("aha", targets), ("ltx", labels)):
        report = measure(model, x, maps, classes, preset, reference="black", budgets=4)
        for name, area in report.areas.items():
            np.testing.assert_allclose(found[f"{preset}/black/{name}"], area.numpy(), atol=1e-4)
    np.testing.assert_allclose(found["average_precision"], average_precision(maps, evidence).numpy(), atol=1e-6)
    printed = capsys.readouterr().out
    mean = found["aha/black/deletion"].mean()
    assert f"{mean:.3f}" in printed and "10 pictures of scenes" in printed and "given class, area in percent" in printed
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["methods"]["gradient"]["values"]["aha/black/deletion"]["mean"] == pytest.approx(float(mean))
    assert results["protocols"]["ltx/black"]["area"] == "percent" and results["accuracy"] == pytest.approx(
        float((targets == labels).float().mean())
    )
    curve = results["methods"]["gradient"]["curves"]["aha/black/deletion"]["mean"]
    report = measure(model, x, maps, targets, reference="black", budgets=4)
    np.testing.assert_allclose(curve, report.curves["deletion"].mean(0).numpy(), atol=1e-5)
    difference = next(d for d in results["differences"] if d["against"] == "random")
    both = survey.read_columns(tmp_path, ["gradient", "random"])
    expected = (both["gradient"][difference["value"]] - both["random"][difference["value"]]).mean()
    assert difference["mean"] == pytest.approx(float(expected), abs=1e-6)


def test_the_files_of_the_results(classifier, tmp_path):
    assert evaluate(classifier, tmp_path) == 0
    with open(tmp_path / "results.csv") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 30 and {line["method"] for line in lines} == {"gradient", "input_x_gradient", "random"}
    assert float(lines[0]["aha/mean/deletion"]) > 0 and lines[9]["index"] == "9"
    assert PIL.Image.open(tmp_path / "curves-aha-mean.png").size[0] > 1000
    stored = pyarrow.parquet.read_table(sorted((tmp_path / "parts").iterdir())[0])
    small = np.frombuffer(stored["map"][0].as_py(), np.float16)
    assert small.size == 32 * 32 and np.abs(small).max() == 1
    assert not list(tmp_path.rglob(".*"))


def test_a_star_is_explained_where_there_is_one(classifier, tmp_path, capsys):
    assert evaluate(classifier, tmp_path, "--dataset_size", "3") == 0
    assert capsys.readouterr().out.count("; * is the best") == 2
    assert evaluate(classifier, tmp_path, "--dataset_size", "3", "--methods", "gradient,random") == 0
    assert "*" not in capsys.readouterr().out  # one method and a yardstick: there is nothing to be the best of


def test_nothing_is_computed_twice(classifier, tmp_path, monkeypatch):
    assert evaluate(classifier, tmp_path) == 0
    before, first = numbers(tmp_path), {p: p.stat().st_mtime_ns for p in (tmp_path / "parts").iterdir()}
    calls = []
    monkeypatch.setattr(survey, "attribute", lambda *a, **k: calls.append(a))
    assert evaluate(classifier, tmp_path) == 0
    assert not calls and numbers(tmp_path) == before
    monkeypatch.undo()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    (tmp_path / "parts" / "000000004-random.parquet").unlink()
    assert evaluate(classifier, tmp_path) == 0
    assert numbers(tmp_path) == before  # the lost part is made again, and is the same
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "parts").iterdir()}
    assert [p.name for p in first if kept[p] != first[p]] == ["000000004-random.parquet"]


def test_another_method_comes_beside_what_is_there(classifier, tmp_path):
    assert evaluate(classifier, tmp_path, "--methods", "gradient") == 0
    assert evaluate(classifier, tmp_path, "--methods", "random,gradient") == 0
    whole = tmp_path.parent / "whole"
    assert evaluate(classifier, whole, "--methods", "gradient,random") == 0
    assert numbers(tmp_path) == numbers(whole)


def killed(classifier, folder, after):
    """Starts the command, kills it -9 as soon as `after` parts are there, and says which."""
    arguments = ["--classifier", classifier, "--dataset", "scenes", *QUICK, "--output_dir", str(folder)]
    code = "import sys; from hf_explain.cli import main; sys.exit(main())"
    process = subprocess.Popen([sys.executable, "-c", code, "evaluate", *arguments, "--block", "1"], cwd=ROOT)
    while process.poll() is None and len(list((folder / "parts").glob("*.parquet"))) < after:
        pass
    process.kill()
    assert process.wait() == -signal.SIGKILL
    return sorted(path.name for path in (folder / "parts").glob("*.parquet"))


def test_a_killed_run_goes_on(classifier, tmp_path):
    """A real kill -9 in mid-run: nothing is lost, nothing doubled, and the numbers are those of a whole run."""
    there = killed(classifier, tmp_path / "killed", 5)
    assert 5 <= len(there) < 30
    times = {name: (tmp_path / "killed" / "parts" / name).stat().st_mtime_ns for name in there}
    for folder in ("killed", "whole"):
        assert evaluate(classifier, tmp_path / folder, "--block", "1") == 0
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "whole")
    assert all((tmp_path / "killed" / "parts" / name).stat().st_mtime_ns == at for name, at in times.items())
    for columns in survey.read_columns(tmp_path / "killed", ["gradient", "random"]).values():
        assert columns["index"].tolist() == list(range(10))


def test_two_processes_give_the_numbers_of_one(classifier, tmp_path):
    arguments = ["--classifier", classifier, "--dataset", "scenes", *QUICK, "--output_dir", str(tmp_path / "two")]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, ROOT / "scripts/evaluate_explainer.py", *arguments], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("10 pictures of scenes") == 1
    assert evaluate(classifier, tmp_path / "one") == 0
    names = ["gradient", "input_x_gradient", "random"]
    one, two = (survey.read_columns(tmp_path / folder, names) for folder in ("one", "two"))
    for name in names:
        assert set(one[name]) == set(two[name])
        for column in set(one[name]) - {"ms"}:
            np.testing.assert_allclose(one[name][column], two[name][column], atol=1e-6, err_msg=column)


def test_learned_and_refined_maps(explainer, tmp_path, capsys):
    arguments = ["--explainer", explainer, "--dataset", "scenes", "--dataset_size", 3, "--budgets", 3]
    more = ["--methods", "learned,refined,random", "--output_dir", tmp_path / "out", "--write_model_card"]
    assert cli.main(["evaluate", *map(str, [*arguments, *more])]) == 0
    found = survey.read_columns(tmp_path / "out", ["learned", "refined"])
    assert not np.allclose(found["learned"]["aha/mean/deletion"], found["refined"]["aha/mean/deletion"])
    card = ModelCard.load(explainer / "README.md")
    deletion = next(one for one in card.data.eval_results if one.metric_type == "deletion")
    mean = found["learned"]["aha/mean/deletion"].mean()
    assert deletion.metric_value == pytest.approx(mean, abs=1e-4) and deletion.dataset_name == "scenes"
    assert deletion.metric_args["reference"] == "mean" and deletion.metric_args["budgets"] == 3
    assert f"{mean:.3f}" in card.text and "Not measured yet" not in card.text and "## Limits" in card.text
    # measured again on the same data: the numbers are replaced, not repeated
    again = [*arguments, "--methods", "learned", "--output_dir", tmp_path / "again", "--write_model_card"]
    assert cli.main(["evaluate", *map(str, again)]) == 0
    card = ModelCard.load(explainer / "README.md")
    assert sum(one.metric_type == "deletion" for one in card.data.eval_results) == 1
    assert card.text.count("## Faithfulness") == 1


def test_all_methods_leave_out_what_is_not_defined(classifier, tmp_path, monkeypatch, capsys):
    """With what each costs, and DiFull where it has a meaning."""
    classes = lambda _, x, **options: Confident(torch.arange(len(x)), torch.arange(len(x)) % 4, 0.9, {})  # noqa: E731
    monkeypatch.setattr(survey_grids, "confident_pictures", classes)  # an untrained classifier knows two only
    for name, fewer in (("rise", {"masks": 20}), ("lime", {"samples": 9}), ("kernel_shap", {"samples": 9})):
        monkeypatch.setitem(METHODS, name, partial(METHODS[name], **fewer))
    few = ["--dataset_size", "8", "--block", "8", "--budgets", "3", "--grids", "1", "--output_dir", tmp_path]
    again = ["evaluate", "--classifier", classifier, "--dataset", "scenes", "--methods", "all", *map(str, few)]
    assert cli.main(again) == 0
    results, printed = json.loads((tmp_path / "results.json").read_text()), capsys.readouterr().out
    found = results["methods"]
    of_others = {"attention_rollout", "transformer_attribution"}  # the classifier is a ResNet
    assert set(results["refused"]) == of_others and set(found) == set(METHODS) - of_others
    assert "attention_rollout: left out. " in printed
    forwards = {name: method["forwards"] for name, method in found.items()}
    assert forwards["rise"] == 20 and forwards["lime"] == forwards["kernel_shap"] == 9 and forwards["random"] == 0
    assert forwards["gradient"] == forwards["semantic_pullback"] == 1 and forwards["smoothgrad"] == 25
    local = {name: m["values"]["difull"]["mean"] for name, m in found.items() if "difull" in m["values"]}
    assert local["input_x_gradient"] == local["semantic_pullback"] == 1 and abs(local["random"] - 0.25) < 0.02
    assert "score_cam" not in local
    part = next((tmp_path / "grids").glob("rise.parquet"))
    before = part.stat().st_mtime_ns
    assert cli.main(again) == 0
    assert part.stat().st_mtime_ns == before  # neither grids nor trials are repeated


def test_methods_with_options(classifier, tmp_path, capsys, monkeypatch):
    """Each is one of its own, also beside itself; in `all` it takes the place of the plain one."""
    classes = lambda _, x, **options: Confident(torch.arange(len(x)), torch.arange(len(x)) % 4, 0.9, {})  # noqa: E731
    monkeypatch.setattr(survey_grids, "confident_pictures", classes)
    names = "rise(masks=9), random,Rise(cells=4,masks=9),semantic_pullback(variant=ascent), score_cam(channels=2)"
    given = ["evaluate", "--classifier", classifier, "--dataset", "scenes", "--methods", names, "--dataset_size", "8"]
    given += ["--budgets", "3", "--grids", "1", "--output_dir", str(tmp_path)]
    assert cli.main(given) == 0
    found = json.loads((tmp_path / "results.json").read_text())["methods"]
    first, *_, last = found
    assert (first, len(found), last) == ("rise(masks=9)", 5, "score_cam(channels=2)")
    assert {"rise(cells=4, masks=9)", "semantic_pullback(variant=ascent)"} < set(found)
    assert found["rise(masks=9)"]["forwards"] == 9 and found["semantic_pullback(variant=ascent)"]["forwards"] == 5
    assert "difull" in found["rise(masks=9)"]["values"] and "difull" not in found["score_cam(channels=2)"]["values"]
    assert "semantic pullback(variant=ascent)" in capsys.readouterr().out
    parts = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}
    assert "000000000-rise(masks=9).parquet" in parts and cli.main(given) == 0
    assert parts == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}
    every = read_names("all,rise(masks=8000)", False)
    assert every == [*(name for name in METHODS if name != "rise"), "rise(masks=8000)"]


def test_a_tuned_explainer_beside_the_pretrained_one(classifier, explainer, tmp_path, capsys):
    made = hf_explain.LtxExplainerForImageClassification.from_classifier(classifier)
    made.save_pretrained(tmp_path / "ltx", include_classifier=True)
    few = ["--dataset", "scenes", "--dataset_size", "2", "--budgets", "3", "--methods", "learned,tuned"]
    assert (
        cli.main(["evaluate", "--explainer", str(tmp_path / "ltx"), *few, "--output_dir", str(tmp_path / "out")]) == 0
    )
    found = json.loads((tmp_path / "out/results.json").read_text())["methods"]
    assert found["learned"]["forwards"] == 2  # the classifier, for the class, and its copy
    assert found["tuned"]["forwards"] > 50  # 25 steps through both
    error = refused(capsys, "--explainer", explainer, *few, "--output_dir", tmp_path / "other")
    assert "'tuned' is LTX's second stage" in error and "take 'refined'" in error


def test_a_card_takes_no_numbers_of_other_weights(explainer, tmp_path):
    arguments = ["--explainer", explainer, "--dataset", "scenes", "--dataset_size", 2, "--budgets", 3]
    assert cli.main(["evaluate", *map(str, [*arguments, "--methods", "learned", "--output_dir", tmp_path / "o"])]) == 0
    results = json.loads((tmp_path / "o" / "results.json").read_text())
    other = hf_explain.ExplainerForImageClassification.from_pretrained(explainer)
    with torch.no_grad():
        next(other.head.parameters()).add_(1)
    with pytest.raises(ExplainerError, match="measure this one"):
        write_card(explainer, results, other)
    assert not (explainer / "README.md").exists()


def test_constant_maps_are_counted_and_their_order_is_drawn(classifier, tmp_path, monkeypatch, capsys):
    def flat(classifier, pixel_values, targets=None):
        maps = METHODS["gradient"](classifier, pixel_values, targets)
        maps[0] = 1
        return maps

    monkeypatch.setitem(METHODS, "flat", flat)
    assert evaluate(classifier, tmp_path, "--methods", "flat", "--block", "5") == 0
    assert "2 maps of flat are constant" in capsys.readouterr().out
    assert order_at_random(torch.ones(1, 4, 4))[1] == 1


def test_a_map_that_is_not_finite_ends_it_with_the_pictures_number(classifier, tmp_path, monkeypatch, capsys):
    def broken(classifier, pixel_values, targets=None):
        maps = METHODS["gradient"](classifier, pixel_values, targets)
        maps[1, 0, 0] = float("nan")
        return maps

    monkeypatch.setitem(METHODS, "broken", broken)
    assert evaluate(classifier, tmp_path, "--methods", "broken") == 2
    assert "the broken map of picture 1 holds NaN" in capsys.readouterr().err


# ---- data ----


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A data set with pictures of other sizes, labels, and masks that are bright where a square is."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    rows = {"photo": [], "kind": [], "where": [], "number": []}
    for i in range(3):
        image, mask = random.integers(0, 255, (40 + 10 * i, 60, 3), np.uint8), np.zeros((40 + 10 * i, 60), np.uint8)
        mask[:20, 30:] = 255
        rows["photo"].append(PIL.Image.fromarray(image))
        rows["where"].append(PIL.Image.fromarray(mask))
        rows["kind"].append(CLASSES[i])
        rows["number"].append(i)
    features = datasets.Features(
        photo=datasets.Image(), where=datasets.Image(), kind=datasets.Value("string"), number=datasets.Value("int64")
    )
    datasets.Dataset.from_dict(rows, features).save_to_disk(folder / "saved")
    return folder / "saved"


def test_labels_and_masks_of_a_data_set(classifier, pictures, tmp_path):
    columns = ["--image_column", "photo", "--mask_column", "where", "--label_column"]
    for column in ("kind", "number"):
        folder = tmp_path / column
        assert evaluate(classifier, folder, *columns, column, "--explained", "label", dataset=pictures) == 0
        found = survey.read_columns(folder, ["gradient"])["gradient"]
        assert found["label"].tolist() == found["target"].tolist() == [0, 1, 2]
        assert np.isfinite(found["average_precision"]).all()
    rows = open_judged(str(pictures), Classifier.from_pretrained(classifier), image_column="photo", mask_column="where")
    mask = rows[0]["mask"]  # 40 x 60 became 64 x 64: the upper half of the right half
    assert mask.shape == (64, 64) and mask[:31, 33:].all() and not mask[33:].any() and not mask[:, :31].any()
    assert rows[0]["label"] is None


def test_a_folder_of_pictures_has_its_folders_as_labels(classifier, tmp_path):
    for name in CLASSES[:2]:
        (tmp_path / "data" / name).mkdir(parents=True)
        PIL.Image.new("RGB", (64, 64), "red").save(tmp_path / "data" / name / "a.png")
    rows = open_judged(str(tmp_path / "data"), Classifier.from_pretrained(classifier), label_column="label")
    assert sorted(row["label"] for row in rows) == [0, 1]


# ---- what is refused ----


def test_refusals(classifier, explainer, pictures, tmp_path, capsys):
    scenes = ["--dataset", "scenes", "--output_dir", tmp_path / "out"]
    one = ["--classifier", classifier]
    for arguments, said in (
        (scenes, "give --explainer, or --classifier"),
        ([*one, "--explainer", explainer, *scenes], "one of them"),
        ([*one, *scenes, "--methods", "magic"], "unknown method 'magic'; choose from random"),
        ([*one, *scenes, "--methods", "Gradcam"], "unknown method 'gradcam'; did you mean 'grad_cam'? choose"),
        ([*one, *scenes, "--methods", "grad-cam,grad_cam"], "each once"),
        ([*one, *scenes, "--methods", "learned"], "method 'learned' needs --explainer"),
        ([*one, *scenes, "--methods", "random,random"], "each once"),
        ([*one, *scenes, "--methods", "rise(masks=9),rise( masks=9 )"], "each once"),
        ([*one, *scenes, "--methods", "rise(mask=9),random"], "unknown option of rise 'mask'; did you mean 'masks'?"),
        ([*one, *scenes, "--methods", "rise(masks=many)"], "masks='many' of rise; give an integer."),
        ([*one, *scenes, "--methods", "rise(masks=9"], "is no method with options; give a name, and in brackets"),
        ([*one, *scenes, "--methods", "all(masks=9)"], "all takes no options here; leave them out."),
        ([*one, *scenes, "--preset", "best"], "unknown preset 'best'"),
        ([*one, *scenes, "--reference", "grey"], "unknown reference 'grey'"),
        ([*one, *scenes, "--explained", "top"], "choose predicted or label"),
        ([*one, *scenes, "--batch_size", "0"], "hf-explain: --batch_size=0; give an integer of at least 1."),
        ([*one, *scenes, "--block", "0"], "hf-explain: --block=0; give an integer of at least 1."),
        (["--classifier", explainer, *scenes], "holds an explainer, not a classifier; give it as --explainer."),
        (["--explainer", classifier, *scenes], "not an explainer; give it as --classifier, or make an explainer of it"),
        ([*one, *scenes, "--dtype", "int8"], "give bfloat16 or float16"),
        ([*one, *scenes, "--write_model_card"], "--write_model_card writes into the folder of an explainer"),
        ([*one, *scenes, "--dataset_size", "0"], "dataset_size=0"),
        ([*one, "--dataset", pictures, "--output_dir", tmp_path / "p"], "several columns of pictures, photo, where;"),
        ([*one, "--dataset", pictures, "--image_column", "x", "--output_dir", tmp_path / "p"], "no column 'x'"),
        (
            [*one, "--dataset", pictures, "--image_column", "photo", "--preset", "ltx", "--output_dir", tmp_path / "p"],
            "the true classes are wanted but unknown",
        ),
    ):  # fmt: skip
        assert said in refused(capsys, *arguments), said


def test_a_folder_holds_the_results_of_one_setting(classifier, tmp_path, capsys):
    assert evaluate(classifier, tmp_path) == 0
    assert evaluate(classifier, tmp_path, "--budgets", "5", "--seed", "1") == 2
    said = capsys.readouterr().err
    assert "holds results of other settings (protocols aha/mean budgets: 4, now 5; seed: 0, now 1); give" in said


def test_every_boolean_can_be_left_off(capsys):
    """No flag is on by default and cannot be switched off."""
    import argparse
    import importlib

    for name in ("evaluate", "train", "demo"):
        parser = argparse.ArgumentParser()
        add_flags(parser, importlib.import_module(cli.COMMANDS[name][0]).FLAGS)
        for action in parser._actions:
            if action.nargs == 0 and action.dest != "help":
                assert action.default in (False, None), action.dest
            assert action.type is not bool, action.dest
