"""The measured numbers as tables, for a terminal, in Markdown and on the page."""

import math

import pytest
from report_cases import REFERENCES, around, page_of

from hf_explain.modeling.errors import ExplainerError
from hf_explain.reports.findings import provenance, references
from hf_explain.reports.tables import table, tables


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
