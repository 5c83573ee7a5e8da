"""What strangers call a class, a model or a file is text wherever the app writes HTML, SVG or code."""

import ast
from html.parser import HTMLParser
from pathlib import PurePath

import gradio as gr
import httpx
import pytest
from app_cases import write_picture
from families import save_classifier

from hf_explain import ExplainerError
from hf_explain.app import events, figures
from hf_explain.app.answers import Answers
from hf_explain.app.layout import build as build_page
from hf_explain.app.models import Models
from hf_explain.app.refusals import answering
from hf_explain.app.start import serve

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', """'"><b onclick='alert(1)'>&lt;"""]
CODE = '"""; raise SystemExit("ran") #'  # in a string of three quotes
METHOD = "input_x_gradient"
HTML = {"explain": {1}, "curves": {0}, "compare_classes": {3}, "counterfactual": {2}}  # which answers of events are


class Page(HTMLParser):
    """The tags of a text, and what a reader sees or hears of it."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, *sorted(name for name, _ in attributes)))
        self.words += "".join(value or "" for name, value in attributes if name == "aria-label")

    def handle_data(self, data):
        self.words += data


def question(upload, names):
    return upload, "evil", names[0], METHOD, 0


def explained(show):
    def explain(handlers, upload, names):
        asked = upload, "evil", None, METHOD, 0  # the smallest region is that of the prediction
        return handlers.explain(*asked, "automatic", 0.6, show, 20, "black")[1]

    return explain


WRITERS = {  # name -> (HTML of the app, how many names of classes are in it)
    "the map in words": (explained(events.HEATMAP), 1),
    "the important pixels in words": (explained(events.IMPORTANT), 1),
    "the smallest region in words": (explained(events.SMALLEST), 1),
    "the curves": (lambda handlers, *asked: handlers.curves(*question(*asked), "black", 20)[0], 1),
    "the legend of two classes": (
        lambda handlers, upload, names: handlers.compare_classes(*question(upload, names), names[1], 0.6)[3],
        2,
    ),
    "the way to another class": (
        lambda handlers, upload, names: handlers.counterfactual(upload, "evil", names[1], 1, 3)[2],
        1,
    ),
    "the low end of a legend": (lambda handlers, upload, names: figures.ramp([(0, 0, 0)], names[0], "high"), 1),
    "the high end of a legend": (lambda handlers, upload, names: figures.ramp([(0, 0, 0)], "low", names[0]), 1),
}
REFUSED = {  # what holds the name -> the event that says it in an error, which gradio shows as HTML
    "class": lambda handlers, upload, name: handlers.compare_classes(
        upload, "evil", name + "0", METHOD, 0, name + "0", 0.6
    ),
    "class that is not there": lambda handlers, upload, name: handlers.counterfactual(upload, "evil", name, 1, 3),
    "model": lambda handlers, upload, name: handlers.predict(upload, name),
    "method": lambda handlers, upload, name: handlers.explain(
        upload, "evil", None, name, 0, "automatic", 0.6, events.HEATMAP, 20, "black"
    ),
    "colors": lambda handlers, upload, name: handlers.explain(
        upload, "evil", None, METHOD, 0, name, 0.6, events.HEATMAP, 20, "black"
    ),
    "reference": lambda handlers, upload, name: handlers.curves(upload, "evil", None, METHOD, 0, name, 20),
    "number": lambda handlers, upload, name: handlers.counterfactual(upload, "evil", None, name, 3),
    "name of a file": lambda handlers, upload, name: handlers.predict(
        events.Upload(upload.path, name + ".svg"), "evil"
    ),
}


@pytest.fixture(scope="module")
def upload(tmp_path_factory):
    return events.Upload(str(write_picture(tmp_path_factory.mktemp("upload") / "cat.png", 0)), "cat.png")


@pytest.fixture(scope="module", params=[*HOSTILE, "plain"], ids=["script", "img", "quotes", "plain"])
def named(request, tmp_path_factory):
    """A hostile name, and the handlers of a classifier whose classes are called so."""
    labels = {i: f"{request.param}{i}" for i in range(5)}
    folder = save_classifier(tmp_path_factory.mktemp("evil"), labels=labels)
    return request.param, events.Events(Answers(Models({"evil": folder})))


@pytest.fixture(scope="module")
def tags(tmp_path_factory, upload):
    """What every writer writes of classes with plain names."""
    folder = save_classifier(tmp_path_factory.mktemp("plain"), labels={i: f"plain{i}" for i in range(5)})
    handlers = events.Events(Answers(Models({"evil": folder})))
    return {key: Page(write(handlers, upload, ["plain0", "plain1"])).tags for key, (write, _) in WRITERS.items()}


@pytest.mark.parametrize("key", WRITERS)
def test_names_of_classes_are_text(named, upload, tags, key):
    """The same tags with the same attributes as of a plain name, and the reader sees the name itself."""
    name, handlers = named
    write, times = WRITERS[key]
    page = Page(write(handlers, upload, [name + "0", name + "1"]))
    assert page.tags == tags[key] and page.words.count(name) == times


@pytest.mark.parametrize("key", REFUSED)
def test_names_in_errors_are_text(named, upload, key):
    """An error shows as HTML on the page; a program reads the same sentence."""
    name, handlers = named
    with pytest.raises(gr.Error) as error:
        answering(REFUSED[key])(handlers, upload, name)
    assert not Page(error.value.message).tags
    if name == "plain":
        with pytest.raises(ExplainerError) as plain:
            REFUSED[key](handlers, upload, name)
        assert error.value.message == str(plain.value)


def test_every_place_for_html_is_in_the_table(named):
    """Nothing but HTML components takes HTML: labels, captions, choices and cells are text to gradio."""
    page = build_page(named[1].answers)
    found: dict = {}
    for function in page.fns.values():
        for at, output in enumerate(function.outputs):
            if isinstance(output, gr.HTML) and function.fn.__name__ in HTML:
                found.setdefault(function.fn.__name__, set()).add(at)
            else:
                assert not isinstance(output, gr.HTML | gr.Markdown) or function.fn.__name__ == "<lambda>"  # emptied
    assert found == HTML
    tables = [block for block in page.blocks.values() if isinstance(block, gr.Dataframe)]
    assert [set(table.datatype) for table in tables] == [{"str", "number"}]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_models_are_text_in_the_page_that_is_served(name, tmp_path):
    folder = save_classifier(tmp_path / "evil")
    example = str(write_picture(tmp_path / (name.replace("/", "") + ".png"), 0))
    page = build_page(Answers(Models({name: folder})), [example])
    _, address, _ = serve(page, prevent_thread_lock=True, quiet=True)
    try:
        text = httpx.get(address).text
    finally:
        page.close(verbose=False)
    assert "alert(1)" in text  # in the settings of the page, which are JSON within a script
    assert not any(start in text for start in ("<script>alert", "<img src=x", "<b onclick"))


@pytest.mark.parametrize("name", [*HOSTILE, CODE, CODE.replace('"', "'"), '\\"""\nraise SystemExit', "plain"])
def test_names_are_strings_in_the_script_that_is_taken_home(name, upload, tmp_path):
    """The same statements whatever the names are."""
    labels = {i: f"{name}{i}" for i in range(5)}
    folder = save_classifier(tmp_path / "evil", labels=labels)
    handlers = events.Events(Answers(Models({name: folder})))
    named = events.Upload(upload.path, name + ".png")
    _, script = handlers.files(named, name, labels[0], METHOD, 0, "viridis", 0.5)
    parsed = ast.parse(script)
    said = ast.get_docstring(parsed)
    assert said.startswith("The map of ") and said.endswith(" as the app of hf-explain drew it.")
    assert len(parsed.body) == 1 + 6 + 6  # the docstring, imports, statements
    strings = [node.value for node in ast.walk(parsed) if isinstance(node, ast.Constant)]
    assert name in strings and PurePath(name + ".png").name in strings
