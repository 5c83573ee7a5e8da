"""What was measured, in words, tables and one HTML file that needs nothing else.

Everything is computed from a plain dict of results, whose parts may be missing: what is not there is not spoken of.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

import PIL.Image

from .modeling.perturbation import ExplainerError
from .show import DENSITY

YARDSTICKS = ("exact_mask", "random")  # no methods: the one knows the answer, the other knows nothing
TRUSTED = 0.9  # accuracy below which a classifier's explanations are not worth reading
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


# ---- what the results say ----


def references(results: Mapping) -> list[str]:
    """Names of the references anything was measured with, in order."""
    names = dict.fromkeys(results.get("protocol", {}))
    for method in results.get("methods", {}).values():
        names |= dict.fromkeys(method.get("references", {}))
    return list(names)


def label_of(results: Mapping, method: str) -> str:
    return str(results.get("methods", {}).get(method, {}).get("label") or method.replace("_", " "))


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
        alike: dict[str, list[str]] = {}  # opponents of whom the same is said
        for opponent, curves in opponents.items():
            alike.setdefault(json.dumps(curves, sort_keys=True), []).append(quoted(label_of(results, opponent)))
        name = quoted(label_of(results, method))
        sentences += [sentence(name, labels, json.loads(said), every) for said, labels in in_order(alike)]
    seen = {str(one["reference"]) for one in results["comparisons"]}
    unseen = [str(one) for one in results.get("unseen", []) if str(one) in seen]
    if unseen:
        sentences.append(
            f"Of these references {listed(unseen)} {'was' if len(unseen) == 1 else 'were'} never trained on."
        )
    return sentences


def in_order(alike: Mapping[str, list[str]]) -> list[tuple[str, list[str]]]:
    """Better throughout first, then what is mixed, then no difference, worse throughout and not measured."""

    def place(said: str) -> int:
        outcomes = {one for curve in json.loads(said).values() for one in curve.values()}
        order = ["better", "", "no difference found", "worse", "not measured"]
        return order.index(outcomes.pop()) if len(outcomes) == 1 else 1

    return sorted(alike.items(), key=lambda item: place(item[0]))


def sentence(name: str, opponents: list[str], curves: dict[str, dict[str, str]], every: list[str]) -> str:
    """What was found between a method and opponents of whom the same is true."""
    outcomes = {one for curve in curves.values() for one in curve.values()}
    grouped: dict[str, list[str]] = {}  # curves on which the same was found
    for curve in sorted(curves):
        grouped.setdefault(json.dumps(curves[curve], sort_keys=True), []).append(curve)
    if len(grouped) == 1 and len(outcomes) == 1:
        where, against = under(next(iter(curves.values())), every), listed(opponents)
        said = {
            "better": f"{name} beats {against}",
            "worse": f"{name} loses to {against}",
            "no difference found": f"no difference was found between {name} and {against}",
            "not measured": f"{name} could not be compared with {against}",
        }[outcomes.pop()]
        return f"{where[0].upper()}{where[1:]}, {said} on {listed(sorted(curves))}."
    parts = []
    for said, names in grouped.items():
        by: dict[str, list[str]] = {}
        for reference in ordered(json.loads(said), every):
            by.setdefault(json.loads(said)[reference], []).append(reference)
        order = [one for one in ("better", "no difference found", "worse", "not measured") if one in by]
        parts.append(f"on {listed(names)}, " + ", ".join(f"{one} {under(by[one], every)}" for one in order))
    return f"Against {listed(opponents)}, {name} is mixed: {'; '.join(parts)}."


def ordered(names: Iterable[str], every: list[str]) -> list[str]:
    return sorted(names, key=lambda name: every.index(name) if name in every else len(every))


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


# ---- tables ----


@dataclass(frozen=True)
class Cell:
    """A number as it is printed, its interval ("" if unknown), and whether it is the best of its column."""

    text: str = "–"
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Column:
    """Its name, whether lower or higher is better, and whether it is a reference nothing was trained on."""

    name: str
    better: str
    unseen: bool = False


@dataclass(frozen=True)
class Table:
    """rows: label, whether it is a yardstick, and a cell per column."""

    title: str
    columns: list[Column]
    rows: list[tuple[str, bool, list[Cell]]]


def tables(results: Mapping) -> dict[str, Table]:
    """deletion and insertion (methods x references) and more (localization, classes and time), those that have rows."""
    unseen = [str(one) for one in results.get("unseen", [])]
    made = {}
    for curve, better in BETTER.items():
        columns = [Column(name, better, name in unseen) for name in references(results)]

        def of_reference(method, index, curve=curve, columns=columns):
            return method.get("references", {}).get(columns[index].name, {}).get(curve)

        made[curve] = make_table(results, f"{curve.capitalize()} ({better} is better)", columns, of_reference)
    keys = [key for key in MORE if any(key in one for one in results.get("methods", {}).values())]
    columns = [Column(MORE[key][0], MORE[key][1]) for key in keys]
    made["more"] = make_table(results, "Place, class and time", columns, lambda method, index: method.get(keys[index]))
    return {name: one for name, one in made.items() if one.rows and one.columns}


def make_table(results: Mapping, title: str, columns: list[Column], find) -> Table:
    methods = results.get("methods", {})
    names = [m for m in methods if m not in YARDSTICKS] + [m for m in methods if m in YARDSTICKS]
    values = {m: [interval(find(methods[m], index)) for index in range(len(columns))] for m in names}
    rows = []
    for name in names:
        row = []
        for index, column in enumerate(columns):
            digits = 1 if column.name == MORE["ms"][0] else 3
            mean, low, high = values[name][index]
            rivals = [round(values[m][index][0], digits) for m in names if m not in YARDSTICKS]
            rivals = [one for one in rivals if not math.isnan(one)]
            first = (min if column.better == "lower" else max)(rivals, default=math.nan)
            best = len(rivals) > 1 and name not in YARDSTICKS and round(mean, digits) == first
            ends = "" if math.isnan(low) or math.isnan(high) else f"{low:.{digits}f}–{high:.{digits}f}"
            row.append(Cell("–" if math.isnan(mean) else f"{mean:.{digits}f}", ends, best))
        rows.append((label_of(results, name), name in YARDSTICKS, row))
    return Table(title, columns, rows if any(c.text != "–" for _, _, row in rows for c in row) else [])


def table(results: Mapping, name: str | None = None, style: str = "markdown") -> str:
    """A table of the results, "deletion", "insertion" or "more", or all one after the other, with where it comes from.

    `style`: "markdown" as GitHub reads it, or "text" for a terminal. The best of a column is bold, or starred.
    """
    every = tables(results)
    if style not in ("markdown", "text") or (name is not None and name not in (*BETTER, "more")):
        raise ExplainerError(
            f"table {name!r} in style {style!r}; choose from deletion, insertion, more, or None for all of them, and "
            "from markdown, text."
        )
    chosen = [one for key, one in every.items() if name in (None, key)]
    write = as_markdown if style == "markdown" else as_text
    return "\n\n".join([write(one) for one in chosen] + [provenance(results) + "."])


def as_markdown(one: Table) -> str:
    def clean(text: str) -> str:
        return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())

    def cell(c: Cell) -> str:
        text = f"**{c.text}**" if c.best else c.text
        return f"{text} ({c.interval})" if c.interval else text

    heads = [clean(c.name) + (" (never trained on)" if c.unseen else "") for c in one.columns]
    lines = [[one.title, *heads], ["---"] + ["---:"] * len(heads)]
    lines += [[f"*{clean(label)}*" if gray else clean(label), *map(cell, row)] for label, gray, row in one.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_text(one: Table) -> str:
    heads = [[c.name, "never trained on" if c.unseen else ""] for c in one.columns]
    body = [[f"{c.text}{'*' if c.best else ' '} {c.interval}".rstrip() for c in row] for _, _, row in one.rows]
    # Numbers stand under one another: intervals are padded to the same length.
    lines = [["", *(h[0] for h in heads)]] + ([["", *(h[1] for h in heads)]] if any(h[1] for h in heads) else [])
    lines += [[label, *cells] for (label, _, _), cells in zip(one.rows, body)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads) + 1)]
    printed = ["  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in lines]
    return "\n".join([f"{one.title}; * is the best", *printed])


# ---- the page ----

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--card:#f5f6f8;--ink:#1b1d22;--faint:#5b616b;--line:#dfe2e7;--mark:#0b5cad;
--best:#dcecfb;--bar:#0072b2;--bad:#a4161a;--badcard:#fdeceb}
@media(prefers-color-scheme:dark){:root{--paper:#14161a;--card:#1e2127;--ink:#e7e9ed;--faint:#a2a8b3;--line:#353a43;
--mark:#8cc4ff;--best:#173a5c;--bar:#56b4e9;--bad:#ffb3ab;--badcard:#45191a}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:17px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;-webkit-text-size-adjust:100%}
main{max-width:1080px;margin:0 auto;padding:40px 24px 64px}
h1{font-size:2.1rem;line-height:1.2;margin:0 0 .4em;letter-spacing:-.015em;text-wrap:balance}
h2{font-size:1.4rem;line-height:1.3;margin:2.4em 0 .5em;letter-spacing:-.01em}
h3{font-size:1.05rem;margin:1.8em 0 .4em}
p,ul,ol,dl{max-width:46rem;margin:.6em 0}li{margin:.35em 0}
.lead{font-size:1.1rem;color:var(--faint)}.small{font-size:.87rem;color:var(--faint)}
.box{background:var(--card);border-left:4px solid var(--mark);border-radius:4px 10px 10px 4px;padding:.9em 1.2em;
margin:1.6em 0}
.box h2{margin:0 0 .2em;font-size:1.1rem}.box ul{margin:.2em 0;padding-left:1.15em;max-width:none}
.box p{max-width:none;margin:.2em 0}
.warning{background:var(--badcard);border-color:var(--bad)}.warning strong{color:var(--bad)}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:1.6em 0;max-width:none}
.facts div{background:var(--card);border-radius:10px;padding:.7em .9em;display:flex;flex-direction:column;
justify-content:space-between}
.facts dt{font-size:.82rem;line-height:1.35;color:var(--faint)}
.facts dd{margin:0;font-size:1.35rem;font-weight:650;line-height:1.3;overflow-wrap:anywhere}
figure{margin:1.2em 0}figcaption{margin-top:.5em;max-width:46rem;font-size:.92rem;color:var(--faint)}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
.scroll:focus-visible{outline:2px solid var(--mark);outline-offset:2px}
figure .scroll{background:#fff;border:1px solid var(--line);border-radius:10px}
img{display:block;max-width:100%;height:auto;margin:0 auto}
table{border-collapse:collapse;font-size:.93rem;font-variant-numeric:tabular-nums;min-width:100%}
caption{text-align:left;font-weight:650;padding:.4em 0}
th,td{padding:.45em .75em;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
thead th{border-bottom:2px solid var(--line);font-size:.87rem;line-height:1.35;vertical-align:bottom}
tbody th{font-weight:500;position:sticky;left:0;background:var(--paper);min-width:8rem}
td small{display:block;color:var(--faint);font-size:.8rem;line-height:1.3;white-space:nowrap}
td.best{background:var(--best)}td.best b::after{content:" \\2605";color:var(--mark);font-size:.8em}
tr.yardstick th,tr.yardstick td{color:var(--faint);font-style:italic}
.badge{display:block;color:var(--mark);font-weight:500;font-size:.78rem;white-space:nowrap}
.bars{min-width:0;width:100%;max-width:34rem}
.bars td,.bars th{padding:.25em .6em .25em 0;border:0;vertical-align:middle}
.bars tbody th{min-width:0;width:7.5rem;white-space:nowrap}.bars td:last-child{width:4rem;text-align:right}
.bar{display:block;height:.85em;border-radius:3px;background:var(--bar);min-width:2px}
pre,code{font:.9rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{background:var(--card);border-radius:8px;padding:.8em 1em;white-space:pre-wrap;overflow-wrap:anywhere}
.plain th{font-weight:500;color:var(--faint);white-space:nowrap}.plain td{overflow-wrap:anywhere}.plain{min-width:0}
.plain tbody th{min-width:0}.hint{display:none}
@media(max-width:700px){body{font-size:16px}main{padding:24px 16px 48px}h1{font-size:1.65rem}
.facts{grid-template-columns:1fr 1fr}.wide img{max-width:none}.hint{display:block}th,td{padding:.45em .55em}
tbody th{min-width:6.5rem;max-width:9rem}}
@media print{:root{--paper:#fff;--card:#f5f6f8;--ink:#000;--faint:#444;--line:#ccc;--mark:#0b5cad;--best:#dcecfb;
--bar:#0072b2;--bad:#a4161a;--badcard:#fdeceb}body{font-size:10.5pt}main{padding:0;max-width:none}
.scroll{overflow:visible}.wide img{max-width:100%}.hint{display:none}tbody th{position:static}
figure,tr,.box,.facts div,article{break-inside:avoid}h2,h3,caption{break-after:avoid}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""
# Nothing is fetched, whatever a label may hold.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(path, results: Mapping, pictures: Mapping[str, PIL.Image.Image] | None = None) -> Path:
    """Where the page was written: one HTML file with its pictures inside, which makes no request.

    Args:
        results: a dict as JSON knows it; see the demo's `metrics.json`. Its optional "definitions" replace what is
            said of a measure.
        pictures: "overlays", "curves", "success" and "failure", those that are there.
    """
    pictures = pictures or {}
    title = "Which pixels made the classifier say that?"
    parts = [
        f"<h1>{title}</h1>",
        '<p class="lead">An explainer was trained for one image classifier, and its maps were measured beside those of '
        "other methods. This page says what was done, what came out, and how far it can be trusted.</p>",
        alarm(results),
        box("What came out", headline(results)),
        facts(results),
        what_was_done(results),
        maps(results, pictures),
        faithfulness(results, pictures),
        place_and_time(results),
        masking(results),
        cases(results, pictures),
        reading(results),
        how(results),
    ]
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>hf-explain: {title}</title>\n<style>{STYLE}</style>\n</head>\n'
        "<body>\n<main>\n" + "\n".join(part for part in parts if part) + "\n</main>\n</body>\n</html>\n"
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def whole(value) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def box(title: str, sentences: list[str]) -> str:
    items = "".join(f"<li>{escape(one)}</li>" for one in sentences)
    return f'<section class="box"><h2>{escape(title)}</h2><ul>{items}</ul></section>'


def alarm(results: Mapping) -> str:
    said = warning(results)
    if not said:
        return ""
    return f'<section class="box warning" role="alert"><p><strong>Warning.</strong> {escape(said)}</p></section>'


def picture(image: PIL.Image.Image, alt: str, caption: str) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    source = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    width, height = round(image.width / DENSITY), round(image.height / DENSITY)
    hint = '<p class="small hint">Swipe sideways to see all of it.</p>' if width > 340 else ""
    return (
        f'<figure class="wide"><div class="scroll" tabindex="0" role="group" aria-label="{escape(alt)}">'
        f'<img src="{source}" width="{width}" height="{height}" alt="{escape(alt)}"></div>{hint}'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def facts(results: Mapping) -> str:
    classifier, explainer = results.get("classifier", {}), results.get("explainer", {})
    learned = results.get("methods", {}).get("learned", {})
    shown = {
        "accuracy of the classifier": (classifier.get("accuracy"), percent),
        "parameters of the classifier": (classifier.get("parameters"), whole),
        "parameters of the explainer": (explainer.get("parameters"), whole),
        "pictures measured": (results.get("data", {}).get("report", {}).get("pictures"), whole),
        "ms per learned map": (learned.get("ms"), "{:.1f}".format),
        "minutes for everything": (results.get("minutes"), "{:.1f}".format),
    }
    known = {name: write(value) for name, (value, write) in shown.items() if not math.isnan(number(value))}
    items = [f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in known.items()]
    return f'<dl class="facts">{"".join(items)}</dl>' if items else ""


def reads(explainer: Mapping) -> str:
    """What kind of explainer it was, in parentheses."""
    kind = f"preset {explainer['preset']}" if "preset" in explainer else ""
    if explainer.get("hybrid"):
        kind += (", " if kind else "") + "a hybrid, which sees the classifier's slopes too"
    return f" ({escape(kind)})" if kind else ""


def what_was_done(results: Mapping) -> str:
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
                "choosing the settings of the other methods, so that each is shown at its best."
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
    seeds = trainings(results)
    where = [f"Seed{'s' * (len(seeds) > 1)} {listed(seeds)}"] if seeds else []
    where += [f"on {results['device']}"] if "device" in results else []
    where += [f"in {results['minutes']:.1f} minutes"] if results.get("minutes") is not None else []
    versions = ", ".join(f"{name} {version}" for name, version in results.get("versions", {}).items())
    line = ", ".join(where) + (f"; {versions}" if versions and where else versions)
    if not steps and not line:
        return ""
    items = "".join(f"<li>{escape(one)}</li>" for one in steps)
    return f"<h2>What was done</h2><ol>{items}</ol>" + (paragraph(line + ".", "small") if line else "")


def maps(results: Mapping, pictures: Mapping[str, PIL.Image.Image]) -> str:
    if "overlays" not in pictures:
        return ""
    names = listed([label_of(results, m) for m in results.get("methods", {})] or ["several methods"])
    return "<h2>The maps</h2>" + picture(
        pictures["overlays"],
        f"One row per picture: the picture, its evidence, and the maps of {names}.",
        "One row per picture. A map is laid over the picture in gray: the brighter a pixel, the more the classifier is "
        "said to rely on it for its class. Where the evidence is known it is outlined; a good map need not fill it, "
        "since a part of a stripe pattern can be enough. Only the order of the pixels within one map has a meaning.",
    )


def faithfulness(results: Mapping, pictures: Mapping[str, PIL.Image.Image]) -> str:
    made = tables(results)
    if "curves" not in pictures and not set(made) & set(BETTER):
        return ""
    parts = [
        "<h2>Are the maps faithful?</h2>",
        "<p><strong>Deletion</strong> removes the pixels a map calls most important first. If the map is right, the "
        "probability of the class falls at once: a small area under the curve is good. <strong>Insertion</strong> "
        "starts with nothing and brings the same pixels back first: a large area is good. Read both together, since "
        "noise that merely disturbs the classifier can do well on deletion alone.</p>",
    ]
    if "curves" in pictures:
        parts.append(
            picture(
                pictures["curves"],
                "Deletion and insertion curves of every method.",
                "Mean over the pictures; the shade is its 95 % interval. Gray and dashed: yardsticks, not methods.",
            )
        )
    parts += [as_html(made[curve]) for curve in BETTER if curve in made]
    unseen = [str(one) for one in results.get("unseen", [])]
    note = "Area under the curve, mean over the pictures, with its 95 % interval below."
    if set(made) & set(BETTER):
        note += (
            " Columns: what removed pixels became. ★ marks the best mean of a column; whether it is more than chance "
        )
        note += "is said at the top, where methods are compared picture by picture."
        if unseen:
            note += f" Nothing was trained on {listed(unseen)}: that column shows what carries over."
        parts.append(paragraph(note, "small"))
        parts.append(yardsticks(results))
    return "".join(parts)


def yardsticks(results: Mapping) -> str:
    said = {
        "exact_mask": "ranks the true evidence first. It knows where the pixels are, not which of them the classifier "
        "needs, so a method can beat it.",
        "random": "ranks pixels by chance: the floor.",
    }
    lines = [f"“{label_of(results, m)}” {said[m]}" for m in YARDSTICKS if m in results.get("methods", {})]
    return paragraph("In italics, yardsticks: " + " ".join(lines), "small") if lines else ""


def as_html(one: Table) -> str:
    heads = "".join(
        f'<th scope="col">{escape(c.name)}{"<span class=badge>never trained on</span>" if c.unseen else ""}</th>'
        for c in one.columns
    )
    rows = ""
    for label, gray, cells in one.rows:
        kind = ' class="yardstick"' if gray else ""
        rows += f'<tr{kind}><th scope="row">{escape(label)}</th>'
        for c in cells:
            text, small = escape(c.text), f"<small>{escape(c.interval)}</small>" if c.interval else ""
            rows += f'<td class="best"><b>{text}</b>{small}</td>' if c.best else f"<td>{text}{small}</td>"
        rows += "</tr>\n"
    return (
        f'<h3>{escape(one.title)}</h3><div class="scroll" tabindex="0" role="group" aria-label="{escape(one.title)}">'
        f'<table><thead><tr><th scope="col">map of</th>{heads}</tr></thead>\n<tbody>{rows}</tbody></table></div>'
    )


def place_and_time(results: Mapping) -> str:
    one = tables(results).get("more")
    if not one:
        return ""
    shown, own = {column.name for column in one.columns}, results.get("definitions", {})
    said = {name: str(own.get(key, text)) for key, (name, _, text) in MORE.items() if name in shown}
    items = "".join(f"<li><strong>{escape(name)}</strong>: {escape(text)}</li>" for name, text in said.items())
    return (
        "<h2>Do they point at the evidence, and what do they cost?</h2><p>The pictures were drawn, so the exact "
        "evidence is known. Pointing at it is not the same as being faithful: a classifier may use less than all of "
        "it.</p>"
        f"<ul>{items}</ul>{as_html(one)}"
    )


def masking(results: Mapping) -> str:
    found = results.get("classifier", {}).get("accuracy_when_masked", {})
    found = {number(float(share)): number(accuracy) for share, accuracy in found.items()}
    found = {share: found[share] for share in sorted(found) if not math.isnan(found[share])}
    if not found:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{100 * share:.0f} % hidden</th>'
        f'<td><span class="bar" style="width:{100 * accuracy:.1f}%"></span></td><td>{percent(accuracy)}</td></tr>\n'
        for share, accuracy in found.items()
    )
    count = len(results.get("data", {}).get("classes", []))
    chance = f" Guessing among {count} classes would give {percent(1 / count)}." if count else ""
    return (
        "<h2>Can the classifier cope with missing pixels?</h2><p>Deletion and insertion show it pictures with holes. "
        "If it only stumbled over holes, the curves would measure surprise. This is its accuracy when a random part of "
        f'each picture is hidden.{chance}</p><table class="bars"><tbody>{rows}</tbody></table>'
    )


def cases(results: Mapping, pictures: Mapping[str, PIL.Image.Image]) -> str:
    titles, parts, drawn = {"success": "Where it worked best", "failure": "Where it worked worst"}, [], set()
    found = list(results.get("cases", []))
    found += [{"kind": kind} for kind in titles if kind in pictures and kind not in {c.get("kind") for c in found}]
    for case in found:
        kind, name = str(case.get("kind", "")), case.get("label")
        parts.append(
            f"<article><h3>{escape(titles.get(kind, kind.capitalize()))}{f': {escape(str(name))}' if name else ''}</h3>"
        )
        scores = [f"{c} {case[c]:.3f} ({BETTER[c]} is better)" for c in BETTER if not math.isnan(number(case.get(c)))]
        scores += [f"picture {case['image']} of those measured"] if "image" in case else []
        if kind in pictures and kind not in drawn:
            drawn.add(kind)
            parts.append(picture(pictures[kind], f"{titles.get(kind, kind)}: {name or 'a picture'}", ", ".join(scores)))
        elif scores:
            parts.append(paragraph(", ".join(scores), "small"))
        parts.append((paragraph(str(case["text"])) if case.get("text") else "") + "</article>")
    return "<h2>Single pictures, looked at closely</h2>" + "".join(parts) if parts else ""


def reading(results: Mapping) -> str:
    count, several = len(results.get("comparisons", [])), len(trainings(results)) > 1
    chance = (
        f"That each difference is real. {count} comparisons were made, each with a 95 % interval of its own: were "
        "there no differences at all, about one in 20 would still look like one."
    )
    do = [
        "How much this classifier relies on the pixels a map ranks first, for these pictures and these references.",
        f"How much the means would move with other pictures of the same kind{' and other seeds' * several}: that is "
        "what the intervals cover.",
    ]
    do_not = [
        "Whether the classifier is right, or whether its reasons are good ones.",
        "Anything about another classifier, about photographs, or about a reference that is not in the table.",
        "How much more one pixel matters than another. A map ranks pixels; its brightness is no amount.",
    ]
    do_not += (
        [] if several else ["How much another training would differ: one was made, the intervals do not cover it."]
    )
    do_not += [chance] if count else []

    def items(sentences: list[str]) -> str:
        return "<ul>" + "".join(f"<li>{escape(one)}</li>" for one in sentences) + "</ul>"

    return f"<h2>What the numbers say</h2>{items(do)}<h2>What they do not say</h2>{items(do_not)}"


def how(results: Mapping) -> str:
    parts = ["<h2>How it was measured</h2>", protocol(results)]
    if "command" in results:
        parts.append(f"<h3>Do it again</h3><pre><code>{escape(str(results['command']))}</code></pre>")
    rows = {}
    for key in ("settings", "explainer", "seconds", "versions"):
        for name, value in results.get(key, {}).items():
            rows[f"{key}: {name.replace('_', ' ')}"] = value
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
            f"classifier gives its {one.get('score', 'score')} of the explained class. A score is the area under that "
            "curve by the trapezoidal rule, for each picture; the tables show the mean over "
            f"{one.get('pictures', 'the')} pictures{f' of {size} pixels' if size else ''}. What replaces a pixel: "
            f"{colors}. This is the preset {one.get('name', 'unknown')!r}."
        )
    return "".join(paragraph(one) for one in said) or paragraph("The protocol was not recorded.")


def spelled(value) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{str(k).replace('_', ' ')} {spelled(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(spelled, value))
    return str(value)
