"""The tables in README.md and docs/ say what the measured results say."""

import json

import methods_table
import pytest
import scenes_table

from hf_explain import METHODS


@pytest.fixture(scope="module")
def tables():
    return scenes_table


@pytest.fixture(scope="module")
def results(tables):
    return json.loads(tables.RESULTS.read_text())


def test_readme_and_page_are_what_the_results_give(tables, results):
    readme = tables.README.read_text("utf-8")
    assert tables.written(readme, tables.as_readme(results)) == readme
    assert tables.as_page(results) == tables.PAGE.read_text("utf-8")


def test_the_results_are_those_of_the_values_kept(tables, results):
    assert json.loads(json.dumps(tables.collect(tables.kept_runs()))) == results


def test_a_changed_number_is_seen(tables, results):
    changed = json.loads(json.dumps(results))
    one = next(iter(changed["backbones"].values()))["methods"]["learned"]["references"]
    next(iter(one.values()))["deletion"]["mean"] += 0.01
    readme = tables.README.read_text("utf-8")
    assert tables.written(readme, tables.as_readme(changed)) != readme
    assert tables.as_page(changed) != tables.PAGE.read_text("utf-8")


def test_the_results_are_what_was_promised(results):
    """Three trainings, 300 pictures each, and one reference at least that was never trained on."""
    assert {"vit", "resnet", "swin"} <= set(results["backbones"])
    for found in results["backbones"].values():
        assert len(set(found["seed"])) == len(found["seed"]) == 3 and found["data"]["report"]["pictures"] == 900
        assert all(seed >= 10_000 for seed in found["data"]["report"]["seed"])
        assert found["unseen"] and not set(found["unseen"]) & set(found["explainer"]["references"])
        assert all(p["reference"] and p["budgets"] for p in found["protocol"].values())


def test_a_table_is_made_from_runs(tables):
    """From per-picture values to both texts, restated for one cell."""

    def run(seed, shift):
        references = {"black": {"deletion": [0.1 + shift, 0.3], "insertion": [0.9, 0.7]}}
        worse = {"black": {"deletion": [0.5, 0.6], "insertion": [0.4, 0.2]}}
        entry = {"label": "learned", "ms": 1.0, "references": references, "average_precision": [1.0, 0.5]}
        methods = {"learned": entry, "random": {**entry, "label": "random", "references": worse}}
        return {
            "backbone": "vit", "size": 64, "device": "a CPU", "versions": {}, "unseen": [], "explainer": {},
            "seed": seed, "pictures": methods,
            "protocol": {"black": {"name": "aha"}}, "minutes": 1.0,
            "settings": {"seed": seed, "explainer_steps": 7, "batch_size": 2, "learning_rate": 2e-3, "neighborhood": 5},
            "data": {"report": {"seed": 10_000 + seed, "pictures": 2}},
            "classifier": {"parameters": 1, "accuracy": 0.95},
        }  # fmt: skip

    results = tables.collect({"vit": [run(0, 0.0), run(1, 0.2)]})
    readme, page = tables.as_readme(results), tables.as_page(results)
    assert "| learned | 0.250 | 0.800 | 1.0 |" in readme and "2 trainings with 2 pictures each" in readme
    assert "| random | +0.300 (" in page.replace("Learned, better by", "")
    assert "learned beats random on deletion and insertion" in page
    assert "7 steps of 2 pictures, learning rate 0.002; its finished maps gain the mean of 5 x 5 pixels" in page
    assert "Learned is better than random on this classifier" in readme and "no difference" not in readme


def test_what_the_readme_says_follows_the_intervals(tables, results):
    """Every sign, and who always loses, restated from the comparisons."""
    readme = tables.as_readme(results)
    heads = next(line for line in readme.splitlines() if line.startswith("| classifier |")).split(" | ")[2:]
    always, shown = set(), 0
    for backbone, found in results["backbones"].items():
        label = {name: method["label"] for name, method in found["methods"].items()}
        for c in found["comparisons"]:
            low, high = c["difference"]["low"], c["difference"]["high"]
            sign = "+" if low > 0 else "−" if high < 0 else "="
            against = label[c["against"]]
            if against not in [head.strip(" |") for head in heads]:
                assert sign == "+"
                always.add(against)
                continue
            row = next(line for line in readme.splitlines() if f"| {backbone} | {label[c['method']]} |" in line)
            cell = row.split(" | ")[2:][[head.strip(" |") for head in heads].index(against)].strip(" |")
            assert cell.split()[c["curve"] == "insertion"][list(found["protocol"]).index(c["reference"])] == sign
            shown += 1
    assert shown and f"better than {' and '.join(sorted(always))} on all" in readme


def test_runs_of_other_settings_are_not_averaged(tables):
    runs = [dict(json.loads(json.dumps(one))) for one in tables.kept_runs()["vit"][:1] * 2]
    assert tables.collect({"vit": runs})["backbones"]["vit"]["seed"] == [runs[0]["seed"]] * 2
    runs[1]["settings"] = {**runs[1]["settings"], "explainer_steps": 1}
    with pytest.raises(SystemExit, match="have other settings"):
        tables.collect({"vit": runs})
    runs[1] = {**runs[0], "versions": {"torch": "1"}}
    with pytest.raises(SystemExit, match="run them alike"):
        tables.collect({"vit": runs})


def test_the_model_zoo_says_what_was_measured(tables):
    """Every row of its table, computed again: one epoch of ImageNet on a GPU that does 100 TFLOP/s."""
    page = (tables.ROOT / "docs/model_zoo.md").read_text("utf-8")
    lines = (tables.ROOT / "docs/results/model_zoo.jsonl").read_text().splitlines()
    for row in map(json.loads, lines):
        petaflop = row["gflop_per_picture"] * 1_281_167 / 1e6
        numbers = (
            f"{row['parameters'] / 1e6:.1f}", f"{row['head_parameters'] / 1e6:.1f}", f"{row['gflop_per_picture']:.0f}",
            f"{petaflop:.0f}", f"{petaflop / 100 / 3.6:.1f}", f"{row['cpu_seconds_per_picture']:.1f}",
        )  # fmt: skip
        assert f"| `{row['checkpoint']}` | {' | '.join(numbers)} |" in page
        assert f"--classifier {row['checkpoint']} " in page and row["passes_per_picture"] == 8
    assert page.count("| `") == len(lines) == 5


def test_the_table_of_all_methods_says_what_its_values_say():
    results = json.loads(methods_table.RESULTS.read_text())
    assert methods_table.as_page(results) == methods_table.PAGE.read_text("utf-8")
    assert list(results["backbones"]) == ["vit", "deit", "dinov2", "swin", "convnext", "resnet", "pvt_v2"]
    for found in results["backbones"].values():
        there = {name.replace(" ", "_") for name in [*found["methods"], *found["refused"]]}
        assert set(METHODS) <= there and len(found["methods"]) + len(found["refused"]) == len(METHODS) + 6
        for cell in methods_table.CELLS:
            means = {n: m["values"][f"aha/{cell}"]["mean"] for n, m in found["methods"].items() if n != "random"}
            first = (min if cell.endswith("deletion") else max)(means, key=means.get)
            assert found["best"][cell][0] == first
