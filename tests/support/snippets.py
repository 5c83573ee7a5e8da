"""Every snippet and command of README.md and docs/*.md; run as a script in an empty folder, it does all of them.

Each page has a folder of its own in it; what a page pushes to the Hub is there for the next ones.

Python is run as it is printed. A command is run as it is printed, with flags of `SMALL` behind it that make it quick:
of a flag that is given twice the last one counts. Methods of `QUICK` have other defaults. What cannot be run here is in
`NOT_RUN`, with the reason. A command that is in neither table is an error.
"""

import contextlib
import io
import json
import os
import re
import runpy
import shlex
import sys
import traceback
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
# What a page needs that another one makes comes first.
FIRST = ["README.md", "train.md", "checkpoints.md"]

MADE_BY = {"publish.md": ("README", "explainer")}  # what a page goes on with: the page, and what it has made
GOES_ON = {("add_a_backbone.md", 1)}  # python that begins where the block before it ended
NO_TIMM = {("timm.md", 0), ("timm.md", 3)}  # python that needs the second environment; tests/test_timm.py has its like

TRAINING = (
    "--max_steps 2 --per_device_train_batch_size 2 --gradient_accumulation_steps 1 --preset tiny --sampled 1 "
    "--grids 4 7 --dataset_size 4 --eval_size 1 --eval_budgets 3 --eval_steps 2 --eval_references mean --save_steps 2 "
    "--num_workers 0 --mixed_precision no"
)
MEASURING = "--dataset_size 2 --budgets 3 --block 2 --batch_size 128"
SMALL = {
    "hf-explain demo": (
        "--backbone resnet --size 32 --train_pictures 32 --tune_pictures 2 --report_pictures 2 --epochs 1 "
        "--explainer_steps 2 --batch_size 4 --budgets 3 --refine_steps 1 --references black"
    ),
    "hf-explain train": TRAINING,
    "hf-explain evaluate": MEASURING,
    "hf-explain counting": "--pictures 32 --held_out 8 --epochs 1 --steps 2 --batch_size 4",
    "hf-explain explain": "",
    "hf-explain publish": "",
    "scripts/train_explainer.py": TRAINING,
    "scripts/evaluate_explainer.py": MEASURING,
    "scripts/explain_dataset.py": "",
}
QUICK = {
    "occlusion": {"window": 28, "stride": 28}
}  # 170 forwards a picture otherwise; tests/support/method_cases.py has more
# The loopback Hub serves models; a folder of pictures with the same splits stands in for the data sets of the Hub.
DATASETS = {"food101": "my-pictures/", "ILSVRC/imagenet-1k": "my-pictures/"}
NOT_RUN = {
    "hf-explain app": "serves until it is stopped; tests/app/test_app.py drives it",
    "pip install": "changes the environment; .ci/run installs so, and test_readme.py compares the two",
    "pytest": "these are the tests",
    "python -m venv": "for an environment of its own",
    ". .venv-timm/bin/activate": "for an environment of its own",
    "python -c import torchvision, timm": "needs the second environment",
}
LAUNCHERS = ("torchrun", "accelerate launch")  # their arguments are read; the script runs in this process


def blocks(page):
    """(language, code) of every fenced block that is python or bash."""
    return re.findall(r"^```(python|bash)\n(.*?)^```", page.read_text("utf-8"), flags=re.M | re.S)


def snippets():
    """(page, number, language, code), in the order in which they are run."""
    order = sorted(PAGES, key=lambda page: FIRST.index(page.name) if page.name in FIRST else len(FIRST))
    return [(page.name, number, *block) for page in order for number, block in enumerate(blocks(page))]


def commands(code):
    """The simple commands of a bash block, each as a list of words."""
    lines = code.replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in re.split(r"\s&&\s", line)]
    return [words for words in (shlex.split(part, comments=True) for part in parts) if words]


def known(words, table):
    """The entry of a table a command begins with."""
    return next((table[key] for key in table if " ".join(words).startswith(key)), None)


def run_command(words):
    while re.fullmatch(r"[A-Z_]+=\S+", words[0]):
        words = words[1:]
    if known(words, NOT_RUN):
        return
    if " ".join(words).startswith(LAUNCHERS):
        words = ["python", *launched(words)]
    words = [DATASETS.get(word, word) for word in words]
    name, arguments = (words[1], words[2:]) if words[0] == "python" else (" ".join(words[:2]), words[2:])
    if name not in SMALL:
        raise AssertionError(f"{' '.join(words)}: neither in SMALL nor in NOT_RUN of tests/support/snippets.py")
    sys.argv = [name, *arguments, *SMALL[name].split()]
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            if words[0] == "python":
                runpy.run_path(name, run_name="__main__")
            else:
                from hf_explain import cli

                sys.exit(cli.main([name.split()[1], *sys.argv[1:]]))
        except SystemExit as done:
            assert not done.code, f"{' '.join(words)} ended with {done.code}: {said.getvalue()}"


def launched(words):
    """The script and its arguments, as the launcher itself understands them."""
    if words[0] == "torchrun":
        from torch.distributed.run import parse_args

        found = parse_args(words[1:])
    else:
        from accelerate.commands.launch import launch_command_parser

        found = launch_command_parser().parse_args(words[2:])
    return [found.training_script, *found.training_script_args]


def run(page, number, language, code, scope):
    if language == "bash":
        for words in commands(code):
            run_command(words)
    elif (page, number) not in NO_TIMM:
        exec(compile(code, f"{page}, snippet {number}", "exec"), scope)
        for name in [name for name in scope if name.startswith("test_")]:
            scope[name]()


def prepare():
    """In the current folder and on the Hub of the environment: what the pages take for granted, as small as it gets."""
    import numpy
    import PIL.Image
    import torch
    import transformers
    from families import build, processor, save_classifier

    def picture(path, seed, size=(60, 90)):
        values = numpy.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=numpy.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(values).save(path)

    for index, name in enumerate(("cat.jpg", "dog.jpg")):
        picture(Path(name), index)
    for index in range(8):
        picture(Path("my-pictures", ("train", "validation")[index % 2], f"{index}.png"), index)
    save_classifier("my-classifier", size=32)

    labels = {i: f"class {i}" for i in range(1000)} | {281: "tabby, tabby cat", 282: "tiger cat", 340: "zebra"}
    classifier = build("vit", image_size=224, patch_size=32, labels=labels)
    for name in hub_classifiers():
        classifier.push_to_hub(name)
        processor(224).push_to_hub(name)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 1}
    backbone = transformers.Dinov2Model(transformers.Dinov2Config(image_size=224, patch_size=56, **shape))
    backbone.push_to_hub("facebook/dinov2-base")
    processor(224, image_mean=[0.4] * 3, image_std=[0.2] * 3).push_to_hub("facebook/dinov2-base")
    torch.manual_seed(0)


def hub_classifiers():
    """Ids that commands name as --classifier, and that of the Python snippets."""
    text = "".join(page.read_text("utf-8") for page in PAGES)
    return {"google/vit-base-patch16-224", *re.findall(r"--classifier ([\w.-]+/[\w.-]+)", text)}


def main():
    from hf_explain import METHODS

    METHODS.update({name: partial(METHODS[name], **options) for name, options in QUICK.items()})
    prepare()
    given = [*(path.resolve() for path in Path().iterdir()), ROOT / "scripts", ROOT / "spaces"]
    top, results, scope = Path.cwd(), {}, {}
    for page, number, language, code in snippets():
        if number == 0:
            (top / Path(page).stem).mkdir()
            os.chdir(top / Path(page).stem)
            for path in [*given, *([top.joinpath(*MADE_BY[page])] if page in MADE_BY else [])]:
                os.symlink(path, path.name)
        if (page, number) not in GOES_ON:
            scope = {"__name__": "__main__"}
        try:
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                run(page, number, language, code, scope)
            results[f"{page} {number}"] = {"printed": printed.getvalue()}
        except Exception:
            results[f"{page} {number}"] = {"error": traceback.format_exc()}
    (top / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
