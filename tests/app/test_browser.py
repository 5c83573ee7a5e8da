"""The app in Chromium, as a person meets it.

    apt-get install chromium                      # Debian's; or any Chromium or Chrome on the PATH
    pip install -e ".[browser]" -c constraints.txt
    pytest -m browser

HF_EXPLAIN_SCREENSHOTS=folder keeps pictures of what was seen; HF_EXPLAIN_APP_MODEL=folder shows another explainer of
the scenes than the untrained tiny one.
"""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from app_cases import CASES, make_explainer, png_header, write_picture

from hf_explain.app import views
from hf_explain.app.answers import Answers
from hf_explain.app.layout import build
from hf_explain.app.models import Models
from hf_explain.app.start import serve
from hf_explain.app.uploads import Limits, read_upload
from hf_explain.data.scenes import CLASSES
from hf_explain.demo.kept import draw_example
from hf_explain.demo.settings import REPORT_SEED
from hf_explain.reports.page import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LIMITS = Limits(upload_bytes=1_000_000)
SECONDS = 40_000  # a slow machine is no failure

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on the PATH")]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    labels = dict(enumerate(CLASSES))
    folder = os.environ.get("HF_EXPLAIN_APP_MODEL") or make_explainer(tmp_path_factory.mktemp("app") / "tiny", labels)
    return Answers(Models({"demo": folder}, LIMITS))


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    return [str(draw_example(folder, REPORT_SEED, index)) for index in range(4)]


@pytest.fixture(scope="module")
def address(answers, examples):
    page = build(answers, examples)
    _, address, _ = serve(page, LIMITS, prevent_thread_lock=True, quiet=True)
    yield address
    page.close()


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, address):
    """A function that opens the page for a new visitor; nobody's page may ask another origin for anything."""
    asked, failed, contexts = [], [], []

    def visit(**settings):
        contexts.append(chromium.new_context(**{"viewport": {"width": 1320, "height": 1000}, **settings}))
        page = contexts[-1].new_page()
        page.set_default_timeout(SECONDS)
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda socket: asked.append(socket.url))
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.goto(address)
        page.locator("input[type=file]").first.wait_for(state="attached")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert asked and {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))} == {
        urlsplit(address).netloc
    }
    assert not failed


def give(page, path):
    """Uploads a picture and waits for its curves, which come last."""
    replace = page.get_by_label("Remove Image")
    if replace.count():
        replace.first.click()
    page.locator("input[type=file]").first.set_input_files(str(path))
    page.locator(".hx-curves svg").wait_for()
    settle(page)


def settle(page):
    """Until nothing is waited for."""
    page.wait_for_function("() => !document.querySelector('.generating, .translucent, .pending')")
    page.wait_for_timeout(300)


def choose(page, tab):
    """Opens a tab; those for which there is no room are in a menu."""
    heading = page.get_by_role("tab", name=tab)
    if heading.count() and heading.first.is_visible():
        heading.first.click()
    else:
        page.get_by_label("More tabs").click()
        page.locator(".overflow-dropdown").get_by_text(tab).click()


def said(page):
    return page.locator(".hx-said").first.inner_text()


def keep_screenshot(page, name):
    if folder := os.environ.get("HF_EXPLAIN_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def test_upload_click_a_class_and_look(visit, answers, examples):
    page = visit()
    give(page, examples[0])
    model = answers.models.load("demo")
    top = views.predict(model, read_upload(examples[0])).top
    assert said(page).startswith(top[0].name)
    keep_screenshot(page, "desktop")
    page.locator(f"[aria-label*='{top[1].name}'], button:has-text('{top[1].name}')").first.click()
    page.locator(".hx-said", has_text=top[1].name).first.wait_for()
    settle(page)
    before = page.locator("#map img").last.get_attribute("src")

    page.get_by_label("Colors").click()
    page.get_by_role("option", name="viridis").click()
    page.wait_for_function("old => [...document.querySelectorAll('#map img')].at(-1).src != old", arg=before)
    page.get_by_label("most important pixels").check()
    page.locator(".hx-said", has_text="the most important 20 % of the pixels").first.wait_for()
    page.get_by_label("smallest region").check()
    page.get_by_text("choose the prediction to see it").first.wait_for()


def test_scrub_the_curve_with_the_keyboard(visit, examples):
    page = visit()
    give(page, examples[0])
    scrubber = page.get_by_label("range slider for Pixels removed or brought back, %")
    line = page.locator(".hx-curves .scrubber")
    before = float(line.get_attribute("x1"))
    scrubber.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.get_by_text("35 % removed: ").first.wait_for()
    page.get_by_text("35 % brought back: ").first.wait_for()
    assert float(line.get_attribute("x1")) > before


def test_everything_can_be_reached_with_the_keyboard(visit, examples):
    page = visit()
    give(page, examples[0])
    reached = set()
    for _ in range(120):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("() => { const e = document.activeElement; return e.getAttribute('aria-label') "
                                  "|| e.innerText || e.value || e.tagName }"))  # fmt: skip
    text = "\n".join(map(str, reached))
    for name in ("Model", "Explained class", "Method", "Refinement steps", "heatmap", "Opacity", "Check it",
                 "Pixels removed"):  # fmt: skip
        assert name in text, name
    page.get_by_role("tab", name="Check it").focus()
    page.keyboard.press("Tab")
    page.get_by_role("tab", name="Two classes").focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Compare").first.wait_for()


def test_compare_classes_methods_and_what_would_change_it(visit, examples):
    page = visit()
    give(page, examples[2])
    choose(page, "Two classes")
    page.get_by_role("button", name="Compare").first.click()
    page.get_by_text("ranks higher for").first.wait_for()
    settle(page)
    keep_screenshot(page, "classes")
    choose(page, "Methods")
    page.get_by_role("button", name="Compare").last.click()
    page.get_by_text("random: deletion").first.wait_for()  # the last one
    settle(page)
    keep_screenshot(page, "methods")
    choose(page, "What if?")
    page.get_by_role("button", name="Move it").click()
    page.get_by_text("Blue became darker, red brighter").wait_for()
    settle(page)
    keep_screenshot(page, "counterfactual")
    choose(page, "Take home")
    with page.expect_download() as download:
        page.locator("a[download='map.npy']").first.click()
    assert np.load(download.value.path()).shape == (256, 256)
    assert "pipeline(" in page.locator(".cm-content").inner_text()


def test_what_is_refused_is_said_and_the_app_lives_on(visit, examples, tmp_path):
    page = visit()
    for name, write, words in CASES:
        if not name.endswith((".png", ".jpg")):  # the page's file chooser offers pictures only
            continue
        write(tmp_path / name)
        page.locator("input[type=file]").first.set_input_files(str(tmp_path / name))
        page.get_by_text(re.compile(words)).first.wait_for()
        page.get_by_label("Remove Image").first.click()
    huge = tmp_path / "huge.png"
    huge.write_bytes(png_header(10, 10) + bytes(1_500_000))
    page.locator("input[type=file]").first.set_input_files(str(huge))
    page.get_by_text(re.compile("(maximum|exceed)", re.I)).first.wait_for()
    fresh = visit()
    give(fresh, examples[3])
    model = fresh.get_by_label("Model", exact=True)
    model.fill("tester/nothing")
    model.press("Enter")
    fresh.get_by_text("tester/nothing could not be loaded: the Hub cannot be reached.").first.wait_for()
    keep_screenshot(fresh, "refused")
    assert fresh.get_by_label("Explained class", exact=True).input_value() == ""
    model.fill("demo")
    model.press("Enter")
    fresh.locator(".hx-curves svg").wait_for()


def test_two_visitors_at_once_see_their_own(visit, answers, tmp_path):
    paths = [write_picture(tmp_path / f"{i}.png", i, size=(128, 128)) for i in range(2)]
    pages = [visit(), visit()]
    for page, path in zip(pages, paths):
        page.locator("input[type=file]").first.set_input_files(str(path))
    for page, path in zip(pages, paths):
        page.locator(".hx-curves svg").wait_for()
        settle(page)
        top = views.predict(answers.models.load("demo"), read_upload(path)).top[0]
        one = answers.ask(views.attribute, "demo", read_upload(path), top.name, views.LEARNED, 0)
        area = answers.ask(views.walk, "demo", one, "black").areas["deletion"]
        assert said(page).startswith(top.name) and f"deletion {area:.3f}" in page.locator(".hx-curves").inner_text()


BOXES = """
all => all.map(e => e.getBoundingClientRect()).map(box => [box.left, box.top, box.right, box.bottom])
"""


def overlap(one, other):
    """Of two boxes; letters leave a pixel of theirs free."""
    return all(min(one[i + 2], other[i + 2]) - max(one[i], other[i]) > 1 for i in range(2))


def test_on_a_phone_nothing_is_wider_than_the_screen(visit, examples):
    page = visit(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True, device_scale_factor=2)
    give(page, examples[1])
    keep_screenshot(page, "phone")
    for tab in ("Two classes", "Methods", "What if?", "Take home", "Check it"):
        choose(page, tab)
        settle(page)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390, tab
    box = page.locator("#map").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    drawing, *texts = page.locator(".hx-curves svg, .hx-curves text").evaluate_all(BOXES)
    assert len(texts) == 11
    for i, one in enumerate(texts):
        assert all(a >= b for a, b in zip(one[:2], drawing[:2])) and all(a <= b for a, b in zip(one[2:], drawing[2:]))
        assert not [other for other in texts[:i] if overlap(one, other)]


def test_the_report_can_be_read_on_a_phone(chromium, tmp_path):
    """No setting's name runs into its value, and a table says so where it goes on at the right, and only there."""
    settings = {"output_dir": "demo", "explainer_steps": 700, "report_pictures": 100}
    measured = {name: {"deletion": {"mean": 0.1, "low": 0.05, "high": 0.15}} for name in ("black", "blur", "noise")}
    methods = {f"integrated_gradients_{i}": {"references": measured} for i in range(2)}
    path = write_report(tmp_path / "report.html", {"settings": settings, "methods": methods})
    page = chromium.new_page(viewport={"width": 390, "height": 844})
    page.goto(path.as_uri())
    names = page.locator(".plain th").evaluate_all("all => all.map(e => [e.scrollWidth, e.clientWidth])")
    assert len(names) == len(settings) and all(text <= cell for text, cell in names)
    hint, table = page.get_by_text("Swipe sideways"), page.locator("h3 ~ .scroll").first
    for width in (390, 800):
        page.set_viewport_size({"width": width, "height": 844})
        assert hint.is_visible() == table.evaluate("e => e.scrollWidth > e.clientWidth") == (width == 390)
    page.close()


LUMINANCE = """
element => {
  const parse = color => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  let behind = element, back;
  while (behind && !((back = parse(getComputedStyle(behind).backgroundColor)).length == 3 || back[3] > 0))
    behind = behind.parentElement;
  const style = getComputedStyle(element);
  return [light(parse(element.namespaceURI.endsWith('svg') ? style.fill : style.color)), light(back)];
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(visit, examples, scheme):
    page = visit(color_scheme=scheme)
    give(page, examples[3])
    keep_screenshot(page, scheme)
    for selector in (".hx-head h1", ".hx-head p", ".hx-said b", ".hx-note", ".hx-curves text", ".hx-curves figcaption"):
        text, back = page.locator(selector).first.evaluate(LUMINANCE)
        assert (text > back) == (scheme == "dark"), selector
        assert (max(text, back) + 0.05) / (min(text, back) + 0.05) >= 4.5, selector  # WCAG AA
