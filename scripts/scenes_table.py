"""The tables of docs/results/scenes.* and the README: demos of several backbones and seeds, summarized.

python scripts/scenes_table.py --runs demos                        # runs what is missing, then writes the table
python scripts/scenes_table.py --runs demos --backbones vit resnet --seeds 0 1 2
python scripts/scenes_table.py                                     # writes the tables anew from the values kept
python scripts/scenes_table.py --check                             # do they say what the values say?

A run whose values are kept in docs/results/scenes/ is not repeated, unless there is a new one in the folder of --runs.
The part of the README between the two markers is written too.
"""

import argparse
import gzip
import json
import subprocess
import sys
from pathlib import Path

from hf_explain.data.small_classifiers import RECIPES
from hf_explain.demo.comparison import summarize
from hf_explain.reports.findings import headline, listed, outcome, percent
from hf_explain.reports.tables import table

ROOT = Path(__file__).parents[1]
RESULTS, PAGE, README = ROOT / "docs/results/scenes.json", ROOT / "docs/results/scenes.md", ROOT / "README.md"
BEGIN, END = "<!-- written by scripts/scenes_table.py -->", "<!-- end -->"
RUNS = ROOT / "docs/results/scenes"  # per-picture values of every run
SHARED = ("backbone", "size", "device", "versions", "protocol", "unseen", "explainer")
OWN = ("seed", "output_dir", "device")  # of the settings, those of one run
KEPT = (*SHARED, "seed", "minutes", "data", "classifier", "settings", "pictures")


def run_missing(arguments) -> None:
    """Demos whose values are not kept yet."""
    for seed in arguments.seeds:
        for backbone in arguments.backbones:
            kept, folder = RUNS / f"{backbone}-{seed}.json.gz", Path(arguments.runs) / f"{backbone}-{seed}"
            if kept.exists() and not arguments.anew and not (folder / "metrics.json").exists():
                continue
            if not (folder / "metrics.json").exists():
                command = [sys.executable, "-m", "hf_explain.cli", "demo", "--backbone", backbone, "--seed", str(seed)]
                command += ["--report_pictures", str(arguments.pictures), "--output_dir", str(folder)]
                subprocess.run([*command, *arguments.demo], check=True)
            metrics = json.loads((folder / "metrics.json").read_text())
            text = json.dumps({key: metrics[key] for key in KEPT}, separators=(",", ":"))
            RUNS.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(gzip.compress(text.encode(), mtime=0))


def kept_runs() -> dict[str, list[dict]]:
    """backbone -> what is kept of its runs, by seed."""
    found: dict[str, list[dict]] = {}
    for path in sorted(RUNS.glob("*.json.gz")):
        found.setdefault(path.name.rpartition("-")[0], []).append(json.loads(gzip.decompress(path.read_bytes())))
    return {backbone: found[backbone] for backbone in RECIPES if backbone in found}


def merge(reports: list[dict]) -> dict:
    return {"seed": [r["seed"] for r in reports], "pictures": sum(r["pictures"] for r in reports)}


def collect(found: dict[str, list[dict]]) -> dict:
    """What is kept of the runs: a summary per backbone, in the form of a demo's results."""
    backbones = {}
    for backbone, runs in found.items():
        check_alike(backbone, runs)
        methods, comparisons = summarize([run["pictures"] for run in runs])
        accuracy = [run["classifier"]["accuracy"] for run in runs]
        backbones[backbone] = {
            **{key: runs[0][key] for key in SHARED},
            "seed": [run["seed"] for run in runs],
            "minutes": [round(run["minutes"], 1) for run in runs],
            "data": {**runs[0]["data"], "report": merge([run["data"]["report"] for run in runs])},
            "classifier": {"parameters": runs[0]["classifier"]["parameters"], "accuracy": sum(accuracy) / len(accuracy),
                           "accuracies": accuracy},
            "settings": {k: v for k, v in runs[0]["settings"].items() if k not in OWN},
            "methods": methods,
            "comparisons": comparisons,
        }  # fmt: skip
    return {"command": "python scripts/scenes_table.py --runs demos", "backbones": backbones}


def check_alike(backbone: str, runs: list[dict]) -> None:
    """Runs of other settings or versions do not belong in one mean."""
    for run in runs[1:]:
        for key in SHARED:
            if run[key] != runs[0][key]:
                raise SystemExit(
                    f"{backbone}: seed {run['seed']} has {key} {run[key]}, seed {runs[0]['seed']} has {runs[0][key]}; "
                    "run them alike, with --anew."
                )
        one, other = ({k: v for k, v in r["settings"].items() if k not in OWN} for r in (run, runs[0]))
        if one != other:
            raise SystemExit(f"{backbone}: seeds {run['seed']} and {runs[0]['seed']} have other settings; use --anew.")


CURVES = ("deletion", "insertion")


def as_page(results: dict) -> str:
    """docs/results/scenes.md: every number of the file."""
    parts = [
        "# Learned maps beside other methods, on the embedded pictures\n",
        f"Written by `{results['command']}`, which trains a classifier and its explainer per backbone and seed, as "
        "`hf-explain demo` does, and measures them on pictures no training and no tuning has seen. Intervals are 95 %, "
        "by a bootstrap over the pictures, and over the trainings where there are several. The classes explained are "
        "the predicted ones. Integrated gradients: 32 steps from black, smoothed by the box that scored best on tune "
        "pictures; occlusion: window 8, stride 4, black. A constant map ranks nothing; its order is drawn at random.\n",
    ]
    for backbone, found in results["backbones"].items():
        parts += [f"## {backbone}\n", recipe(found["settings"]), table(found, style="markdown"), ""]
        for ours in dict.fromkeys(c["method"] for c in found["comparisons"]):
            parts += [paired_table(found, ours), ""]
        parts += [*(f"- {sentence}" for sentence in headline(found)), ""]
    return "\n".join(parts).rstrip() + "\n"


def recipe(settings: dict) -> str:
    """How the explainer was made, which differs from backbone to backbone."""
    said = f"The explainer: {settings['explainer_steps']} steps of {settings['batch_size']} pictures, learning rate "
    said += f"{settings['learning_rate']:g}"
    size = settings["neighborhood"]
    return said + (f"; its finished maps gain the mean of {size} x {size} pixels around each.\n" if size > 1 else ".\n")


def paired_table(found: dict, ours: str) -> str:
    """How much better the maps `ours` are than each other method's, cell by cell."""
    label = {name: method["label"] for name, method in found["methods"].items()}
    columns = [(reference, curve) for reference in found["protocol"] for curve in CURVES]
    cells = {}
    for c in found["comparisons"]:
        if c["method"] == ours:
            shown = "{mean:+.3f} ({low:+.3f} to {high:+.3f})".format(**c["difference"])
            cells[c["against"], c["reference"], c["curve"]] = shown
    others = list(dict.fromkeys(against for against, _, _ in cells))
    lines = [
        f"{label[ours].capitalize()}, better by (positive) or worse by (negative), picture by picture:\n",
        "| than | " + " | ".join(f"{reference}, {curve}" for reference, curve in columns) + " |",
        "|---" * (1 + len(columns)) + "|",
        *(f"| {label[o]} | " + " | ".join(cells[o, r, c] for r, c in columns) + " |" for o in others),
    ]
    return "\n".join(lines)


SIGNS = {"better": "+", "no difference found": "=", "worse": "−"}


def as_readme(results: dict) -> str:
    """The README's part: the means of the first backbone, and for all of them what the paired intervals say."""
    first, found = next(iter(results["backbones"].items()))
    return f"{means(first, found)}\n\n{verdicts(results['backbones'])}\n"


def means(backbone: str, found: dict) -> str:
    """A row per method: deletion and insertion under every reference, and the time."""
    names, data, seeds = list(found["protocol"]), found["data"]["report"], len(found["seed"])
    protocol, unseen = found["protocol"][names[0]], [name for name in names if name in found["unseen"]]
    under = " / ".join(names)
    lines = [
        f"| {backbone}, {found['size']} px | deletion ↓ {under} | insertion ↑ {under} | ms per picture |",
        "|---|---|---|---|",
    ]
    for method in found["methods"].values():
        cells = [" / ".join(f"{method['references'][n][curve]['mean']:.3f}" for n in names) for curve in CURVES]
        lines.append(f"| {method['label']} | {' | '.join(cells)} | {milliseconds(method)} |")
    lines.append(
        f"\nMeans of {seeds} training{'s' * (seeds > 1)} with {data['pictures'] // seeds} pictures each, seen by no "
        f"training. Protocol `{protocol['name']}`, {protocol.get('budgets')} points; pixels become {under}"
        + (f" ({' and '.join(unseen)} never trained on)" if unseen else "")
        + f". On {found['device']}. The classifier is right about {percent(found['classifier']['accuracy'])} of them."
    )
    return "\n".join(lines)


def milliseconds(method: dict) -> str:
    return "" if method["ms"] is None else f"{method['ms']:.1f}"


def verdicts(backbones: dict) -> str:
    """A row per backbone and map of ours: a sign per opponent, curve and reference; who always loses, in a sentence."""
    outcomes = {
        (backbone, c["method"], c["against"], c["curve"], c["reference"]): outcome(c["difference"])
        for backbone, found in backbones.items()
        for c in found["comparisons"]
    }
    found = next(iter(backbones.values()))
    label = {name: method["label"] for name, method in found["methods"].items()}
    ours = list(dict.fromkeys(key[1] for key in outcomes))
    opponents = list(dict.fromkeys(key[2] for key in outcomes))
    lost = [o for o in opponents if {said for key, said in outcomes.items() if key[2] == o} == {"better"}]
    shown, references = [o for o in opponents if o not in lost], list(found["protocol"])
    lines = []
    if lost:
        who = f"{listed([label[one] for one in ours])} {'are' if len(ours) > 1 else 'is'}".capitalize()
        kinds = f"on all {len(backbones)} kinds of classifiers" if len(backbones) > 1 else "on this classifier"
        lines.append(
            f"{who} better than {listed([label[o] for o in lost])} {kinds}, under every reference, on both curves.\n"
        )
    if shown:
        lines += [
            f"Against the others: the signs of deletion, then of insertion, under {listed(references)}: **+** "
            "better, **−** worse, **=** no difference found (the 95 % interval of the paired differences holds 0).\n",
            "| classifier | map | " + " | ".join(label[o] for o in shown) + " |",
            "|---" * (2 + len(shown)) + "|",
        ]
        for backbone in backbones:
            for method in ours:
                cells = [signs(outcomes, backbone, method, o, references) for o in shown]
                lines.append(f"| {backbone} | {label[method]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def signs(outcomes: dict, backbone: str, method: str, against: str, references) -> str:
    """`+++ +=−`, or an empty cell where the two were not compared."""
    curves = [[outcomes.get((backbone, method, against, curve, name)) for name in references] for curve in CURVES]
    return " ".join("".join(SIGNS.get(said or "", "") for said in curve) for curve in curves).strip()


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
    parser.add_argument("--anew", action="store_true", help="also the runs whose values are kept")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if arguments.check:
        results, readme = json.loads(RESULTS.read_text()), README.read_text("utf-8")
        same = results == json.loads(json.dumps(collect(kept_runs()))) and as_page(results) == PAGE.read_text("utf-8")
        return int(not same or written(readme, as_readme(results)) != readme)
    if arguments.runs:
        run_missing(arguments)
    results = collect(kept_runs())
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(as_page(results), "utf-8")
    README.write_text(written(README.read_text("utf-8"), as_readme(results)), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
