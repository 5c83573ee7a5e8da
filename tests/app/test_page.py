"""The page as a program sees it, the command that serves it, and the Space."""

import importlib.util
import os
import re
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio as gr
import httpx
import numpy as np
import PIL.Image
import pytest
import yaml
from app_cases import CASES, ROOT, write_picture
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from hf_explain import ExplainerError
from hf_explain.app import events, painting, reproduction, views
from hf_explain.app.layout import build as build_page
from hf_explain.app.models import LEARNED, Models
from hf_explain.app.start import make, serve
from hf_explain.app.uploads import Limits, read_upload
from hf_explain.cli import main
from hf_explain.data.scenes import draw_scene
from hf_explain.demo import kept as own

SPACE = ROOT / "spaces" / "image_attribution"

# ---- the page ----


@pytest.fixture(scope="module")
def page(answers):
    page = build_page(answers, [str(SPACE / "examples" / "scene-0.jpg")], concurrency=2)
    _, address, _ = serve(page, prevent_thread_lock=True, quiet=True)
    yield address
    page.close()


@pytest.fixture
def client(page):
    return Client(page, verbose=False)


@pytest.fixture
def cat(tmp_path):
    return handle_file(str(write_picture(tmp_path / "cat.png", 0)))


def test_endpoints(client, cat, model, picture, tmp_path):
    """Each by its name, and what they say is what `views` say."""
    seen = views.predict(model, picture)
    said = client.predict(cat, "tiny", api_name="/predict")
    assert said["label"] == seen.top[0].name and len(said["confidences"]) == 5
    (_, after), words = client.predict(
        cat, "tiny", "zebra", LEARNED, 0, "automatic", 0.6, events.HEATMAP, 20, "black", api_name="/explain"
    )
    assert "<b>zebra</b>" in words and "the learned explainer" in words and "matters most" in words
    one = views.attribute(model, picture, "zebra")
    shown = np.asarray(PIL.Image.open(after).convert("RGB"))
    assert (shown == np.asarray(events.large(painting.paint(picture.image, one.attribution)))).all()
    for show in (events.IMPORTANT, events.SMALLEST):
        asked = cat, "tiny", None, LEARNED, 0, "automatic", 0.6, show, 20, "black"
        assert "of the pixels" in client.predict(*asked, api_name="/explain")[1]
    drawing, removed, _, numbers = client.predict(cat, "tiny", "zebra", LEARNED, 0, "blur", 40, api_name="/curves")
    walk = views.walk(model, one, "blur")
    assert numbers["areas"] == pytest.approx(walk.areas) and numbers["protocol"]["reference"] == "blur"
    assert "<svg" in drawing and "40 % removed" in removed["label"]
    *_, words = client.predict(cat, "tiny", "zebra", LEARNED, 0, "tiger cat", 0.6, api_name="/compare_classes")
    assert "ranks higher for zebra" in words and "ranks higher for tiger cat" in words
    methods = [LEARNED, "input_x_gradient", "attention_rollout"]  # the last is not defined for a ResNet
    gallery, table = client.predict(cat, "tiny", "zebra", methods, 0, "blur", 0.6, api_name="/compare_methods")
    assert len(gallery) == 2 and [row[0] for row in table["data"]] == methods
    assert table["data"][0][1:3] == pytest.approx([walk.areas["deletion"], walk.areas["insertion"]], abs=1e-3)
    assert table["data"][2][4] and table["data"][2][1] is None
    way, _, words = client.predict(cat, "tiny", "zebra", 2, 3, api_name="/counterfactual")
    assert len(way) == 3 and words.startswith("<b>zebra</b>")


@pytest.mark.parametrize(("method", "steps"), [(LEARNED, 1), ("input_x_gradient", 0)])
def test_the_code_that_is_taken_home_makes_the_same_files(client, cat, folder, tmp_path, monkeypatch, method, steps):
    files, script = client.predict(cat, "tiny", "zebra", method, steps, "viridis", 0.5, api_name="/files")
    assert [Path(path).name for path in files] == ["map.npy", "map.png", "explain.py"]
    assert Path(files[2]).read_text().strip() == script
    monkeypatch.chdir(tmp_path)  # where cat.png is
    Path("tiny").symlink_to(folder)  # what the script calls the model
    exec(compile(script, "explain.py", "exec"), {"__name__": "__main__"})
    np.testing.assert_allclose(np.load("map.npy"), np.load(files[0]), atol=1e-5)
    one, other = (np.asarray(PIL.Image.open(path)).astype(int) for path in ("map.png", files[1]))
    assert np.abs(one - other).max() <= 1


def test_the_code_of_the_demos_model_names_no_folder(answers, picture):
    one = answers.ask(views.attribute, "tiny", picture, "zebra", LEARNED)
    models = Models({reproduction.OWN: lambda: answers.models.own["tiny"]})
    text = reproduction.code(models, reproduction.OWN, one, "/somewhere/cat.png", "automatic", 0.6)
    assert "model=demo_explainer()" in text and "/" not in text.replace('""" ', "").replace("hf-explain", "")
    compile(text, "explain.py", "exec")


def test_the_code_says_that_a_folder_has_to_be_put_beside_it(answers, picture, folder):
    """By its name alone: where it lies is nobody's business."""
    one = answers.ask(views.attribute, "tiny", picture, "zebra", LEARNED)
    rest = one, "cat.png", "automatic", 0.6
    text = reproduction.code(answers.models, "tiny", *rest)
    assert "\n# 'tiny' is a folder of the machine that serves the page. Put it beside this script" in text
    assert str(Path(folder).parent) not in text
    compile(text, "explain.py", "exec")
    of_the_hub = Models({"owner/tiny": "owner/tiny"})
    of_the_hub.loaded["owner/tiny"] = answers.models.load("tiny")
    assert "a folder" not in reproduction.code(of_the_hub, "owner/tiny", *rest)
    namesake = reproduction.code(Models({reproduction.OWN: folder}), reproduction.OWN, *rest)
    assert "demo_explainer" not in namesake and "# 'demo' is a folder" in namesake


@pytest.mark.parametrize(("name", "write", "said"), CASES, ids=[case[0] for case in CASES])
def test_bad_uploads_over_the_wire(client, cat, tmp_path, name, write, said):
    write(tmp_path / name)
    with pytest.raises(AppError, match=said):
        client.predict(handle_file(str(tmp_path / name)), "tiny", api_name="/predict")
    assert client.predict(cat, "tiny", api_name="/predict")["label"]  # it lives on


TOO_LARGE = "File size exceeded maximum allowed size of 10000 bytes."


def test_a_file_above_the_limit_is_not_taken(answers):
    page = build_page(answers)
    _, address, _ = serve(page, Limits(upload_bytes=10_000), prevent_thread_lock=True, quiet=True)
    try:
        answer = httpx.post(f"{address}gradio_api/upload", files={"files": ("huge.png", bytes(50_000))})
        assert answer.status_code == 413 and TOO_LARGE in answer.text
    finally:
        page.close()


def test_no_path_and_no_trace_reaches_a_visitor(client, cat, folder, monkeypatch, caplog):
    for name in ("/etc", folder):
        with pytest.raises(AppError) as error:
            client.predict(cat, name, api_name="/predict")
        assert str(error.value) == (
            "besides the models of its list, this page loads those of the Hub only; give an id of the form owner/name "
            "such as google/vit-base-patch16-224."
        )
    monkeypatch.setattr(events.Events, "seen", lambda *a: (_ for _ in ()).throw(OSError(f"no {folder}/weights.bin")))
    with pytest.raises(AppError) as error:
        client.predict(cat, "tiny", api_name="/predict")
    assert str(error.value) == "this failed on the server; the operator finds why in its log."
    monkeypatch.setattr(
        events.Events, "seen", lambda *a: (_ for _ in ()).throw(ExplainerError(f"no {folder}/w.bin; x."))
    )
    with pytest.raises(AppError) as error:
        client.predict(cat, "tiny", api_name="/predict")
    assert str(error.value) == "no (a file of the server); x."
    with pytest.raises(AppError) as error:  # a file of the server is not an upload
        client.predict({"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}, "tiny", api_name="/predict")
    assert "/etc" not in str(error.value)


def test_the_server_fetches_nothing_for_a_visitor(client):
    for value in ("http://127.0.0.1:1/cat.png", "https://example.org/cat.png"):
        file = {"path": value, "meta": {"_type": "gradio.FileData"}}
        with pytest.raises(AppError, match="an address was given; give the file itself"):
            client.predict(file, "tiny", api_name="/predict")
        with pytest.raises(AppError, match="an address was given; give the file itself"):
            client.predict(None, file, api_name="/predict")  # any input would do


def test_visitors_never_get_each_others_answers(page, answers, tmp_path):
    """Eight clients, each with pictures of its own, all at once."""
    paths = [write_picture(tmp_path / f"{i}.png", i) for i in range(8)]
    model = answers.models.load("tiny")
    expected = [views.predict(model, read_upload(path)).top[0].score for path in paths]
    assert len({round(score, 6) for score in expected}) == 8
    start = threading.Barrier(8)

    def visit(i):
        client = Client(page, verbose=False)
        start.wait()
        found = []
        for turn in range(4):
            file = handle_file(str(paths[(i + turn) % 8]))
            found.append(client.predict(file, "tiny", api_name="/predict")["confidences"][0]["confidence"])
        return found

    with ThreadPoolExecutor(8) as pool:
        for i, found in enumerate(pool.map(visit, range(8))):
            assert found == pytest.approx([expected[(i + turn) % 8] for turn in range(4)])


def test_without_a_picture_nothing_is_said(answers):
    handlers = events.Events(answers)
    question = None, "tiny", None, LEARNED, 0
    assert handlers.predict(None, "tiny") is None
    assert handlers.explain(*question, "automatic", 0.6, events.HEATMAP, 20, "black") == (None, "")
    assert handlers.curves(*question, "black", 20)[1:] == (None, None, None)
    assert handlers.files(*question, "automatic", 0.6) == (None, "")
    assert list(handlers.compare_methods(None, "tiny", None, [LEARNED], 0, "black", 0.6)) == [(None, None)]


def test_asking_too_much_is_refused(answers, tmp_path):
    handlers = events.Events(answers)
    upload = events.Upload(str(write_picture(tmp_path / "cat.png", 0)), "cat.png")
    with pytest.raises(ExplainerError, match="9 methods were chosen; choose 1 to 8"):
        next(handlers.compare_methods(upload, "tiny", None, ["gradient"] * 9, 0, "black", 0.6))
    with pytest.raises(ExplainerError, match="both classes are 'zebra'"):
        handlers.compare_classes(upload, "tiny", "zebra", LEARNED, 0, "zebra", 0.6)
    asked = upload, "tiny", "zebra", LEARNED
    for steps in (10_000, -1, float("nan"), "many", None):
        with pytest.raises(ExplainerError, match=r"refinement steps .*; give a number from 0 to 16"):
            handlers.explain(*asked, steps, "automatic", 0.6, events.HEATMAP, 20, "black")
    for steps, length in ((10_000, 3), (2, 1e9), (0, 3)):
        with pytest.raises(ExplainerError, match="give a number from"):
            handlers.counterfactual(upload, "tiny", "zebra", steps, length)
    with pytest.raises(ExplainerError, match="unknown reference 'pink'"):
        handlers.curves(*asked, 0, "pink", 20)


# ---- the command and the Space ----


def test_without_gradio_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["app"]) == 2
    assert (
        capsys.readouterr().err
        == 'hf-explain: the app needs gradio, which is not installed; pip install "hf-explain[space]".\n'
    )


def test_wrong_settings_are_refused_before_anything_is_loaded(capsys):
    assert main(["app", "--queue", "0"]) == 2
    assert "--queue 0; give more than 0." in capsys.readouterr().err
    assert main(["app", "--model", "./nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_folders_of_one_name_are_refused(tmp_path):
    folders = [str(tmp_path / one / "explainer") for one in "ab"]
    for path in folders:
        os.makedirs(path)
    with pytest.raises(ExplainerError, match="two folders are called 'explainer'; rename one"):
        make(folders)


@pytest.fixture
def no_page(monkeypatch):
    """A page that needs no model, and nobody waits for its end."""
    with gr.Blocks(analytics_enabled=False) as page:
        gr.Markdown("A page.")
    monkeypatch.setattr("hf_explain.app.start.make", lambda *a, **k: page)
    monkeypatch.setattr(page, "block_thread", lambda: None)
    yield page
    page.close(verbose=False)


def test_the_command_says_where_the_page_is_and_nothing_else(no_page, capsys):
    assert main(["app"]) == 0
    assert re.fullmatch(r"The app runs at http://127\.0\.0\.1:\d+/ until Ctrl-C\.\n", capsys.readouterr().out)


def test_a_port_in_use_is_said_with_the_flag_for_another(no_page, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["app", "--port", str(port)]) == 2
    assert capsys.readouterr().err == f"hf-explain: port {port} is in use; choose another with --port.\n"


def test_the_space():
    _, head, _ = (SPACE / "README.md").read_text("utf-8").split("---\n", 2)
    head = yaml.safe_load(head)
    assert head["sdk"] == "gradio" and f"gradio=={head['sdk_version']}\n" in (ROOT / "constraints.txt").read_text()
    assert (SPACE / head["app_file"]).is_file() and len(head["short_description"]) <= 60
    files = sorted((SPACE / "examples").glob("*"))
    assert files and sum(path.stat().st_size for path in files) < 200_000
    for index, path in enumerate(files):
        drawn = draw_scene(own.REPORT_SEED, index, own.EXAMPLE_SIDE).image.astype(int)
        assert np.abs(np.asarray(PIL.Image.open(path)).astype(int) - drawn).mean() < 8  # it is a JPEG


def test_the_space_starts_with_its_own_pictures(monkeypatch, folder):
    """Its app.py, with a tiny explainer where the demo's would be trained."""
    monkeypatch.setattr("hf_explain.app.start.demo_explainer", lambda cache: folder)
    spec = importlib.util.spec_from_file_location("space_app", SPACE / "app.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    assert isinstance(loaded.demo, gr.Blocks)
    named = {one["api_name"] for one in loaded.demo.config["dependencies"] if one["api_visibility"] == "public"}
    assert named == {"predict", "explain", "curves", "compare_classes", "compare_methods", "counterfactual", "files"}
