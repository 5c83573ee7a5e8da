"""The table of docs/results/methods.*: every method on every kind of backbone, by `hf-explain train` and `evaluate`.

python scripts/methods_table.py --demos demos --runs methods                # demos: of hf-explain demo, a folder each
python scripts/methods_table.py --demos demos --runs methods --backbones vit resnet
python scripts/methods_table.py                                             # the page, anew, from the values kept
python scripts/methods_table.py --check                                     # does it say what the values say?

A demo's folder is BACKBONE-0 and holds a classifier and its ranking explainer; LTX and Vision DiffMask are trained
here. What is there already is not repeated, so that a stopped run goes on.
"""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from hf_explain.data.small_classifiers import RECIPES
from hf_explain.evaluating.grids import UNDEFINED
from hf_explain.faithfulness.intervals import paired

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "docs/results/methods.json", ROOT / "docs/results/methods.md"
REFERENCES, CURVES = ("black", "blur", "noise"), ("deletion", "insertion")
CELLS = [f"{reference}/{curve}" for reference in REFERENCES for curve in CURVES]
PICTURES, BUDGETS, GRIDS, STEPS = 100, 11, 10, {"ltx": 600, "diffmask": 1000}
TRAINED = {  # folder -> method and flags of `hf-explain train`
    "ltx": ("ltx", ["--learning_rate", "1e-3", "--counterfactual", "1"]),
    "ltx-plain": ("ltx", ["--learning_rate", "1e-3", "--counterfactual", "0"]),
    "diffmask": ("diffmask", ["--learning_rate", "2e-3"]),
}
SETTINGS = {  # where more forwards than those of the defaults make a fairer opponent
    "occlusion": "occlusion(window=8, stride=4)", "lime": "lime(samples=500)",
    "kernel_shap": "kernel_shap(samples=500)", "rise": "rise(masks=1000)",
}  # fmt: skip
MEASURED = {  # folder -> methods, and what they are called in the table
    "plain": {"all": None, **{setting: name.replace("_", " ") for name, setting in SETTINGS.items()}},
    "ranking": {"learned": "ranking explainer", "refined": "ranking explainer, refined"},
    "ltx": {"learned": "LTX", "tuned": "LTX, tuned on the picture"},
    "ltx-plain": {"learned": "LTX without counterfactual"},
    "diffmask": {"learned": "Vision DiffMask"},
}


def command(*words) -> list[str]:
    return [sys.executable, "-m", "hf_explain.cli", *map(str, words)]


def run(demo: Path, folder: Path) -> None:
    """Trains and measures what is not there yet."""
    for name, (method, flags) in TRAINED.items():
        if not (folder / name / "config.json").exists():
            subprocess.run(
                command(
                    "train", "--method", method, "--classifier", demo / "classifier", "--dataset", "scenes",
                    "--image_size", 64, "--max_steps", STEPS[method], "--per_device_train_batch_size", 16,
                    "--num_workers", 0, "--eval_size", 32, "--eval_steps", STEPS[method] // 2, "--include_classifier",
                    "--resume_from_checkpoint", "last", "--output_dir", folder / name, *flags,
                ),
                check=True,
            )  # fmt: skip
    for name, methods in MEASURED.items():
        what = ["--explainer", demo / "explainer" if name == "ranking" else folder / name]
        what = ["--classifier", demo / "classifier", "--grids", GRIDS] if name == "plain" else what
        output = folder / f"measured-{name}"
        if not (output / "results.json").exists():
            subprocess.run(
                command(
                    "evaluate", *what, "--methods", ",".join(methods), "--dataset", "scenes", "--dataset_size",
                    PICTURES, "--block", PICTURES, "--preset", "aha", "--reference", *REFERENCES, "--budgets", BUDGETS,
                    "--output_dir", output,
                ),
                check=True,
            )  # fmt: skip


def collect(folder: Path) -> dict:
    """What is kept of a backbone's runs."""
    methods, values, refused = {}, {}, {}
    for name, called in MEASURED.items():
        results = json.loads((folder / f"measured-{name}/results.json").read_text())
        with open(folder / f"measured-{name}/results.csv") as file:
            lines = list(csv.DictReader(file))
        refused |= {method.replace("_", " "): sentence for method, sentence in results["refused"].items()}
        for method, found in results["methods"].items():
            label = called.get(method) or method.replace("_", " ")
            own = [line for line in lines if line["method"] == method]
            values[label] = {cell: np.array([float(line[f"aha/{cell}"]) for line in own]) for cell in CELLS}
            methods[label] = {
                "values": {key: value for key, value in found["values"].items() if key != "pointing_game"},
                "undefined": None if "difull" in found["values"] else UNDEFINED[method],
                "trained": name != "plain",
                **{key: found[key] for key in ("ms", "forwards", "constant_maps")},
            }
    untrained = {label: values[label] for label, method in methods.items() if not method["trained"]}
    return {
        "accuracy": results["accuracy"], "versions": results["versions"],
        "methods": methods, "refused": refused,
        "best": {cell: best(values, cell) for cell in CELLS},
        "best_untrained": {cell: best(untrained, cell) for cell in CELLS},
    }  # fmt: skip


def best(values: dict[str, dict], cell: str) -> list[str]:
    """The best method, then those whose difference to it, picture by picture, has 0 in its interval."""
    sign = 1 if cell.endswith("deletion") else -1
    order = sorted((name for name in values if name != "random"), key=lambda name: sign * values[name][cell].mean())
    differences = {name: paired(values[name][cell], values[order[0]][cell]) for name in order}
    return [name for name in order if differences[name]["low"] <= 0 <= differences[name]["high"]]


def mean_ranks(results: dict, untrained: bool) -> dict[str, float]:
    """Mean place among the methods that are defined everywhere, over all cells and backbones; the best first."""
    tables = [found["methods"] for found in results["backbones"].values()]
    names = [n for n, m in tables[0].items() if all(n in t for t in tables) and not (untrained and m["trained"])]
    places: dict[str, list[int]] = {name: [] for name in names}
    for methods in tables:
        for cell in CELLS:
            sign = 1 if cell.endswith("deletion") else -1
            order = sorted(names, key=lambda name: sign * methods[name]["values"][f"aha/{cell}"]["mean"])
            for place, name in enumerate(order, 1):
                places[name].append(place)
    return dict(sorted(((n, sum(p) / len(p)) for n, p in places.items()), key=lambda pair: pair[1]))


# ---- the page ----


def as_page(results: dict) -> str:
    settings = results["settings"]
    flags = "; ".join(
        f"{name}: `hf-explain train --method {method} {' '.join(flags)} --max_steps {settings['steps'][method]}`"
        for name, (method, flags) in settings["trained"].items()
    )
    parts = [
        "# Every method on every kind of backbone\n",
        f"Written by `{results['command']}`: small classifiers of the embedded pictures (64 pixels), as `hf-explain "
        f"demo` trains them with seed 0, and {settings['pictures']} pictures that no training and no tuning has seen. "
        "All maps are made and measured by `hf-explain evaluate`, of the predicted class, by the preset aha with "
        f"{settings['budgets']} points; deletion: lower is better, insertion: higher. Ranking explainers were "
        "trained with black, blur and white, LTX with black, Vision DiffMask with a placeholder of its own: noise "
        "is new to all of them. Settings: occlusion by windows of 8 with stride 4, RISE 1000 masks, LIME and "
        "KernelSHAP 500 samples on 8 x 8 cells, all else as it is by default. DiFull: the share of a map that stays in "
        "the only cell of a grid of 2 x 2 pictures that can "
        "matter; at the pixels, of Grad-CAM, Grad-CAM++ and Layer-CAM at the last map. Times are per picture, in "
        "batches of 32, on one CPU thread of a machine that did other work too; forwards are the classifier's, "
        "and of LTX its copy's as well. In brackets: 95 % intervals over the pictures.\n",
        f"Trained beside the demo's ranking explainers, once each: {flags}. DiFull is of {settings['grids']} grids, "
        "fewer where the classifier is not sure of as many pictures. torch {torch}, transformers "
        "{transformers}.\n".format(**next(iter(results["backbones"].values()))["versions"]),
        "## Which method wins where\n",
        *sentences(results),
    ]
    for backbone, found in results["backbones"].items():
        parts += [
            f"\n## {backbone}\n",
            f"The classifier is right on {100 * found['accuracy']:.0f} %.\n",
            *one_table(found),
        ]
        parts += ["", *notes(found)]
    return "\n".join(parts) + "\n"


def sentences(results: dict) -> list[str]:
    """Who is best in a cell, or not told from the best, on how many of the backbones."""
    lines = []
    for key, among in (("best", "all"), ("best_untrained", "those that need no training")):
        lines += [f"Among {among}, the best, and those whose difference to the best has 0 in its interval:\n"]
        lines += ["| | " + " | ".join(CELLS) + " |", "|---" * (1 + len(CELLS)) + "|"]
        for backbone, found in results["backbones"].items():
            cells = [f"**{one[0]}**" + "".join(f", {name}" for name in one[1:]) for one in found[key].values()]
            lines.append(f"| {backbone} | {' | '.join(cells)} |")
        ranks = mean_ranks(results, key != "best")
        lines += ["", "Mean place over all cells, of the methods that are defined on every backbone:"]
        lines += [", ".join(f"{name} {rank:.1f}" for name, rank in ranks.items()) + ".\n"]
    return lines


def one_table(found: dict) -> list[str]:
    heads = [*CELLS, "average precision", "DiFull", "ms", "forwards"]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for name, method in found["methods"].items():
        keys = [*(f"aha/{cell}" for cell in CELLS), "average_precision"]
        cells = ["{mean:.3f} ({low:.3f}–{high:.3f})".format(**method["values"][key]) for key in keys]
        local = method["values"].get("difull")
        cells += [
            f"{local['mean']:.3f}" if local else "not defined",
            f"{method['ms']:.1f}",
            f"{method['forwards']:.0f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    empty = ["not defined"] * len(heads)
    return [*lines, *(f"| {name} | {' | '.join(empty)} |" for name in found["refused"])]


def notes(found: dict) -> list[str]:
    lines = [f"- {name}: not defined. {sentence}" for name, sentence in found["refused"].items()]
    constant = {name: m["constant_maps"] for name, m in found["methods"].items() if m["constant_maps"]}
    lines += [f"- {count} maps of {name} are constant; their order was drawn." for name, count in constant.items()]
    reasons: dict[str, list[str]] = {}
    for name, method in found["methods"].items():
        if method["undefined"]:
            reasons.setdefault(method["undefined"], []).append(name)
    return [*lines, *(f"- DiFull of {', '.join(names)}: not defined; {why}" for why, names in reasons.items())]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demos", help="folder of the demos")
    parser.add_argument("--runs", help="folder of what is trained and measured")
    parser.add_argument("--backbones", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"backbones": {}}
    if arguments.check:
        return int(as_page(kept) != PAGE.read_text("utf-8"))
    if arguments.runs:
        if not arguments.demos:
            parser.error("--runs needs --demos")
        found = {}
        for backbone in arguments.backbones:
            run(Path(arguments.demos) / f"{backbone}-0", Path(arguments.runs) / backbone)
            found[backbone] = collect(Path(arguments.runs) / backbone)
        known = kept["backbones"] | found
        settings = {"pictures": PICTURES, "budgets": BUDGETS, "grids": GRIDS, "steps": STEPS, "trained": TRAINED}
        kept = {
            "command": "python scripts/methods_table.py --demos demos --runs methods", "settings": settings,
            "backbones": {name: known[name] for name in RECIPES if name in known},
        }  # fmt: skip
        kept = json.loads(json.dumps(kept))
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    PAGE.write_text(as_page(kept), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
