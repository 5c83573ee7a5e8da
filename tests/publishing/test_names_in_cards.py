"""Names of classes, data sets, columns and folders are text in a card: no tag, no heading, no cell, no new line."""

import pytest
import yaml
from families import build, processor

from hf_explain import RankingExplainerForImageClassification
from hf_explain.explaining.card import write_card
from hf_explain.explaining.dataset import Settings
from hf_explain.modeling.model_card import model_card
from hf_explain.publishing.space import space_files

MARKDOWN = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")  # raw HTML passes, as on the Hub
NASTY = ('<script>alert(1)</script>"|', "a\n# b\n- c", "[d](e)`f`*g*\\", '```"""|\n| h |')


def rendered(card: str) -> str:
    front, text = card.removeprefix("---\n").split("\n---\n", 1)
    assert isinstance(yaml.safe_load(front), dict)
    return MARKDOWN.render(text)


def counts(html: str) -> dict[str, int]:
    return {tag: html.count(f"<{tag}") for tag in ("script", "h1", "h2", "li", "td", "tr", "a ", "em", "pre", "code")}


def explainer_of(labels):
    classifier = build("resnet", 0, 32, dict(enumerate(labels)))
    explainer = RankingExplainerForImageClassification.from_classifier(classifier, processor(32), preset="tiny")
    explainer.config.classifier_name_or_path = labels[-1]
    return explainer


@pytest.mark.parametrize("nasty", NASTY)
def test_the_card_of_an_explainer(nasty):
    harmless, card = (
        rendered(model_card(explainer_of(["cat", name]), name, included=False)) for name in ("dog", nasty)
    )
    assert counts(card) == counts(harmless) and counts(card)["script"] == 0
    assert "alert" not in nasty or "&lt;script&gt;alert(1)&lt;/script&gt;&quot;|" in card


@pytest.mark.parametrize("nasty", NASTY)
def test_the_card_of_a_data_set(nasty, tmp_path):
    pages = []
    for name in ("dog", nasty):
        classifier = {"name": name, "revision": name, "weights": "0" * 64}
        explainer = {"name": name, "weights": "0" * 64, "trained_steps": 1}
        data = {"name": name, "config": name, "split": name, "column": name, "seed": None}
        settings = Settings(classifier, explainer, None, None, {}, data, 2)
        write_card(tmp_path, settings, 2, 2, ["row", f"source_{name}"], name)
        pages.append(rendered((tmp_path / "README.md").read_text()))
    assert counts(pages[1]) == counts(pages[0]) and counts(pages[1])["script"] == 0


@pytest.mark.parametrize("nasty", NASTY)
def test_the_card_of_a_space(nasty):
    pages = [space_files("you/app", name)["README.md"] for name in ("dog", nasty)]
    assert counts(rendered(pages[1])) == counts(rendered(pages[0]))
    assert yaml.safe_load(pages[1].split("\n---\n")[0])["title"] == f"Which pixels made {nasty} say that?"


def test_ordinary_names_are_as_they_are():
    labels = ["tench, Tinca tinca", "n01440764_2", "jack-o'-lantern", "café (2)"]
    card = model_card(explainer_of(labels), "you/cats_and-dogs.v2", included=True)
    assert f"- classes: {', '.join(labels)}\n" in card and "# you/cats_and-dogs.v2\n" in card
    assert 'model="you/cats_and-dogs.v2")' in card
