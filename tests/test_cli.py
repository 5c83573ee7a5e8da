"""The command line: what it takes, what it makes, and how it fails."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from families import save_classifier
from loopback_hub import LoopbackHub

from hf_explain import ExplainerForImageClassification, cli
from hf_explain.data.scenes import load_scenes
from hf_explain.training.config import TrainingConfig
from hf_explain.training.log import read_log
from hf_explain.training.objectives import RankingObjective

ROOT = Path(__file__).resolve().parent.parent
QUICK = [
    *("--max_steps", "4", "--per_device_train_batch_size", "4", "--budgets", "4", "--grids", "3", "5"),
    *("--eval_budgets", "3", "--eval_size", "4", "--eval_steps", "2", "--save_steps", "2", "--logging_steps", "1"),
    *("--num_workers", "0", "--preset", "tiny", "--dataset_size", "12"),
]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return save_classifier(tmp_path_factory.mktemp("classifier"), size=32)


def train(classifier, *more, dataset="scenes"):
    return cli.main(["train", "--classifier", classifier, "--dataset", str(dataset), *QUICK, *map(str, more)])


def weights(folder):
    return ExplainerForImageClassification.from_pretrained(str(folder), load_classifier=False).head.state_dict()


def same(one, other):
    return all(torch.equal(weights(one)[k], v) for k, v in weights(other).items())


@pytest.fixture(scope="module")
def trained(classifier, tmp_path_factory):
    os.environ["ACCELERATE_USE_CPU"] = "true"
    folder = tmp_path_factory.mktemp("trained")
    assert train(classifier, "--output_dir", folder) == 0
    return folder


def test_training_ends_with_an_explainer(trained, classifier):
    explainer = ExplainerForImageClassification.from_pretrained(str(trained))
    log = read_log(trained / "training_log.jsonl")
    best = min((line for line in log if "eval/score" in line), key=lambda line: line["eval/score"])
    assert explainer.config.trained_steps == best["step"] and explainer.image_processor.size == {
        "height": 32,
        "width": 32,
    }
    assert [line["step"] for line in log if "train/loss" in line] == [1, 2, 3, 4]
    assert explainer.config.classifier_name_or_path == classifier and not (trained / "classifier").exists()
    assert {"checkpoint-2", "checkpoint-4"} <= {path.name for path in trained.iterdir()}


def test_torchrun(trained, classifier, tmp_path):
    """Two processes started as users start them follow the curve of one."""
    arguments = ["--classifier", classifier, "--dataset", "scenes", *QUICK, "--per_device_train_batch_size", "2"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, ROOT / "scripts/train_explainer.py", *arguments, "--output_dir", tmp_path / "two"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("holds the explainer of step") == 1
    one, two = (read_log(folder / "training_log.jsonl") for folder in (trained, tmp_path / "two"))
    assert [line["step"] for line in one] == [line["step"] for line in two]
    for mine, other in zip(one, two, strict=True):
        for key in ("train/loss", "train/deletion", "eval/score"):
            assert mine.get(key) == pytest.approx(other.get(key), abs=1e-4)


def test_a_stopped_training_says_how_to_go_on(trained, classifier, tmp_path, monkeypatch, capsys):
    original = RankingObjective.loss

    def interrupted(self, explainer, pixel_values, draws, *arguments):
        if draws.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, explainer, pixel_values, draws, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(RankingObjective, "loss", interrupted)
        assert train(classifier, "--output_dir", tmp_path) == 143
    said = capsys.readouterr().err
    assert "stopped by SIGTERM after step 3 of 4" in said and "--resume_from_checkpoint last" in said
    assert train(classifier, "--output_dir", tmp_path, "--resume_from_checkpoint", "last") == 0
    assert same(tmp_path, trained)


def test_dry_run(classifier, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train(classifier, "--dry_run", "--references", "black") == 0
    said = capsys.readouterr().out
    assert "12 pictures per epoch, 4 per step" in said and "21 pictures per step" in said and "hours" in said
    assert not any(tmp_path.iterdir())


def test_own_pictures_and_training_further(trained, tmp_path):
    load_scenes(12, 5, 32).remove_columns(["evidence", "segments"]).save_to_disk(tmp_path / "mine")
    arguments = ["--explainer", str(trained), "--dataset", str(tmp_path / "mine"), *QUICK, "--include_classifier"]
    assert cli.main(["train", *arguments, "--output_dir", str(tmp_path / "further")]) == 0
    further = ExplainerForImageClassification.from_pretrained(str(tmp_path / "further"))
    before = ExplainerForImageClassification.from_pretrained(str(trained)).config.trained_steps
    assert further.config.trained_steps > before and further.config.classifier_included
    assert (tmp_path / "further" / "classifier" / "model.safetensors").exists()


PUSH = """
import json, sys
from families import build, processor, save_classifier
from hf_explain.cli import main

build("resnet", size=32).push_to_hub("tester/classifier")
processor(32).push_to_hub("tester/classifier")
sys.exit(main(["train", "--classifier", "tester/classifier", *json.loads(sys.argv[1])]))
"""


def test_push_to_hub(tmp_path):
    (tmp_path / "push.py").write_text(PUSH)
    arguments = [
        "--dataset",
        "scenes",
        *QUICK,
        "--output_dir",
        "made",
        "--push_to_hub",
        "--hub_model_id",
        "tester/made",
    ]
    with LoopbackHub() as hub:
        done = subprocess.run(
            [sys.executable, "push.py", json.dumps([*arguments, "--hub_private"])],
            env={
                **os.environ,
                **hub.environment(tmp_path / "home"),
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")]),
                "OMP_NUM_THREADS": "1",
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        files = hub.files("tester/made")
        assert hub.repos["model", "tester/made"]["private"]
        assert hub.log.count(("GET", "/api/models/tester/classifier")) == 1  # its commit, once for the whole command
    assert {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"} <= files.keys()
    assert "training_log.jsonl" not in files and not any(
        name.startswith(("classifier/", "checkpoint-")) for name in files
    )
    assert files["model.safetensors"] == (tmp_path / "made" / "model.safetensors").read_bytes()
    assert json.loads(files["config.json"])["trained_steps"] in (2, 4)


# ---- what is refused ----


@pytest.mark.parametrize(
    "arguments, said",
    [
        ("--method magic", "unknown method 'magic'; choose from ranking, ltx, diffmask."),
        ("--method rankin", "unknown method 'rankin'; did you mean 'ranking'? choose from ranking, ltx, diffmask."),
        ("--explainer x", "give --classifier for a new explainer, or --explainer to train one further; one of them."),
        ("--output_dir x --neighborhood 4", "neighborhood=4; give an odd number of pixels, 1 for none"),
        ("--output_dir x --finest 3", "finest=3; give one of 1, 2, 4"),
        ("", "--output_dir is missing; give a folder for the explainer, or --dry_run."),
        ("--output_dir x --preset huge", "no preset 'huge'; choose from tiny, small, base."),
        ("--output_dir x --mixed_precision fp16", "mixed_precision='fp16' is not offered"),
        (
            "--output_dir x --dataset /no/where",
            "'/no/where' could not be opened as a data set (there is no such folder",
        ),
        ("--output_dir x --dataset nowhere/", "'nowhere/' could not be opened as a data set (there is no such folder"),
        (
            "--output_dir x --dataset cat.jpg",
            "(cat.jpg is a file, and not a parquet one); give the id of one on the Hub",
        ),
        ("--output_dir x --dataset nobody/x --streaming --eval_size 3", "nothing can be held out of a stream"),
        ("--output_dir x --dataset a/b --eval_dataset a/b", "those to train on, split 'train' of a/b; give another"),
        ("--output_dir x --dataset a/b --eval_split train", "those to train on, split 'train' of a/b; give another"),
        ("--output_dir x --dataset a/b --split test --eval_dataset a/b --eval_split test", "those to train on"),
        ("--output_dir x --eval_dataset scenes --eval_size -1", "eval_size=-1; give 0 or more"),
        ("--output_dir x --push_to_hub", "is the local folder"),
        ("--output_dir x --report_to paper", "unknown tracker 'paper'"),
        ("--output_dir x --classifier /no/model", "there is no folder '/no/model'"),
        ("--output_dir x --classifier nowhere/", "there is no folder 'nowhere/'; give one that exists, or a Hub id."),
    ],
)
def test_refusals_are_one_line(arguments, said, classifier, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cat.jpg").write_bytes(b"")
    assert train(classifier, *arguments.split()) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and error.splitlines()[-1].startswith("hf-explain: ") and "Traceback" not in error
    assert not list(tmp_path.glob("x/checkpoint-*"))


def test_what_the_world_refuses_is_one_line(tmp_path, capsys):
    code = train("nobody/nothing", "--output_dir", tmp_path)
    error = capsys.readouterr().err.strip()
    assert code == 1 and error.count("\n") == 0 and "nobody/nothing" in error


@pytest.mark.parametrize("said", ["--hybrid", "--neighborhood 5", "--finest 2", "--backbone x"])
def test_the_head_of_a_trained_explainer_stays(said, tmp_path, capsys):
    few = ["--dataset", "scenes", "--output_dir", str(tmp_path)]
    assert cli.main(["train", "--explainer", "mine", *said.split(), *few]) == 2
    assert f"{said.split()[0]} is of a new explainer, and mine is as it was made" in capsys.readouterr().err


def test_kinds_of_models_and_an_earlier_run(trained, classifier, capsys):
    """Each is refused with the flag to give instead."""
    few = ["--dataset", "scenes", *QUICK, "--output_dir", str(trained)]
    for arguments, said in (
        (["--classifier", str(trained)], "holds an explainer, not a classifier; give it as --explainer."),
        (["--explainer", classifier], "not an explainer; give it as --classifier, or make an explainer"),
        (["--classifier", classifier], "go on from it with --resume_from_checkpoint last"),
    ):
        assert cli.main(["train", *arguments, *few]) == 2
        assert said in capsys.readouterr().err, said


def test_a_wrong_flag_is_refused_in_two_lines(capsys):
    """The second names the flag that was meant; usage is what cannot be left out, and not a page of flags."""
    for name in cli.COMMANDS:
        asked = {"train": ["--dataset", "x"], "evaluate": ["--dataset", "x", "--output_dir", "x"]}.get(name, [])
        asked += {"publish": ["--explainer", "x", "--hub_model_id", "x"]}.get(name, [])
        with pytest.raises(SystemExit):
            cli.main([name, *asked, "--hepl"])
        usage, error = capsys.readouterr().err.splitlines()
        assert usage.startswith(f"usage: hf-explain {name} ") and ("--dataset DATASET" in usage) == (
            "--dataset" in asked
        )
        assert error == f"hf-explain {name}: error: unrecognized arguments: --hepl; did you mean --help?"
    with pytest.raises(SystemExit):
        cli.main(["explain", "a.png", "--qqq", "1"])
    assert "unrecognized arguments: --qqq 1; hf-explain explain --help lists" in capsys.readouterr().err


def test_wrong_flags(capsys):
    for arguments in (["paint"], ["train", "--dataset", "scenes", "--max_steps", "many"], ["train"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 2 and "error:" in capsys.readouterr().err


def test_the_nearest_command_is_named(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["explian", "cat.jpg"])
    said = capsys.readouterr().err
    assert caught.value.code == 2 and "unknown command 'explian'; did you mean 'explain'? choose from demo," in said


def test_an_interrupt_is_no_traceback(monkeypatch, capsys):
    def interrupt(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_explain.training.command.run", interrupt)
    assert cli.main(["train", "--dataset", "scenes"]) == 130
    assert capsys.readouterr().err == "hf-explain: interrupted\n"


# ---- help ----


def test_help_names_the_commands_and_imports_none(monkeypatch, capsys):
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: pytest.fail(name))
    assert cli.main([]) == 0
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    said = capsys.readouterr().out
    assert caught.value.code == 0 and all(said.count(help_) == 2 for _, help_ in cli.COMMANDS.values())


def test_version(capsys):
    import hf_explain

    assert cli.main(["--version"]) == 0 and capsys.readouterr().out.strip() == hf_explain.__version__


def test_every_setting_is_a_documented_flag(capsys):
    fields = TrainingConfig.__dataclass_fields__
    assert all(field.metadata["help"] for field in fields.values())
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    said = capsys.readouterr().out
    assert all(f"--{name}" in said for name in fields)


def test_flags_mean_the_settings(monkeypatch, classifier):
    seen = []
    inner = "hf_explain.training.loop.train"
    monkeypatch.setattr(inner, lambda *arguments: seen.append(arguments) or pytest.skip("seen"))
    flags = "--grids 4 pixels --tau 1 0.5 --references black 0.5 --torch_compile --learning_rate 0.01 --seed 3"
    with pytest.raises(pytest.skip.Exception):
        train(classifier, "--output_dir", "x", *flags.split())
    config = seen[0][2]
    assert config.objective_of("ranking").grids == (4, None) and config.tau == (1.0, 0.5) and config.torch_compile
    assert config.references == ("black", "0.5") and config.learning_rate == 0.01 and config.seed == 3
    assert len(seen[0][1]) == 12 and len(seen[0][3]) == 4
    assert not torch.equal(seen[0][1][0]["pixel_values"], seen[0][3][0]["pixel_values"])  # scenes of another seed
