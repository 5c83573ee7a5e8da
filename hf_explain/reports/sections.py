"""The sections of the report, each a piece of HTML made from the results; empty where there is nothing to say."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from html import escape

import PIL.Image

from .findings import BETTER, MORE, YARDSTICKS, label_of, listed, number, percent, trainings, warning
from .lettering import DENSITY
from .tables import Table, tables

SWIPE = '<p class="small hint">Swipe sideways to see all of it.</p>'  # shown on a phone


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
    hint = SWIPE if width > 340 else ""
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
        parts.append(other_curves(pictures))
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


def other_curves(pictures: Mapping[str, PIL.Image.Image]) -> str:
    """Of the other references, on demand."""
    others = {key.partition(", ")[2]: image for key, image in pictures.items() if key.startswith("curves, ")}
    if not others:
        return ""
    figures = [
        picture(image, f"Deletion and insertion curves of every method, under {name}.", f"As above, under {name}.")
        for name, image in others.items()
    ]
    summary = f"The same under {listed(list(others))}"
    return f"<details><summary>{escape(summary)}</summary>{''.join(figures)}</details>"


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
    hint = SWIPE if len(one.columns) > 2 else ""  # before the table, which may be longer than the screen
    return (
        f"<h3>{escape(one.title)}</h3>{hint}"
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(one.title)}">'
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
