"""What was measured, in words that follow the intervals: findings, warnings, how it was made.

Everything is computed from a plain dict of results, whose parts may be missing: what is not there is not spoken of.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

YARDSTICKS = ("exact_mask", "random")  # no methods: the one knows the answer, the other knows nothing
TRUSTED = 0.9  # accuracy below which a classifier's explanations are not worth reading
OUTCOMES = ("better", "no difference found", "worse", "not measured")  # of a paired comparison
BETTER = {"deletion": "lower", "insertion": "higher"}
BECAME = {
    "black": "black",
    "mean": "the mean color of ImageNet",
    "blur": "a strong blur of the picture itself",
    "noise": "uniform noise, from a fixed seed",
    "1.0": "white",
}
MORE = {
    "pointing_game": (
        "pointing game",
        "higher",
        "the share of the pictures whose highest pixel is evidence of the class.",
    ),
    "average_precision": (
        "average precision",
        "higher",
        "1 if every pixel of the evidence is ranked before all others; a random order gets the share of the picture "
        "that is evidence.",
    ),
    "class_discrimination": (
        "class discrimination",
        "higher",
        "where a picture shows two classes: the chance that a pixel of a class's own evidence is ranked above one of "
        "the other's, in the map of each. A map that shows everything whatever the class gets about 0.5.",
    ),
    "ms": ("ms per picture", "lower", "milliseconds for one map, many pictures at once, on the device named above."),
}


def references(results: Mapping) -> list[str]:
    """Names of the references anything was measured with, in order."""
    names = dict.fromkeys(results.get("protocol", {}))
    for method in results.get("methods", {}).values():
        names |= dict.fromkeys(method.get("references", {}))
    return list(names)


def label_of(results: Mapping, method: str) -> str:
    return str(results.get("methods", {}).get(method, {}).get("label") or method.replace("_", " "))


def look_of(reference) -> str:
    """What removed pixels look like."""
    return BECAME.get(str(reference), str(reference))


def number(value) -> float:
    """A float, NaN where there is none."""
    return float(value) if isinstance(value, (int, float)) else math.nan


def interval(value) -> tuple[float, float, float]:
    """Mean and both ends of {"mean", "low", "high"} or of a bare number."""
    if isinstance(value, Mapping):
        return number(value.get("mean")), number(value.get("low")), number(value.get("high"))
    return number(value), math.nan, math.nan


def warning(results: Mapping) -> str | None:
    """A sentence if the classifier is too poor for its explanations to mean anything, else None."""
    accuracy = number(results.get("classifier", {}).get("accuracy"))
    if not accuracy < TRUSTED:
        return None
    return (
        f"The classifier is right for only {percent(math.floor(1000 * accuracy) / 1000)} of the pictures, below "
        f"{100 * TRUSTED:.0f} %: do not trust its explainer. Train the classifier "
        "longer first."
    )


def outcome(difference) -> str:
    """What an interval of a paired difference says, positive being better."""
    _, low, high = interval(difference)
    if math.isnan(low) or math.isnan(high):
        return "not measured"
    return "better" if low > 0 else "worse" if high < 0 else "no difference found"


def headline(results: Mapping) -> list[str]:
    """Sentences that follow the intervals of the paired comparisons, whatever these say.

    >>> won = {"difference": {"mean": 0.2, "low": 0.1, "high": 0.3}, "curve": "deletion", "reference": "black"}
    >>> headline({"comparisons": [won | {"method": "learned", "against": "random"}]})
    ['Under black, learned beats random on deletion.']
    """
    found: dict[str, dict[str, dict[str, dict[str, str]]]] = {}  # method, opponent, curve, reference -> outcome
    for one in results.get("comparisons", []):
        curves = found.setdefault(one["method"], {}).setdefault(one["against"], {})
        curves.setdefault(one["curve"], {})[str(one["reference"])] = outcome(one.get("difference"))
    if not found:
        return ["Nothing was compared, so nothing is claimed."]
    every, sentences = references(results), []
    for method, opponents in found.items():
        name = quoted(label_of(results, method))
        for curves, those in sorted(alike(opponents), key=lambda group: place(group[0])):  # the best news first
            sentences.append(sentence(name, [quoted(label_of(results, one)) for one in those], curves, every))
    seen = {str(one["reference"]) for one in results["comparisons"]}
    unseen = [str(one) for one in results.get("unseen", []) if str(one) in seen]
    if unseen:
        sentences.append(
            f"Of these references {listed(unseen)} {'was' if len(unseen) == 1 else 'were'} never trained on."
        )
    return sentences


def alike(found: Mapping[str, Any]) -> list[tuple[Any, list[str]]]:
    """What was found, each thing once, with the names it was found for.

    >>> alike({"a": 1, "b": 2, "c": 1})
    [(1, ['a', 'c']), (2, ['b'])]
    """
    groups: list[tuple[Any, list[str]]] = []
    for name, value in found.items():
        names = next((names for same, names in groups if same == value), None)
        if names is None:
            groups.append((value, [name]))
        else:
            names.append(name)
    return groups


def place(curves: Mapping[str, Mapping[str, str]]) -> int:
    """Better throughout comes first, then what is mixed, then no difference, worse throughout and not measured."""
    outcomes = {one for curve in curves.values() for one in curve.values()}
    order = ["better", "", "no difference found", "worse", "not measured"]
    return order.index(outcomes.pop()) if len(outcomes) == 1 else 1


def sentence(name: str, opponents: list[str], curves: dict[str, dict[str, str]], every: list[str]) -> str:
    """What was found between a method and opponents of whom the same is true."""
    outcomes = {one for curve in curves.values() for one in curve.values()}
    grouped = alike(dict(sorted(curves.items())))
    if len(grouped) == 1 and len(outcomes) == 1:
        where, against = under(grouped[0][0], every), listed(opponents)
        said = {
            "better": f"{name} beats {against}",
            "worse": f"{name} loses to {against}",
            "no difference found": f"no difference was found between {name} and {against}",
            "not measured": f"{name} could not be compared with {against}",
        }[outcomes.pop()]
        return f"{where[0].upper()}{where[1:]}, {said} on {listed(grouped[0][1])}."
    parts = []
    for by_reference, names in grouped:
        by = {one: [r for r in by_reference if by_reference[r] == one] for one in OUTCOMES}
        parts.append(f"on {listed(names)}, " + ", ".join(f"{one} {under(by[one], every)}" for one in by if by[one]))
    return f"Against {listed(opponents)}, {name} is mixed: {'; '.join(parts)}."


def ordered(names: Iterable[str], every: list[str]) -> list[str]:
    return sorted(names, key=lambda name: (every.index(name) if name in every else len(every), name))


def under(names: Iterable[str], every: list[str]) -> str:
    names = ordered(names, every)
    if len(names) > 1 and len(names) >= len(every):
        return "under both references" if len(names) == 2 else f"under all {len(names)} references"
    return f"under {listed(names)}"


def listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def quoted(name: str) -> str:
    return f'"{name}"' if "," in name else name


def trainings(results: Mapping) -> list[str]:
    """The seeds that were trained: one, or several where the numbers are over as many trainings."""
    seeds = results.get("seed")
    return [str(one) for one in (seeds if isinstance(seeds, (list, tuple)) else [seeds]) if one is not None]


def circumstances(results: Mapping) -> str:
    """Seeds, device, time and versions, in one line."""
    seeds = trainings(results)
    where = [f"Seed{'s' * (len(seeds) > 1)} {listed(seeds)}"] if seeds else []
    where += [f"on {results['device']}"] if "device" in results else []
    where += [f"in {results['minutes']:.1f} minutes"] if "minutes" in results else []
    versions = ", ".join(f"{name} {version}" for name, version in results.get("versions", {}).items())
    return "; ".join(part for part in (", ".join(where), versions) if part)


def provenance(results: Mapping) -> str:
    """One line that says how the numbers were made; it goes wherever they go."""
    explainer, data = results.get("explainer", {}), results.get("data", {}).get("report", {})
    protocols = list(results.get("protocol", {}).values())
    size, device, seeds = results.get("size"), results.get("device"), trainings(results)
    parts = [
        str(results.get("backbone") or ""),
        f"{size} px" if size else "",
        f"n = {data['pictures']}" if "pictures" in data else "",
        f"seed {data['seed']} of the pictures" if "seed" in data else "",
        f"preset {explainer['preset']}" if "preset" in explainer else "",
        "hybrid" if explainer.get("hybrid") else "",
        f"{explainer['steps']} steps" if "steps" in explainer else "",
        f"training seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}" if seeds else "",
        f"protocol {protocols[0].get('name')}, {protocols[0].get('budgets')} budgets" if protocols else "",
        str(device or ""),
        "95 % intervals over the pictures" + (" and trainings" if len(seeds) > 1 else ""),
    ]
    return "; ".join(part for part in parts if part)


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def spelled(value) -> str:
    """A setting as a person reads it.

    >>> spelled({"learning_rate": 0.005, "references": ["black", "blur"]})
    'learning rate 0.005, references black, blur'
    """
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{str(k).replace('_', ' ')} {spelled(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(spelled, value))
    return str(value)
