"""The table of docs/results/scenes.json and the README: demos of several backbones and seeds, summarized.

python scripts/scenes_table.py --runs demos                        # runs what is missing, then writes the table
python scripts/scenes_table.py --runs demos --backbones vit resnet --seeds 0 1 2
python scripts/scenes_table.py --check                             # does the README say what the file says?

A run that exists is not repeated. The README's part between the two markers is written from the file.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from hf_explain.comparison import summarize
from hf_explain.report import headline, table
from hf_explain.small_classifiers import RECIPES

ROOT = Path(__file__).parents[1]
RESULTS, README = ROOT / "docs" / "results" / "scenes.json", ROOT / "README.md"
BEGIN, END = "<!-- written by scripts/scenes_table.py -->", "<!-- end -->"
KEPT = ("backbone", "size", "device", "versions", "protocol", "unseen", "explainer")


def run_missing(arguments) -> dict[str, list[dict]]:
    """backbone -> metrics of each seed."""
    found: dict[str, list[dict]] = {}
    for seed in arguments.seeds:
        for backbone in arguments.backbones:
            folder = Path(arguments.runs) / f"{backbone}-{seed}"
            if not (folder / "metrics.json").exists():
                command = [sys.executable, "-m", "hf_explain.cli", "demo", "--backbone", backbone, "--seed", str(seed)]
                command += ["--report_pictures", str(arguments.pictures), "--output_dir", str(folder)]
                subprocess.run([*command, *arguments.demo], check=True)
            found.setdefault(backbone, []).append(json.loads((folder / "metrics.json").read_text()))
    return found


def collect(found: dict[str, list[dict]]) -> dict:
    """What is kept of the runs: a summary per backbone, in the form of a demo's results."""
    backbones = {}
    for backbone, runs in found.items():
        methods, comparisons = summarize([run["pictures"] for run in runs])
        accuracy = [run["classifier"]["accuracy"] for run in runs]
        backbones[backbone] = {
            **{key: runs[0][key] for key in KEPT},
            "seed": [run["seed"] for run in runs],
            "minutes": [round(run["minutes"], 1) for run in runs],
            "data": {**runs[0]["data"], "report": {"seed": [run["data"]["report"]["seed"] for run in runs],
                                                   "pictures": sum(run["data"]["report"]["pictures"] for run in runs)}},
            "classifier": {"parameters": runs[0]["classifier"]["parameters"], "accuracy": sum(accuracy) / len(accuracy),
                           "accuracies": accuracy},
            "settings": {k: v for k, v in runs[0]["settings"].items() if k not in ("seed", "output_dir", "device")},
            "methods": methods,
            "comparisons": comparisons,
        }  # fmt: skip
    return {"command": "python scripts/scenes_table.py --runs demos", "backbones": backbones}


def as_markdown(results: dict) -> str:
    """The part of the README."""
    parts = []
    for backbone, found in results["backbones"].items():
        parts.append(f"**{backbone}**, accuracy {100 * found['classifier']['accuracy']:.1f} %\n")
        parts.append(table(found, style="markdown"))
        parts += ["", *(f"- {sentence}" for sentence in headline(found)), ""]
    return "\n".join(parts)


def written(text: str, part: str) -> str:
    """`text` with what is between the markers replaced."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{part}\n{END}{rest.split(END)[1]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", help="folder of the demos, one each")
    parser.add_argument("--backbones", nargs="+", default=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--pictures", type=int, default=300, help="reported per seed")
    parser.add_argument("--demo", nargs=argparse.REMAINDER, default=[], help="more arguments of every demo")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if arguments.check:
        readme = README.read_text("utf-8")
        return int(written(readme, as_markdown(json.loads(RESULTS.read_text()))) != readme)
    results = collect(run_missing(arguments))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    README.write_text(written(README.read_text("utf-8"), as_markdown(results)), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
