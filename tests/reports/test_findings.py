"""The sentences of the report: what came out, by the intervals."""

import math

import pytest
from report_cases import REFERENCES, compared, page_of

from hf_explain.reports.findings import headline, warning

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
