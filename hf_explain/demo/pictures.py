"""What a demo writes down for its report."""

from __future__ import annotations

import json

import numpy as np

from ..data.scenes import CLASSES
from ..reports.curves import draw_curves
from ..reports.sheet import Row, sheet
from .comparison import LABELS, Scenes

SHOWN = ("learned", "learned_refined", "integrated_gradients_smoothed", "occlusion", "gradient")


def values(runs: dict) -> dict:
    """What a table over several runs needs: per-picture scores without curves."""
    out: dict = {}
    for name, entry in runs.items():
        references = {r: {k: found[k] for k in ("deletion", "insertion")} for r, found in entry["references"].items()}
        out[name] = {**entry, "references": references}
    return json.loads(json.dumps(out), parse_float=lambda x: round(float(x), 5))


def draw(results: dict, runs: dict, maps: dict, scenes: Scenes) -> tuple[list[dict], dict]:
    """The cases that are looked at closely, and all pictures of the report."""
    reference = next(iter(runs["learned"]["references"]))
    found = runs["learned"]["references"][reference]
    quality = np.asarray(found["insertion"]) - np.asarray(found["deletion"])
    best, worst = int(quality.argmax()), int(quality.argmin())
    middle = np.argsort(quality)[np.linspace(0, len(quality) - 1, 8).astype(int)[1:-1]].tolist()
    pictures = {
        "overlays": sheet([row(i, runs, maps, scenes, reference) for i in middle], [LABELS[m] for m in SHOWN]),
        "success": sheet([row(best, runs, maps, scenes, reference)], [LABELS[m] for m in SHOWN]),
        "failure": sheet([row(worst, runs, maps, scenes, reference)], [LABELS[m] for m in SHOWN]),
    }
    for name in runs["learned"]["references"]:
        pictures["curves" if name == reference else f"curves, {name}"] = draw_curves(
            {LABELS[m]: results["methods"][m]["references"][name]["curves"] for m in results["methods"]},
            yardsticks=[LABELS[m] for m in ("exact_mask", "random")],
            title=f"Removed pixels become: {name}",
        )
    cases = []
    for kind, index in (("success", best), ("failure", worst)):
        predicted, label = int(scenes.targets[index]), int(scenes.labels[index])
        text = "It has the best learned map of all: " if kind == "success" else "It has the worst learned map of all: "
        text += f"insertion minus deletion is {quality[index]:.2f}, the median picture has {np.median(quality):.2f}. "
        if predicted != label:
            text += f"The classifier is wrong here, the label is {CLASSES[label]}; the map is of what it said."
        elif not scenes.found[index]:
            text += "The texture it named is not in the picture."
        else:
            share = float(scenes.evidence[index].float().mean())
            text += f"The texture it named covers {100 * share:.0f} % of the picture."
        cases.append(
            {
                "kind": kind,
                "label": CLASSES[predicted],
                "image": index,
                "text": text,
                "deletion": found["deletion"][index],
                "insertion": found["insertion"][index],
            }
        )
    return cases, pictures


def row(index: int, runs: dict, maps: dict, scenes: Scenes, reference: str) -> Row:
    scores = [runs[m]["references"][reference] for m in SHOWN]
    predicted, label = (CLASSES[int(c[index])] for c in (scenes.targets, scenes.labels))
    return Row(
        scenes.images[index],
        [maps[m][index] for m in SHOWN],
        scenes.evidence[index].numpy(),
        predicted if predicted == label else f"{predicted} (wrong: {label})",
        [f"del {s['deletion'][index]:.2f}, ins {s['insertion'][index]:.2f}" for s in scores],
    )
