"""The report: one HTML file that needs nothing else. Its words are in page.html."""

from __future__ import annotations

import base64
import functools
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import PIL.Image

from .findings import (
    BETTER,
    MORE,
    alike,
    circumstances,
    headline,
    label_of,
    listed,
    look_of,
    number,
    percent,
    provenance,
    spelled,
    trainings,
    warning,
)
from .lettering import DENSITY
from .tables import tables

if TYPE_CHECKING:
    import jinja2

# What the template asks for, where results do not hold it.
GAPS: dict[str, object] = {
    "backbone": "image", "size": None, "command": None, "data": {}, "classifier": {}, "explainer": {}, "unseen": [],
    "comparisons": [], "cases": [],
}  # fmt: skip


def write_report(path, results: Mapping, pictures: Mapping[str, PIL.Image.Image] | None = None) -> Path:
    """Where the page was written: one HTML file with its pictures inside, which makes no request.

    Args:
        results: a dict as JSON knows it; see the demo's `metrics.json`. Its optional "definitions" replace what is
            said of a measure.
        pictures: "overlays", "curves" and those under other references ("curves, blur"), "success" and "failure": those
            that are there.
    """
    page = template().render(shown(results, pictures or {}))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


@functools.cache
def template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"listed": listed, "look": look_of, "percent": percent}
    return environment.get_template("page.html")


def shown(results: Mapping, pictures: Mapping[str, PIL.Image.Image]) -> dict:
    """The parts of the results by their names, and what is computed of them."""
    made = tables(results)
    figures = {name: figure(image) for name, image in pictures.items()}
    return {
        **GAPS,
        **results,
        "warning": warning(results),
        "headline": headline(results),
        "facts": facts(results),
        "circumstances": circumstances(results),
        "figures": figures,
        "under": {key.removeprefix("curves, "): one for key, one in figures.items() if key.startswith("curves, ")},
        "labels": {method: label_of(results, method) for method in results.get("methods", {})},
        "areas": [made[curve] for curve in BETTER if curve in made],
        "place": made.get("more"),
        "measures": {name: results.get("definitions", {}).get(key, text) for key, (name, _, text) in MORE.items()},
        "seeds": trainings(results),
        "protocols": protocols(results),
        "settings": settings(results),
        "provenance": provenance(results),
    }


def figure(image: PIL.Image.Image) -> dict:
    """What an <img> needs: the picture itself, and its size in CSS pixels."""
    file = io.BytesIO()
    image.save(file, "PNG")
    source = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return {"source": source, "width": round(image.width / DENSITY), "height": round(image.height / DENSITY)}


def facts(results: Mapping) -> dict[str, str]:
    """The numbers that say how large it all was, as they are printed: those that are known."""
    classifier, explainer = results.get("classifier", {}), results.get("explainer", {})
    whole, tenths = "{:,}".format, "{:.1f}".format
    known = {
        "accuracy of the classifier": (classifier.get("accuracy"), percent),
        "parameters of the classifier": (classifier.get("parameters"), whole),
        "parameters of the explainer": (explainer.get("parameters"), whole),
        "pictures measured": (results.get("data", {}).get("report", {}).get("pictures"), whole),
        "ms per learned map": (results.get("methods", {}).get("learned", {}).get("ms"), tenths),
        "minutes for everything": (results.get("minutes"), tenths),
    }
    return {name: write(value) for name, (value, write) in known.items() if not math.isnan(number(value))}


def settings(results: Mapping) -> dict[str, str]:
    """Every setting and version, by the part of the results it is in."""
    rows = {
        f"{part}: {name.replace('_', ' ')}": spelled(named(value) if name == "references" else value)
        for part in ("settings", "explainer", "seconds", "versions")
        for name, value in results.get(part, {}).items()
    }
    classes = results.get("data", {}).get("classes")
    return rows | ({"classes": spelled(classes)} if classes else {})


def protocols(results: Mapping) -> list[dict]:
    """The protocols that differ in more than the reference, each with its "replacements" and the "scores" it is of."""
    found = alike({name: {**one, "reference": ""} for name, one in results.get("protocol", {}).items()})
    return [
        {**one, "replacements": [with_look(name) for name in names], "scores": scores_of(one)} for one, names in found
    ]


def scores_of(protocol: Mapping) -> list[str]:
    """What the curves are of; results of older versions say it themselves.

    >>> scores_of({"curves": {"deletion": "deletion, probability", "insertion": "insertion, probability"}})
    ['probability']
    """
    if "score" in protocol:
        return [str(protocol["score"])]
    return list(dict.fromkeys(str(one).split(", ")[-1] for one in protocol.get("curves", {}).values())) or ["score"]


def named(references) -> list[str]:
    """References, gray levels with what they look like if that has a name.

    >>> named(["black", "1.0", "0.5"])
    ['black', '1.0 (white)', '0.5']
    """
    return [with_look(name) if name[0].isdigit() else name for name in map(str, references)]


def with_look(reference: str) -> str:
    look = look_of(reference)
    return reference if look == reference else f"{reference} ({look})"
