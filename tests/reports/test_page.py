"""The report's sentences follow the numbers, favorable or not, and its one file needs nothing else."""

import base64
import copy
import io
import json
import re

import PIL.Image
import pytest
from report_cases import page_of

from hf_explain.faithfulness.protocols import PRESETS, read_protocol
from hf_explain.reports.findings import headline, provenance
from hf_explain.reports.tables import table, tables


@pytest.fixture
def made_up_pictures():
    sizes = {"overlays": (120, 90), "curves": (160, 80), "curves, blur": (160, 60), "success": (80, 40)}
    sizes["failure"] = (80, 40)
    return {name: PIL.Image.new("RGB", size, (i * 60, 90, 200)) for i, (name, size) in enumerate(sizes.items())}


# ---- how it was measured ----


def test_the_account_names_what_the_curves_are_of(tmp_path, made_up_results):
    """As `Protocol.describe` tells it now, and as results of older versions do."""

    def said_of(**protocol):
        return page_of(tmp_path, {"protocol": protocol})[1].text

    of_now = PRESETS["aha"].describe() | {"reference": "black"}
    assert "gives its probability of the explained class" in said_of(black=of_now)
    assert "gives its probability of the explained class" in said_of(**made_up_results["protocol"])
    assert "gives its logit of the explained class" in said_of(
        black=read_protocol("aha", {"score": "logit"}).describe()
    )
    assert "gives its score of the explained class" in said_of(black=of_now | {"curves": {}})


def test_protocols_that_differ_are_told_one_by_one(tmp_path, made_up_results):
    text = page_of(tmp_path, made_up_results)[1].text
    assert text.count("What replaces a pixel:") == 1
    assert "black; mean (the mean color of ImageNet); blur (a strong blur of the picture itself); noise (" in text
    made_up_results["protocol"]["noise"]["budgets"] = 11
    text = page_of(tmp_path, made_up_results)[1].text
    assert "At 21 evenly" in text and "At 11 evenly" in text and text.count("What replaces a pixel:") == 2


def test_settings_name_a_gray_level(tmp_path, made_up_results):
    made_up_results["explainer"]["references"] = ["black", "1.0", "0.5"]
    made_up_results["settings"] = {"references": ["noise", "1.0"]}
    html, _ = page_of(tmp_path, made_up_results)
    assert "explainer: references</th><td>black, 1.0 (white), 0.5</td>" in html
    assert "settings: references</th><td>noise, 1.0 (white)</td>" in html


# ---- the page ----


def test_page_is_well_formed_and_asks_for_nothing(tmp_path, made_up_results, made_up_pictures):
    html, page = page_of(tmp_path, made_up_results, made_up_pictures)
    assert page.addresses and all(address.startswith("data:") for address in page.addresses)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<script|\son\w+=", re.sub(r'"data:[^"]*"', "", html))
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert ("html", {"lang": "en"}) in page.tags and any(a.get("name") == "viewport" for _, a in page.tags)
    assert "prefers-color-scheme:dark" in html and "@media print" in html and "max-width:700px" in html
    assert "nan" not in page.text.lower().split() and "None" not in page.text and "{" not in page.text


def test_every_number_is_on_the_page(tmp_path, made_up_results, made_up_pictures):
    page = page_of(tmp_path, made_up_results, made_up_pictures)[1]
    for one in tables(made_up_results).values():
        for label, _, row in one.rows:
            for text in [label] + [t for cell in row for t in (cell.text, cell.interval)]:
                assert text in page.text
    for text in (*headline(made_up_results), made_up_results["command"], provenance(made_up_results)):
        assert text in page.text
    for accuracy in made_up_results["classifier"]["accuracy_when_masked"].values():
        assert f"{100 * accuracy:.1f} %" in page.text
    for case in made_up_results["cases"]:
        assert case["text"] in page.text and f"{case['deletion']:.3f}" in page.text and case["label"] in page.text
    for text in ("91,345", "versions: torch", "2.13.0", "10000", "never trained on", "small", "47.7"):
        assert text in page.text


def test_pictures_decode_and_are_described(tmp_path, made_up_results, made_up_pictures):
    page = page_of(tmp_path, made_up_results, made_up_pictures)[1]
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    found = [PIL.Image.open(io.BytesIO(base64.b64decode(a["src"].partition(",")[2]))) for a in images]
    assert [one.size for one in found] == [one.size for one in made_up_pictures.values()]
    for attributes, image in zip(images, found):
        assert attributes["alt"] and int(attributes["width"]) * 2 == image.width
        assert image.convert("RGB").getpixel((0, 0))[1:] == (90, 200)


def test_other_references_open_on_demand(tmp_path, made_up_results, made_up_pictures):
    page = page_of(tmp_path, made_up_results, made_up_pictures | {"curves, noise": made_up_pictures["curves"]})[1]
    assert "The same under blur and noise" in page.text
    assert [tag for tag, _ in page.tags].count("details") == 1
    assert "As above, under blur." in page.text and "As above, under noise." in page.text
    del made_up_pictures["curves, blur"]
    assert "The same under" not in page_of(tmp_path, made_up_results, made_up_pictures)[1].text


def test_a_wide_table_says_that_it_can_be_swiped(tmp_path, made_up_results):
    swipe = "Swipe sideways"
    assert page_of(tmp_path, made_up_results)[0].count(swipe) == 3  # there are no pictures
    for method in made_up_results["methods"].values():
        method["references"] = {"black": method["references"]["black"]}
    made_up_results["protocol"] = {"black": made_up_results["protocol"]["black"]}
    assert page_of(tmp_path, made_up_results)[0].count(swipe) == 1  # place, class and time


EVIL = ["<script>alert('1')</script>\"&amp;", '"><img src=x onerror=alert(1)>', "' onload='alert(1)", "{{ 7 * 7 }}"]
PLACES = {
    "label of a method": (lambda r, evil: r["methods"]["learned"].update(label=evil), 4),
    "label of a yardstick": (lambda r, evil: r["methods"]["random"].update(label=evil), 4),
    "name of a class": (lambda r, evil: r["data"]["classes"].insert(0, evil), 1),
    "class of a case": (lambda r, evil: r["cases"][0].update(label=evil), 1),
    "text of a case": (lambda r, evil: r["cases"][0].update(text=evil), 1),
    "command": (lambda r, evil: r.update(command=evil), 1),
    "device": (lambda r, evil: r.update(device=evil), 2),
    "backbone": (lambda r, evil: r.update(backbone=evil), 2),
    "version": (lambda r, evil: r["versions"].update({evil: evil}), 4),
    "path in the settings": (lambda r, evil: r.update(settings={evil: evil, "output_dir": [evil]}), 3),
    "reference": (lambda r, evil: r["protocol"].update({evil: r["protocol"]["black"]}), 3),
    "reference never trained on": (lambda r, evil: r["unseen"].append(evil), 1),
    "reference of the training": (lambda r, evil: r["explainer"]["references"].append(evil), 2),
    "protocol": (lambda r, evil: [one.update(name=evil) for one in r["protocol"].values()], 2),
    "preset": (lambda r, evil: r["explainer"].update(preset=evil), 3),
    "definition of a measure": (lambda r, evil: r.update(definitions={"ms": evil}), 1),
}


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("place", PLACES)
def test_what_others_named_is_escaped(tmp_path, made_up_results, made_up_pictures, place, evil):
    """In text and in attributes: the page has the tags and the attributes it has without, and shows what was named."""

    def shape(page):
        return [
            (tag, sorted(attributes)) for tag, attributes in page.tags if tag not in ("tr", "th", "td", "b", "small")
        ]

    before = page_of(tmp_path, made_up_results, made_up_pictures)[1]
    insert, least = PLACES[place]
    insert(made_up_results, evil)
    html, page = page_of(tmp_path, made_up_results, made_up_pictures)
    assert shape(page) == shape(before) and "<script" not in html
    assert all(address.startswith("data:") for address in page.addresses)
    assert page.text.count(evil) >= least
    assert {name for _, attributes in page.tags for name in attributes} == {
        name for _, attributes in before.tags for name in attributes
    }


def test_names_of_figures_are_escaped(tmp_path, made_up_results, made_up_pictures):
    """Of references, in the alternative text, the caption and the summary."""
    for evil in EVIL:
        pictures = made_up_pictures | {f"curves, {evil}": made_up_pictures["curves"]}
        made_up_results["methods"]["learned"]["label"] = made_up_results["cases"][0]["label"] = evil
        html, page = page_of(tmp_path, made_up_results, pictures)
        images = [attributes for tag, attributes in page.tags if tag == "img"]
        assert [sorted(one) for one in images] == [["alt", "height", "src", "width"]] * 6 and "<script" not in html
        assert sum(evil in one["alt"] for one in images) == 3
        assert f"The same under blur and {evil}" in page.text and f"As above, under {evil}." in page.text
        assert sum(evil in attributes.get("aria-label", "") for _, attributes in page.tags) == 3


def test_any_part_may_be_missing(tmp_path, made_up_results, made_up_pictures):
    page = page_of(tmp_path, {})[1]
    assert "nothing is claimed" in page.text and "best mean" not in page.text
    for key in made_up_results:
        fewer = {k: v for k, v in made_up_results.items() if k != key}
        page_of(tmp_path, fewer, made_up_pictures), table(fewer, style="text"), table(fewer)
    for inner in ("data", "classifier", "explainer"):
        for key in made_up_results[inner]:
            fewer = copy.deepcopy(made_up_results)
            del fewer[inner][key]
            page_of(tmp_path, fewer)
    for key in ("label", "ms", "references", "pointing_game", "average_precision"):
        fewer = copy.deepcopy(made_up_results)
        for method in fewer["methods"].values():
            del method[key]
        page_of(tmp_path, fewer), table(fewer)


def test_results_may_come_from_a_file(tmp_path, made_up_results):
    written = json.loads(json.dumps(made_up_results))
    assert page_of(tmp_path, written)[0] == page_of(tmp_path, made_up_results)[0]


def test_a_measure_may_be_defined_by_the_results(tmp_path, made_up_results):
    made_up_results["definitions"] = {"class_discrimination": "what we say it is."}
    assert "class discrimination: what we say it is." in page_of(tmp_path, made_up_results)[1].text


def test_only_what_was_tuned_is_said_to_be(tmp_path, made_up_results):
    text = page_of(tmp_path, made_up_results)[1].text
    assert "50 other pictures (seed 1) were for choosing how widely integrated gradients are smoothed" in text
    assert "every other setting, such as that of occlusion, was fixed beforehand" in text


def test_what_the_explainer_reads_is_escaped_once(tmp_path, made_up_results):
    made_up_results["explainer"] |= {"preset": "<b>", "hybrid": True}
    html, page = page_of(tmp_path, made_up_results)
    assert "(preset <b>, a hybrid, which sees the classifier's slopes too)" in page.text and "<b>, a hybrid" not in html


def test_an_explainer_that_is_neither_preset_nor_hybrid(tmp_path, made_up_results):
    """As `demo --one_pass` makes it."""
    made_up_results["explainer"] = {"parameters": 1, "hybrid": False, "steps": 3, "references": ["black", "1.0"]}
    text = page_of(tmp_path, made_up_results)[1].text
    assert "An explainer, a small head beside the frozen classifier" in text and "became black and white." in text


def test_old_pictures_are_not_called_new(tmp_path, made_up_results):
    assert "none of which was trained or tuned on" in page_of(tmp_path, made_up_results)[1].text
    made_up_results["data"]["report"]["seed"] = 0
    assert "NOT known to be new" in page_of(tmp_path, made_up_results)[1].text
