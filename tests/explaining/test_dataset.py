"""`hf-explain explain`: a picture, or a data set as a new one, in which nothing is lost, doubled or changed."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pyarrow.parquet
import pytest
from families import build, save_classifier
from loopback_hub import LoopbackHub
from transformers import CLIPImageProcessorPil, pipeline

import hf_explain
from hf_explain import ExplainerError, cli
from hf_explain.data import opening
from hf_explain.data.scenes import CLASSES, load_scenes
from hf_explain.explaining.rows import column, count, parts_of, scaled
from hf_explain.faithfulness import measure

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return save_classifier(tmp_path_factory.mktemp("classifier"), size=32, labels=dict(enumerate(CLASSES)))


@pytest.fixture(scope="module")
def cropping(tmp_path_factory):
    """A classifier that sees the middle of a picture only."""
    folder = tmp_path_factory.mktemp("cropping")
    build("resnet", size=32).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of pictures of three sizes, in two classes."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(7):
        values = random.integers(0, 255, (30 + 10 * (i % 3), 50, 3), np.uint8)
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        PIL.Image.fromarray(values).save(folder / "ab"[i % 2] / f"picture {i}.png")
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """40 pictures in a folder of `save_to_disk`."""
    folder = tmp_path_factory.mktemp("scenes")
    load_scenes(40, 5, 32).save_to_disk(folder)
    return folder


def explain(classifier, dataset, folder, *more):
    arguments = [
        "--classifier",
        classifier,
        "--method",
        "gradient",
        "--dataset",
        dataset,
        "--output_dir",
        folder,
        *more,
    ]
    return cli.main(["explain", *map(str, arguments)])


def read(folder, **options):
    return datasets.load_dataset(str(folder), split="train", **options).with_format("numpy")


def values(row):
    return row["attribution"] * row["scale"]


def test_the_maps_are_those_of_the_pipeline(cropping, pictures, tmp_path):
    assert explain(cropping, pictures, tmp_path, "--keep_columns", "label", "--batch_size", 3, "--block", 4) == 0
    files = sorted(pictures.rglob("*.png"))
    pipe = pipeline("image-attribution", model=cropping, method="gradient")
    expected, found = pipe(list(map(str, files))), read(tmp_path)
    assert found["row"][:].tolist() == list(range(7)) and found["source_label"][:].tolist() == [0] * 4 + [1] * 3
    for (entry,), row in zip(expected, found):
        assert (row["label"], int(row["target"])) == (entry["label"], entry["index"])
        assert row["score"] == pytest.approx(entry["score"], abs=1e-6) and row["box"].tolist() == list(entry["box"])
        assert np.isnan(entry["attribution"]).any()  # what was cropped away
        largest = np.nanmax(np.abs(entry["attribution"]))
        np.testing.assert_allclose(values(row), entry["attribution"], rtol=1e-3, atol=1e-6 * largest)
        assert row["image"].shape == (*entry["attribution"].shape, 3)
    stored = found.cast_column("image", datasets.Image(decode=False)).with_format(None)[0]["image"]
    assert stored == {"bytes": files[0].read_bytes(), "path": files[0].name}  # the file as it was, not encoded again


def test_its_types_and_its_size_on_the_disk(classifier, scenes, tmp_path):
    assert explain(classifier, scenes, tmp_path) == 0
    (_, path), features = next(parts_of(tmp_path)), read(tmp_path).features
    assert features["attribution"] == datasets.List(datasets.List(datasets.Value("float16")))
    stored = pyarrow.parquet.ParquetFile(path).metadata.row_group(0)
    chunk = next(c for c in map(stored.column, range(stored.num_columns)) if c.path_in_schema.startswith("attribution"))
    assert chunk.compression == "ZSTD" and chunk.total_compressed_size < 2 * 32 * 32 * 40


def test_several_classes_give_a_row_each(classifier, scenes, tmp_path):
    assert explain(classifier, scenes, tmp_path / "top", "--top_k", 2, "--dataset_size", 3) == 0
    top = read(tmp_path / "top")
    assert top["row"][:].tolist() == [0, 0, 1, 1, 2, 2] and (np.diff(top["score"][:])[::2] <= 0).all()
    assert explain(classifier, scenes, tmp_path / "some", "--target", CLASSES[4], "2", "--dataset_size", 2) == 0
    some = read(tmp_path / "some")
    assert some["target"][:].tolist() == [4, 2, 4, 2] and some["label"][:2].tolist() == [CLASSES[4], CLASSES[2]]
    card = (tmp_path / "some" / "README.md").read_text()
    assert "classes: 4, 2, the same for every picture" in card and "4 maps of 2 pictures" in card


def test_the_card_tells_how(classifier, scenes, tmp_path, capsys):
    """Only what was measured, and no folder of this machine."""
    assert explain(classifier, scenes, tmp_path, "--measure", "aha", "--dataset_size", 5, "--batch_size", 5) == 0
    card, settings = (tmp_path / "README.md").read_text(), json.loads((tmp_path / "settings.json").read_text())
    assert f"fingerprint `{settings['classifier']['weights']}`" in card and "method: gradient" in card
    assert os.path.dirname(classifier) not in card and str(scenes.parent) not in card and "torch 2" in card
    model = hf_explain.Classifier.from_pretrained(classifier)
    x = model.image_processor(datasets.load_from_disk(scenes)["image"][:5], return_tensors="pt")["pixel_values"]
    targets = model(x).argmax(-1)
    report = measure(model, x, hf_explain.METHODS["gradient"](model, x, targets), targets, "aha")
    np.testing.assert_allclose(column(tmp_path, "deletion"), report.areas["deletion"].numpy(), atol=1e-5)
    assert f"| deletion (lower is better) | {column(tmp_path, 'deletion').astype(float).mean():.4f} |" in card
    assert "holds 5 maps of 5 pictures" in capsys.readouterr().out


def test_overlays(cropping, pictures, tmp_path):
    assert explain(cropping, pictures, tmp_path, "--overlays", "--no_maps", "--no_images") == 0
    files = sorted(path.name for path in (tmp_path / "overlays").iterdir())
    assert len(files) == 7 and files[1].startswith("000000001-picture_2-")
    pipe = pipeline("image-attribution", model=cropping, method="gradient")
    first = sorted(pictures.rglob("*.png"))[0]
    np.testing.assert_array_equal(PIL.Image.open(tmp_path / "overlays" / files[0]), pipe(str(first))[0]["heatmap"])
    assert set(read(tmp_path).column_names) == {"row", "label", "target", "score", "scale", "box"}


def test_a_learned_explainer_and_refinement(classifier, scenes, tmp_path):
    made = hf_explain.RankingExplainerForImageClassification.from_classifier(classifier, preset="tiny")
    made.save_pretrained(tmp_path / "explainer", include_classifier=True)
    arguments = ["explain", "--explainer", tmp_path / "explainer", "--dataset", scenes, "--dataset_size", 2]
    assert cli.main([*map(str, arguments), "--output_dir", str(tmp_path / "maps"), "--refine_steps", "2"]) == 0
    pipe = pipeline("image-attribution", model=str(tmp_path / "explainer"))
    expected = pipe(datasets.load_from_disk(scenes)["image"][:2], refine_steps=2)
    for row, (entry,) in zip(read(tmp_path / "maps"), expected):
        np.testing.assert_allclose(values(row), entry["attribution"], rtol=2e-3, atol=1e-4)
    card = (tmp_path / "maps" / "README.md").read_text()
    assert (
        "it has not been trained" in card and "refine_steps: 2" in card and "inside the explainer's checkpoint" in card
    )


def test_small_values_survive_float16():
    """Gradients of a sure classifier are far below what float16 can tell apart."""
    values = np.float32([[1e-12, 2e-12], [-3e-12, np.nan]])
    half, scale = scaled(values)
    np.testing.assert_allclose(half * np.float64(scale), values, rtol=1e-3)
    assert scaled(np.float32([[0.5, 3.0]]))[1] == scaled(np.zeros((2, 2), np.float32))[1] == 1
    assert np.isfinite(scaled(np.float32([[1e6, 1.0]]))[0]).all()


# ---- stopping and going on ----


def same(one, other):
    assert one.column_names == other.column_names and len(one) == len(other)
    for mine, theirs in zip(one, other):
        for name in one.column_names:
            np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)


def test_a_killed_run_goes_on(classifier, scenes, tmp_path):
    """A real kill -9 in mid-run: nothing is lost, nothing doubled, and the rows are those of a whole run."""
    more = ["--block", "1", "--overlays", "--dataset_size", "24"]
    arguments = ["--classifier", classifier, "--method", "gradient", "--dataset", str(scenes), *more]
    code = "import sys; from hf_explain.cli import main; sys.exit(main())"
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "explain", *arguments, "--output_dir", killed], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and len(list((killed / "data").glob("*.parquet"))) < 5:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    there = {path: path.stat().st_mtime_ns for path in (killed / "data").glob("*.parquet")}
    assert 5 <= len(there) < 24 and not (killed / "README.md").exists()
    (killed / "data" / ".train-000000023.parquet.1.unfinished").write_bytes(b"half")  # what a kill may leave
    for folder in (killed, whole):
        assert explain(classifier, scenes, folder, *more) == 0
    assert all(path.stat().st_mtime_ns == at for path, at in there.items())
    assert column(killed, "row").tolist() == list(range(24)) and count(killed, 1, 24) == (24, 24)
    same(read(killed), read(whole))
    names = [sorted(path.name for path in folder.rglob("*") if path.is_file()) for folder in (killed, whole)]
    assert names[0] == names[1] and len(names[0]) == 24 + 24 + 2


def test_nothing_is_explained_twice(classifier, scenes, tmp_path, monkeypatch):
    assert explain(classifier, scenes, tmp_path, "--block", 16) == 0
    before = {path: path.stat().st_mtime_ns for _, path in parts_of(tmp_path)}
    assert len(before) == 3
    list(before)[1].unlink()
    with pytest.raises(ExplainerError, match="does not follow"):
        count(tmp_path, 16, 40)
    assert explain(classifier, scenes, tmp_path, "--block", 16) == 0
    changed = [path.name for path, at in before.items() if path.stat().st_mtime_ns != at]
    assert changed == ["train-000000016.parquet"] and count(tmp_path, 16, 40) == (40, 40)


def test_two_processes_give_the_rows_of_one(classifier, scenes, tmp_path):
    arguments = ["--classifier", classifier, "--method", "gradient", "--dataset", scenes, "--block", "7"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, ROOT / "scripts/explain_dataset.py", *arguments, "--output_dir", tmp_path / "two"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("holds 40 maps of 40 pictures") == 1
    assert explain(classifier, scenes, tmp_path / "one", "--block", 7) == 0
    same(read(tmp_path / "two"), read(tmp_path / "one"))


# ---- streams ----


def test_a_stream_gives_the_same_rows(classifier, scenes, tmp_path):
    assert explain(classifier, scenes, tmp_path / "stream", "--streaming", "--block", 16, "--dataset_size", 20) == 0
    assert explain(classifier, scenes, tmp_path / "sized", "--block", 16, "--dataset_size", 20) == 0
    same(read(tmp_path / "stream"), read(tmp_path / "sized"))
    assert "20 maps of 20 pictures" in (tmp_path / "stream" / "README.md").read_text()
    again = list(parts_of(tmp_path / "stream"))[1][1]
    again.unlink()
    assert explain(classifier, scenes, tmp_path / "stream", "--streaming", "--block", 16, "--dataset_size", 20) == 0
    same(read(tmp_path / "stream"), read(tmp_path / "sized"))


def test_a_stream_is_read_no_further_than_a_block(classifier, tmp_path, monkeypatch):
    """However long it is: this one would never end."""
    numbers = []

    def endless():
        while True:
            numbers.append(len(numbers))
            yield {"image": PIL.Image.new("RGB", (40, 40), (numbers[-1] % 256, 0, 0))}

    rows = datasets.IterableDataset.from_generator(endless, features=datasets.Features(image=datasets.Image()))
    monkeypatch.setattr(opening, "open_rows", lambda *arguments, **options: rows)
    assert explain(classifier, "endless", tmp_path, "--streaming", "--block", 6, "--dataset_size", 12) == 0
    assert len(numbers) <= 13 and count(tmp_path, 6, None) == (12, 12)


# ---- the Hub ----

PUSH = """
import json, sys
from datasets import load_dataset
from hf_explain.cli import main

assert main(["explain", *json.loads(sys.argv[1])]) == 0
rows = load_dataset("tester/maps", split="train").with_format("numpy")
print(len(rows), rows[0]["attribution"].shape, rows.features["attribution"])
"""


def test_push_to_hub(classifier, scenes, tmp_path):
    arguments = ["--classifier", classifier, "--method", "gradient", "--dataset", str(scenes), "--block", "16"]
    more = ["--output_dir", "maps", "--overlays", "--push_to_hub", "--hub_dataset_id", "tester/maps", "--hub_private"]
    with LoopbackHub() as hub:
        done = subprocess.run(
            [sys.executable, "-c", PUSH, json.dumps([*arguments, *more])],
            env={**os.environ, **hub.environment(tmp_path / "home"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            cwd=tmp_path, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        files = hub.files("tester/maps", repo_type="dataset")
        assert hub.repos["dataset", "tester/maps"]["private"]
    assert "40 (32, 32) List(List(Value('float16')))" in done.stdout
    assert {name for name in files if not name.startswith(".")} == {
        "README.md", *(f"data/train-{first:09d}.parquet" for first in (0, 16, 32)),
    }  # fmt: skip
    assert 'load_dataset("tester/maps"' in files["README.md"].decode()


# ---- before it begins ----


def test_dry_run(classifier, scenes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["explain", "--classifier", classifier, "--method", "gradient", "--dataset", str(scenes)]
    assert cli.main([*arguments, "--dry_run", "--overlays"]) == 0
    said = capsys.readouterr().out
    assert "pictures: 40" in said and "ms per picture" in said and "measured on 32 pictures" in said
    stored = float(said.split("disk: ")[1].split(" kB")[0])
    assert not any(tmp_path.iterdir())
    assert cli.main([*arguments, "--output_dir", "whole"]) == 0
    real = sum(path.stat().st_size for _, path in parts_of(tmp_path / "whole")) / 40 / 1000
    assert stored == pytest.approx(real, rel=0.15)
    assert cli.main([*arguments, "--dry_run", "--streaming"]) == 0
    assert "a stream; per 1,000" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, said",
    [
        ("", "no picture was given, or two sources"),
        (
            "--dataset scenes --output_dir x --explainer y",
            "give --explainer, or --classifier with --method; one of them.",
        ),
        ("no-such-cat.jpg", "there is no file 'no-such-cat.jpg'"),
        ("--dataset scenes", "--output_dir is missing; give a folder"),
        ("--dataset {scenes} --output_dir x --image_column photo", "has no column 'photo'; it has image, label"),
        ("--dataset {scenes} --output_dir x --keep_columns kind", "has no column 'kind'; it has image, label"),
        ("--dataset {empty} --output_dir x", "could not be opened as a data set"),
        ("--dataset scenes --output_dir x --target cat", "unknown target 'cat'; nearest labels"),
        ("--dataset scenes --output_dir x --no_maps", "--no_maps leaves only labels and scores"),
        ("--dataset scenes --output_dir x --block 0", "hf-explain: --block=0; give an integer of at least 1."),
        ("--dataset scenes --output_dir x --measure hope", "unknown preset 'hope'"),
        ("notes.txt", "notes.txt is a file, but by its name neither a picture nor parquet; give pictures, a folder"),
        ("cat.jpg empty", "empty is no picture; give pictures only, or one data set alone."),
        ("cat.jpg empty/cat.jpg", "the overlays of cat.jpg and empty/cat.jpg would have the same names"),
        ("cat.jpg --method grad-camm", "unknown method 'grad-camm'; did you mean 'grad_cam'? choose from random"),
        ("cat.jpg --top_k 2 --target 1", "--target and --top_k were both given; give the classes, or"),
        ("cat.jpg --dry_run", "are for data sets; leave them out for one picture"),
    ],
)
def test_refusals_are_one_line(arguments, said, classifier, scenes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no picture")
    words = arguments.format(scenes=scenes, empty=tmp_path / "empty").split()
    assert cli.main(["explain", "--classifier", classifier, "--method", "gradient", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and error.splitlines()[-1].startswith("hf-explain: ") and "Traceback" not in error
    assert not (tmp_path / "x" / "data").exists()


def test_a_folder_of_other_settings_is_refused(classifier, scenes, tmp_path, capsys):
    assert explain(classifier, scenes, tmp_path, "--dataset_size", 2) == 0
    assert explain(classifier, scenes, tmp_path, "--dataset_size", 2, "--target", 1) == 2
    assert "holds maps of other settings (targets: none, now 1); give another --output_dir" in capsys.readouterr().err
    assert explain(classifier, scenes, tmp_path, "--dataset_size", 2, "--batch_size", 1) == 0  # decides about nothing


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_is_named_by_its_row(classifier, pictures, tmp_path, capsys, workers):
    for path in pictures.rglob("*.png"):
        (tmp_path / "some" / path.parent.name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "some" / path.parent.name / path.name).write_bytes(path.read_bytes())
    bad = sorted((tmp_path / "some").rglob("*.png"))[5]
    bad.write_bytes(bad.read_bytes()[:100])
    more = ["--block", 4, "--num_workers", workers]
    assert explain(classifier, tmp_path / "some", tmp_path / "maps", *more) == 2
    error = capsys.readouterr().err
    assert f"hf-explain: row 5 of {tmp_path / 'some'}" in error and bad.name in error and "cannot be read" in error
    assert [first for first, _ in parts_of(tmp_path / "maps")] == [0]  # nothing half-written is left
    assert len(list((tmp_path / "maps" / "data").iterdir())) == 1


def test_a_single_picture(cropping, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    picture = str(sorted(pictures.rglob("*.png"))[0])
    arguments = ["explain", picture, "--classifier", cropping, "--method", "gradient"]
    assert cli.main([*arguments, "--target", "zebra", "1", "--measure", "aha"]) == 0
    expected = pipeline("image-attribution", model=cropping, method="gradient")(picture, target=["zebra", 1])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"zebra: {expected[0]['score']:.3f}, deletion ") and lines[1].startswith("tiger cat: ")
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["picture_0-1-tiger_cat-gradient.png", "picture_0-4-zebra-gradient.png"]
    np.testing.assert_array_equal(PIL.Image.open(made[1]), expected[0]["heatmap"])


def test_a_method_with_options(cropping, pictures, tmp_path, capsys):
    """By whatever spelling, one file and one map; and what is wrong is refused before anything is loaded."""
    picture = str(sorted(pictures.rglob("*.png"))[0])
    arguments = ["explain", picture, "--classifier", cropping, "--output_dir", str(tmp_path), "--target", "zebra"]
    for text in ("occlusion(window=16, stride=16)", "Occlusion( window=16,stride=16 )"):
        assert cli.main([*arguments, "--method", text]) == 0
    [made] = tmp_path.iterdir()
    assert made.name == "picture_0-4-zebra-occlusion_window_16_stride_16.png"
    pipe = pipeline(
        "image-attribution", model=cropping, method="occlusion", method_options={"window": 16, "stride": 16}
    )
    np.testing.assert_array_equal(PIL.Image.open(made), pipe(picture, target="zebra")[0]["heatmap"])
    capsys.readouterr()
    for text, said in (
        (
            "occlusion(windw=3)",
            "unknown option of occlusion 'windw'; did you mean 'window'? choose from window, stride",
        ),
        ("occlusion(window=16", "'occlusion(window=16' is no method with options; give a name, and in brackets"),
        ("gradient(window=16)", "gradient has no options, but window=16 was given; leave it out."),
    ):
        assert cli.main(["explain", picture, "--classifier", "nowhere/", "--method", text]) == 2
        told = capsys.readouterr().err
        assert said in told and len(told.splitlines()) == 1


def test_several_pictures_and_more_classes_than_there_are(cropping, pictures, tmp_path, capsys):
    """Each has its overlays, of all classes; those of another method or refined ones stay beside them."""
    one, other = map(str, sorted(pictures.rglob("*.png"))[:2])
    arguments = ["explain", one, other, "--classifier", cropping, "--output_dir", str(tmp_path)]
    assert cli.main([*arguments, "--method", "Input-x-gradient", "--top_k", "99"]) == 0
    said, classes = capsys.readouterr(), hf_explain.Classifier.from_pretrained(cropping).num_labels
    assert said.err.splitlines()[-1] == f"--top_k 99: there are {classes} classes, all are explained"
    assert len(said.out.splitlines()) == len(list(tmp_path.glob("*-input_x_gradient.png"))) == 2 * classes
    assert cli.main([*arguments, "--method", "gradient", "--refine_steps", "1", "--target", "zebra"]) == 0
    made = {path.name for path in tmp_path.glob("*-gradient-refined.png")}
    assert made == {"picture_0-4-zebra-gradient-refined.png", "picture_2-4-zebra-gradient-refined.png"}


def test_which_model_it_is(classifier, tmp_path, monkeypatch, capsys):
    """A missing folder, a file, and an explainer in the place of a classifier and the other way round."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_text("")
    made = hf_explain.RankingExplainerForImageClassification.from_classifier(classifier, preset="tiny")
    made.save_pretrained("explainer", include_classifier=True)
    for arguments, said in (
        (
            "--classifier nowhere/ --method gradient",
            "there is no folder 'nowhere/'; give one that exists, or a Hub id.",
        ),
        ("--explainer a/b/c", "there is no folder 'a/b/c'; give one that exists, or a Hub id."),
        ("--explainer weights.bin", "weights.bin is a file; give the folder it is in, or a Hub id."),
        ("--classifier explainer --method gradient", "not a classifier; give it as --explainer, without --method."),
        (f"--explainer {classifier}", "a 'resnet' model, not an explainer; give it as --classifier with --method, or"),
        (
            "--explainer explainer --method gradient",
            "--method gradient is for a classifier, and an explainer makes its",
        ),
        (f"--classifier {classifier}", "--classifier needs --method; methods: random,"),
    ):
        assert cli.main(["explain", "cat.jpg", *arguments.split()]) == 2
        assert said in capsys.readouterr().err, said


def test_the_script_is_the_command(monkeypatch, capsys):
    said = []
    for run in (lambda: runpy.run_path(str(ROOT / "scripts/explain_dataset.py"), run_name="__main__"), cli.main):
        monkeypatch.setattr(sys, "argv", ["hf-explain", *(["explain"] if run is cli.main else []), "--help"])
        with pytest.raises(SystemExit):
            run()
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and "--hub_dataset_id" in said[0]
