"""The report's sentences follow the numbers, favorable or not, and its one file needs nothing else."""

import base64
import copy
import io
import json
import math
import re
from html.parser import HTMLParser

import PIL.Image
import pytest

from hf_explain.faithfulness.protocols import PRESETS, read_protocol
from hf_explain.modeling.errors import ExplainerError
from hf_explain.reports.findings import headline, provenance, references, warning
from hf_explain.reports.page import write_report
from hf_explain.reports.tables import table, tables

REFERENCES = ["black", "mean", "blur", "noise"]
CURVES = ["deletion", "insertion"]


def around(mean, half=0.012):
    return {"mean": mean, "low": mean - half, "high": mean + half}


def made_up_curves(deletion, insertion, points=21):
    at = [i / (points - 1) for i in range(points)]
    falling = [0.97 * math.exp(-x / deletion) for x in at]
    rising = [0.12 + 0.85 * (1 - math.exp(-x / (1.04 - insertion))) for x in at]
    curves = {}
    for name, values in (("deletion", falling), ("insertion", rising)):
        curves |= {name: values, f"{name}_low": [v - 0.03 for v in values], f"{name}_high": [v + 0.03 for v in values]}
    return curves


def made_up_method(label, ms, deletion, insertion, place):
    shift = dict(zip(REFERENCES, (0.0, 0.004, -0.011, 0.031)))
    measured = {
        name: {
            "deletion": around(deletion + more),
            "insertion": around(insertion - more / 2),
            "curves": made_up_curves(deletion + more, insertion),
        }
        for name, more in shift.items()
    }
    more = {"pointing_game": around(place), "average_precision": around(place - 0.1, 0.02)}
    return {"label": label, "ms": ms, "references": measured, "class_discrimination": around(place - 0.05)} | more


def compared(method, against, mean, half=0.01, **where):
    """Comparisons under every reference and on both curves, or where it is said."""
    return [
        {"method": method, "against": against, "reference": r, "curve": c, "difference": around(mean, half)}
        for r in where.get("references", REFERENCES)
        for c in where.get("curves", CURVES)
    ]


@pytest.fixture
def made_up_results():
    """Numbers nobody measured: invented to try the report."""
    methods = {
        "learned": made_up_method("learned explainer", 1.24, 0.121, 0.951, 0.93),
        "learned_refined": made_up_method("learned, refined 8 steps", 9.8, 0.072, 0.957, 0.94),
        "integrated_gradients": made_up_method("integrated gradients", 31.5, 0.124, 0.921, 0.88),
        "gradient": made_up_method("gradient", 2.1, 0.242, 0.863, 0.71),
        "occlusion": made_up_method("occlusion", 88.0, 0.213, 0.934, 0.86),
        "random": made_up_method("random", 0.1, 0.552, 0.561, 0.19),
        "exact_mask": made_up_method("exact mask", None, 0.164, 0.934, 1.0),
    }
    comparisons = []
    for against in ("random", "gradient", "occlusion"):
        comparisons += compared("learned", against, 0.1)
    comparisons += compared("learned", "integrated_gradients", 0.003, curves=["deletion"])
    comparisons += compared("learned", "integrated_gradients", 0.03, curves=["insertion"])
    comparisons += compared("learned", "learned_refined", -0.04)
    protocol = {"name": "aha", "budgets": 21, "score": "probability", "seed": 0, "pictures": 100, "size": [64, 64]}
    accuracies = (0.963, 0.958, 0.951, 0.944, 0.932, 0.915, 0.884, 0.831, 0.742, 0.561)
    return {
        "command": "hf-explain demo --backbone vit --seed 0",
        "backbone": "vit",
        "size": 64,
        "seed": 0,
        "device": "CPU, 2 threads",
        "versions": {"hf-explain": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "minutes": 3.2,
        "seconds": {"classifier": 80.1, "explainer": 64.0, "measuring": 47.7},
        "data": {
            "train": {"seed": 0, "pictures": 8000},
            "tune": {"seed": 1, "pictures": 50},
            "report": {"seed": 10000, "pictures": 100},
            "classes": [f"{p} {d} stripes" for p in ("fine", "coarse") for d in ("vertical", "rising", "falling")],
        },
        "classifier": {
            "parameters": 701384,
            "accuracy": 0.963,
            "accuracy_when_masked": {f"{i / 10}": accuracy for i, accuracy in enumerate(accuracies)},
        },
        "explainer": {
            "parameters": 91345,
            "preset": "small",
            "steps": 300,
            "objective": {"method": "soft_topk", "temperature": 0.1, "budgets": [0.05, 0.2, 0.5]},
            "references": ["black", "mean", "blur"],
        },
        "protocol": {name: {**protocol, "reference": name} for name in REFERENCES},
        "unseen": ["noise"],
        "methods": methods,
        "comparisons": comparisons,
        "cases": [
            {
                "kind": "success",
                "label": "fine rising stripes",
                "deletion": 0.041,
                "insertion": 0.982,
                "text": "Both blobs of the class come first, the larger one before the smaller one.",
                "image": 12,
            },
            {
                "kind": "failure",
                "label": "coarse flat stripes",
                "deletion": 0.388,
                "insertion": 0.731,
                "text": "The map ranks a blob of another class among the first pixels, so the evidence goes late.",
                "image": 57,
            },
        ],
    }


@pytest.fixture
def made_up_pictures():
    sizes = {"overlays": (120, 90), "curves": (160, 80), "curves, blur": (160, 60), "success": (80, 40)}
    sizes["failure"] = (80, 40)
    return {name: PIL.Image.new("RGB", size, (i * 60, 90, 200)) for i, (name, size) in enumerate(sizes.items())}


class Page(HTMLParser):
    """Tags that are opened and closed in order, what they refer to, and the text."""

    EMPTY = {"meta", "link", "img", "br"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.addresses, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open
        self.text = " ".join(self.text.split())  # as a browser shows it

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.addresses += [v for k, v in attributes if k in ("src", "href", "srcset", "data", "action", "poster")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def page_of(tmp_path, results, pictures=None):
    html = write_report(tmp_path / "new" / "report.html", results, pictures).read_text(encoding="utf-8")
    return html, Page(html)


# ---- the headline ----


def said(*comparisons, **more):
    results = {"protocol": {name: {} for name in REFERENCES}, "methods": {"learned": {"label": "learned map"}}}
    return headline(results | {"comparisons": [one for some in comparisons for one in some]} | more)


def test_headline_of_a_clear_win():
    wins = [compared("learned", against, 0.1) for against in ("random", "gradient", "occlusion")]
    assert said(*wins) == [
        "Under all 4 references, learned map beats random, gradient and occlusion on deletion and insertion."
    ]


def test_headline_of_a_clear_loss():
    assert said(compared("learned", "integrated_gradients", -0.1)) == [
        "Under all 4 references, learned map loses to integrated gradients on deletion and insertion."
    ]


@pytest.mark.parametrize("mean, half", [(0.0, 0.01), (0.009, 0.01), (-0.009, 0.01), (0.25, 0.25), (-0.25, 0.25)])
def test_an_interval_that_holds_zero_is_no_difference(mean, half):
    assert said(compared("learned", "gradient", mean, half)) == [
        "Under all 4 references, no difference was found between learned map and gradient on deletion and insertion."
    ]


def test_headline_that_differs_between_references():
    found = said(
        compared("learned", "gradient", 0.1, references=["black", "mean"]),
        compared("learned", "gradient", 0.001, references=["blur"]),
        compared("learned", "gradient", -0.1, references=["noise"]),
    )
    assert found == [
        "Against gradient, learned map is mixed: on deletion and insertion, better under black and mean, no difference "
        "found under blur, worse under noise."
    ]


def test_headline_that_differs_between_curves():
    found = said(
        compared("learned", "gradient", -0.1, curves=["deletion"]),
        compared("learned", "gradient", 0.1, curves=["insertion"], references=["black", "blur"]),
        compared("learned", "gradient", 0.001, curves=["insertion"], references=["noise", "mean"]),
    )
    assert found == [
        "Against gradient, learned map is mixed: on deletion, worse under all 4 references; on insertion, better under "
        "black and blur, no difference found under mean and noise."
    ]


def test_a_win_under_some_references_is_not_one_under_all():
    few = compared("learned", "random", 0.1, references=["black", "blur"], curves=["deletion"])
    assert said(few) == ["Under black and blur, learned map beats random on deletion."]
    both = said(few, protocol={"black": {}, "blur": {}})
    assert both == ["Under both references, learned map beats random on deletion."]


def test_headline_of_nothing_and_of_no_numbers():
    assert headline({}) == headline({"comparisons": []}) == ["Nothing was compared, so nothing is claimed."]
    broken = [one | {"difference": difference} for one, difference in zip(compared("learned", "random", 0), [None] * 8)]
    assert said(broken) == [
        "Under all 4 references, learned map could not be compared with random on deletion and insertion."
    ]
    assert "could not" in said(compared("learned", "random", math.nan))[0]
    assert "could not" in said([one | {"difference": 0.4} for one in broken])[0]  # no interval, no claim


def test_headline_names_what_was_never_trained_on(made_up_results):
    sentences = headline(made_up_results)
    assert sentences[-1] == "Of these references noise was never trained on."
    assert sentences[-2] == (
        'Under all 4 references, learned explainer loses to "learned, refined 8 steps" on deletion and insertion.'
    )
    assert sentences[1] == (
        "Against integrated gradients, learned explainer is mixed: on deletion, no difference found under all 4 "
        "references; on insertion, better under all 4 references."
    )
    seen = [one for one in made_up_results["comparisons"] if one["reference"] != "noise"]
    assert "never" not in " ".join(headline(made_up_results | {"comparisons": seen}))


# ---- the warning ----


@pytest.mark.parametrize("accuracy, warned", [(0.42, True), (0.8999, True), (0.9, False), (0.97, False), (None, False)])
def test_warning_only_below_90_percent(tmp_path, made_up_results, accuracy, warned):
    made_up_results["classifier"]["accuracy"] = accuracy
    assert (warning(made_up_results) is not None) == warned
    page = page_of(tmp_path, made_up_results)[1]
    assert ("do not trust its explainer" in page.text) == warned
    assert any(attributes.get("role") == "alert" for _, attributes in page.tags) == warned


# ---- tables ----


def test_several_trainings_are_named(tmp_path, made_up_results):
    assert provenance(made_up_results).endswith("over the pictures")
    assert "another training would differ" in page_of(tmp_path, made_up_results)[1].text
    made_up_results["seed"] = [0, 1, 2]
    assert "training seeds 0, 1, 2;" in provenance(made_up_results)
    assert provenance(made_up_results).endswith("over the pictures and trainings")
    text = page_of(tmp_path, made_up_results)[1].text
    assert "another training would differ" not in text and "Seeds 0, 1 and 2" in text


def test_references_and_provenance(made_up_results):
    assert references(made_up_results) == REFERENCES
    line = provenance(made_up_results)
    for part in ("vit", "64 px", "n = 100", "seed 10000", "small", "300 steps", "CPU", "aha, 21 budgets", "95 %"):
        assert part in line


def test_best_is_marked_among_methods_only(made_up_results):
    made = tables(made_up_results)
    assert list(made) == ["deletion", "insertion", "more"]
    best = {name: [label for label, _, row in one.rows if row[0].best] for name, one in made.items()}
    assert best["deletion"] == best["insertion"] == ["learned, refined 8 steps"]
    fastest = [label for label, _, row in made["more"].rows if row[-1].best]
    assert fastest == ["learned explainer"]  # random is faster, but a yardstick; so the exact mask's pointing game
    assert best["more"] == ["learned, refined 8 steps"]
    assert [label for label, gray, _ in made["deletion"].rows if gray] == ["random", "exact mask"]
    assert [column.name for column in made["deletion"].columns if column.unseen] == ["noise"]


def test_equals_share_the_mark(made_up_results):
    for name, mean in (("learned", 0.1001), ("learned_refined", 0.0999)):  # both print as 0.100
        made_up_results["methods"][name]["references"]["black"]["deletion"] = around(mean)
    rows = tables(made_up_results)["deletion"].rows
    assert [row[0].best for _, _, row in rows][:3] == [True, True, False]


def test_markdown(made_up_results):
    text = table(made_up_results, "deletion")
    lines = text.split("\n")
    assert lines[0] == "| Deletion (lower is better) | black | mean | blur | noise (never trained on) |"
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: |"
    assert lines[2].startswith("| learned explainer | 0.121 (0.109–0.133) |")
    assert "| learned, refined 8 steps | **0.072** (0.060–0.084) |" in text and "| *random* |" in text
    assert {line.count(" |") for line in lines[:9]} == {5} and lines[-1] == provenance(made_up_results) + "."
    made_up_results["methods"]["learned"]["label"] = "a|b <i>"
    assert "| a\\|b &lt;i> |" in table(made_up_results)


def test_text(made_up_results):
    text = table(made_up_results, "insertion", style="text")
    lines = text.split("\n")
    assert lines[0] == "Insertion (higher is better); * is the best" and "never trained on" in lines[2]
    starts = {line.index("0.") for line in lines[3:10]}
    assert len(starts) == 1  # numbers stand under one another
    assert "0.957* 0.945–0.969" in text and max(map(len, lines[:10])) <= 120
    everything = table(made_up_results, style="text")
    assert text.split("\n\n")[0] in everything and "ms per picture" in everything


def test_an_unknown_table_or_style(made_up_results):
    for wrong in ({"name": "speed"}, {"style": "latex"}):
        with pytest.raises(ExplainerError, match="choose from deletion, insertion, more"):
            table(made_up_results, **wrong)


def test_missing_numbers_are_dashes(made_up_results):
    made_up_results["methods"]["gradient"]["references"] = {"black": {"deletion": 0.25}}
    made_up_results["methods"]["occlusion"]["references"]["mean"]["deletion"] = around(math.nan)
    text = table(made_up_results, "deletion")
    assert "| gradient | 0.250 | – | – | – |" in text and "nan" not in text.lower()


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
