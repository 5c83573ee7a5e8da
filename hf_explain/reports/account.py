"""The account the report gives of its numbers, as pieces of HTML: what was done, and how it was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape

from .findings import BECAME, listed, provenance, trainings
from .sections import paragraph, whole


def what_was_done(results: Mapping) -> str:
    steps, line = steps_taken(results), circumstances(results)
    if not steps and not line:
        return ""
    items = "".join(f"<li>{escape(one)}</li>" for one in steps)
    return f"<h2>What was done</h2><ol>{items}</ol>" + (paragraph(line + ".", "small") if line else "")


def steps_taken(results: Mapping) -> list[str]:
    """From drawing the pictures to explaining them, a few sentences each."""
    data, classifier, explainer = (results.get(key, {}) for key in ("data", "classifier", "explainer"))
    train, report, classes = data.get("train", {}), data.get("report", {}), data.get("classes", [])
    size = results.get("size")
    steps = []
    if train:
        many = f" of {size} x {size} pixels" if size else ""
        steps.append(
            f"Pictures{many} were drawn by a program that knows which pixels are the evidence: blobs in the stripes of "
            f"one of {len(classes) or 'several'} classes, blobs of other classes against it, and blobs that mean "
            f"nothing. {whole(train.get('pictures', 'Some'))} of them (seed {train.get('seed', 'unknown')}) were for "
            "training."
        )
    if classifier:
        steps.append(
            f"A small {results.get('backbone', 'image')} classifier was trained on them, with parts of the pictures "
            "blanked so that it is used to missing pixels. Then it was frozen."
        )
    if explainer:
        trained = [BECAME.get(str(one), str(one)) for one in explainer.get("references", [])]
        steps.append(
            f"An explainer{reads(explainer)}, a small head beside the frozen classifier, "
            f"was trained for {explainer.get('steps', 'some')} steps to rank pixels: removing the first ones should "
            f"make the classifier lose the class, keeping only them should not."
            + (f" Removed pixels became {listed(trained)}." if trained else "")
        )
    if report:
        tune = data.get("tune", {})
        if tune:
            steps.append(
                f"{whole(tune.get('pictures', 'Some'))} other pictures (seed {tune.get('seed', 'unknown')}) were for "
                "choosing how widely integrated gradients are smoothed; every other setting, such as that of "
                "occlusion, was fixed beforehand."
            )
        new = report.get("seed") not in (None, train.get("seed"), tune.get("seed"))
        steps.append(
            f"All methods then explained the same {whole(report.get('pictures', 'few'))} pictures (seed "
            f"{report.get('seed', 'unknown')}), "
            + (
                "none of which was trained or tuned on."
                if new
                else "which are NOT known to be new: the seed is the same."
            )
        )
    return steps


def circumstances(results: Mapping) -> str:
    """Seeds, device, time and versions, in one line."""
    seeds = trainings(results)
    where = [f"Seed{'s' * (len(seeds) > 1)} {listed(seeds)}"] if seeds else []
    where += [f"on {results['device']}"] if "device" in results else []
    where += [f"in {results['minutes']:.1f} minutes"] if results.get("minutes") is not None else []
    versions = ", ".join(f"{name} {version}" for name, version in results.get("versions", {}).items())
    return ", ".join(where) + (f"; {versions}" if versions and where else versions)


def reads(explainer: Mapping) -> str:
    """What kind of explainer it was, in parentheses."""
    kind = f"preset {explainer['preset']}" if "preset" in explainer else ""
    if explainer.get("hybrid"):
        kind += (", " if kind else "") + "a hybrid, which sees the classifier's slopes too"
    return f" ({kind})" if kind else ""


def how(results: Mapping) -> str:
    parts = ["<h2>How it was measured</h2>", protocol(results)]
    if "command" in results:
        parts.append(f"<h3>Do it again</h3><pre><code>{escape(str(results['command']))}</code></pre>")
    rows = {}
    for key in ("settings", "explainer", "seconds", "versions"):
        for name, value in results.get(key, {}).items():
            rows[f"{key}: {name.replace('_', ' ')}"] = named(value) if name == "references" else value
    if results.get("data", {}).get("classes"):
        rows["classes"] = results["data"]["classes"]
    body = "".join(f'<tr><th scope="row">{escape(k)}</th><td>{escape(spelled(v))}</td></tr>\n' for k, v in rows.items())
    if rows:
        parts.append(
            f'<h3>All settings</h3><div class="scroll"><table class="plain"><tbody>{body}</tbody></table></div>'
        )
    parts.append(paragraph(f"Every number on this page: {provenance(results)}.", "small"))
    return "".join(parts)


def protocol(results: Mapping) -> str:
    alike: dict[str, list[str]] = {}
    for name, one in results.get("protocol", {}).items():
        alike.setdefault(json.dumps({**one, "reference": ""}, sort_keys=True, default=str), []).append(str(name))
    said = []
    for rest, names in alike.items():
        one = json.loads(rest)
        size = " x ".join(str(length) for length in reversed(one.get("size", [])))
        colors = "; ".join(name if BECAME.get(name, name) == name else f"{name} ({BECAME[name]})" for name in names)
        said.append(
            "The pixels of a picture are ordered by its map, the highest first; equal ones in an order drawn with seed "
            f"{one.get('seed', 'unknown')}. At {one.get('budgets', 'several')} evenly spaced shares, from none to all "
            "of them, the first pixels are replaced (deletion), or all but the first (insertion), and the frozen "
            f"classifier gives its {scores_of(one)} of the explained class. A score is the area under that "
            "curve by the trapezoidal rule, for each picture; the tables show the mean over "
            f"{one.get('pictures', 'the')} pictures{f' of {size} pixels' if size else ''}. What replaces a pixel: "
            f"{colors}. This is the preset {one.get('name', 'unknown')!r}."
        )
    return "".join(paragraph(one) for one in said) or paragraph("The protocol was not recorded.")


def scores_of(description: Mapping) -> str:
    """What the curves are of; results of older versions say it themselves."""
    curves = description.get("curves", {}).values()
    found = [description["score"]] if "score" in description else [str(one).split(", ")[-1] for one in curves]
    return listed(list(dict.fromkeys(map(str, found))) or ["score"])


def named(references) -> list[str]:
    """References, gray levels with what they look like if that has a name.

    >>> named(["black", "1.0", "0.5"])
    ['black', '1.0 (white)', '0.5']
    """
    levels = {name: f"{name} ({became})" for name, became in BECAME.items() if name[0].isdigit()}
    return [levels.get(str(one), str(one)) for one in references]


def spelled(value) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{str(k).replace('_', ' ')} {spelled(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(spelled, value))
    return str(value)
