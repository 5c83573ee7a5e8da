"""The app: what it computes and draws, what it lets in, and its endpoints as programs call them."""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import importlib.util
import json
import re
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import gradio as gr
import httpx
import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from app_cases import CASES, make_explainer, png_header, write_picture
from families import LABELS, build, processor, save_classifier
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from loopback_hub import LoopbackHub
from transformers import pipeline

import hf_explain
from hf_explain import ExplainerError
from hf_explain.app import demo_explainer as own
from hf_explain.app import events, painting, reproduction, views
from hf_explain.app.answers import Answers
from hf_explain.app.layout import build as build_page
from hf_explain.app.models import LEARNED, Model, Models
from hf_explain.app.start import make, serve
from hf_explain.app.uploads import Limits, Picture, read_upload
from hf_explain.cli import main
from hf_explain.demo_settings import Demo
from hf_explain.faithfulness import measure
from hf_explain.modeling.perturbation import blend, reference_image
from hf_explain.scenes import draw_scene

ROOT = Path(__file__).resolve().parent.parent
SPACE = ROOT / "spaces" / "image_attribution"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_explainer(tmp_path_factory.mktemp("app") / "tiny")


@pytest.fixture(scope="module")
def answers(folder):
    return Answers(Models({"tiny": folder}))


@pytest.fixture(scope="module")
def model(answers):
    return answers.models.load("tiny")


@pytest.fixture
def picture(tmp_path):
    return read_upload(write_picture(tmp_path / "cat.png", 0))


# ---- what is computed ----


def test_predictions_are_the_classifiers(model, picture):
    seen = views.predict(model, picture, 3)
    logits = model.classifier(model.pipe().preprocess(picture.image)["pixel_values"])[0]
    probabilities = logits.softmax(-1)
    assert [one.index for one in seen.top] == logits.argsort(descending=True)[:3].tolist()
    assert [one.score for one in seen.top] == pytest.approx(probabilities.sort(descending=True).values[:3].tolist())
    assert seen.names == tuple(LABELS.values()) and seen.methods[0] == LEARNED


@pytest.mark.parametrize(("method", "steps"), [(LEARNED, 0), (LEARNED, 2), ("input_x_gradient", 0), ("gradient", 0)])
def test_a_map_is_that_of_the_pipeline(model, picture, folder, method, steps):
    one = views.attribute(model, picture, "zebra", method, steps)
    explain = pipeline("image-attribution", model=folder)
    options = {"refine_steps": steps, "seed": 0} if steps else {}
    if method != LEARNED:
        classifier = explain.model.classifier
        explain = pipeline("image-attribution", model=classifier.model, image_processor=classifier.image_processor)
        options = {"method": method, "seed": 0}
    expected = explain(picture.image, target="zebra", **options)[0]
    np.testing.assert_allclose(one.attribution, expected["attribution"], atol=1e-5)
    assert one.prediction.score == pytest.approx(expected["score"]) and one.seconds > 0
    assert one.signed == (method == "input_x_gradient")  # those of gradient are never below zero


def test_what_the_curves_say_is_what_the_classifier_says(model, picture):
    """The scrubber's pictures, shown to the classifier, give the curve's points."""
    one = views.attribute(model, picture)
    walk = views.walk(model, one, "blur")
    report = measure(model.classifier, one.pixel_values, one.at_model, preset="aha", reference="blur")
    assert walk.areas == pytest.approx({"deletion": float(report.deletion[0]), "insertion": float(report.insertion[0])})
    space = model.classifier.pixel_space
    for share in (0.0, 0.35, 1.0):
        for name, (shown, probability) in views.steps_of(walk, share).items():
            rgb = torch.from_numpy(np.array(shown)).permute(2, 0, 1)[None] / 255
            with torch.no_grad():
                said = model.classifier.scores(model.classifier(space.from_rgb(rgb)))[0, one.prediction.index]
            assert float(said) == pytest.approx(probability, abs=5e-3), (name, share)  # the picture has 8 bits
    whole, none = (np.asarray(views.steps_of(walk, share)["deletion"][0]) for share in (0, 1))
    assert (whole != none).mean() > 0.5


def test_the_smallest_region_keeps_the_prediction(model, picture):
    one = views.attribute(model, picture)
    share = views.region(model, one, "black")
    rank = hf_explain.modeling.perturbation.rank_each(one.at_model, views.SEED)
    blank = reference_image(one.pixel_values, model.classifier.pixel_space, "black")

    steps = [i / 40 for i in range(41)]
    removed = torch.cat([rank >= round(part * rank[0].numel()) for part in steps])
    with torch.no_grad():
        said = model.classifier(blend(one.pixel_values.expand(41, -1, -1, -1), removed, blank)).argmax(-1)
    kept = (said == one.prediction.index).tolist()
    assert share == pytest.approx(min(steps[i] for i in range(41) if all(kept[i:])))
    other = next(name for name in model.names if name != one.prediction.name)
    with pytest.raises(ExplainerError, match="choose the prediction to see it"):
        views.region(model, views.attribute(model, picture, other))


def test_the_difference_of_two_classes_is_one_of_ranks(model, picture):
    one, two = (views.attribute(model, picture, name, "input_x_gradient") for name in ("zebra", "tiger cat"))
    apart = views.difference(one, two)
    np.testing.assert_allclose(apart, -views.difference(two, one))
    assert apart.min() >= -1 and apart.max() <= 1 and abs(apart.mean()) < 1e-6
    best = np.unravel_index(one.attribution.argmax(), one.attribution.shape)
    assert apart[best] == pytest.approx(1 - views.relative_rank(two.attribution)[best])


def test_single_steps_of_a_counterfactual_are_its_steps(model, picture):
    moved = views.move(model, picture, "zebra", 3, 5.0)
    start = model.pipe().preprocess(picture.image)["pixel_values"]
    at_once = hf_explain.counterfactual(model.classifier, start, model.index("zebra"), steps=3, length=5.0)
    assert moved.probabilities == pytest.approx(at_once.probabilities[0].tolist(), abs=1e-4)
    assert moved.target.score == moved.probabilities[-1] > moved.probabilities[0]
    expected = at_once.displacement[0].mean(0).numpy() / 2  # colors from -1 to 1 there, from 0 to 1 here
    np.testing.assert_allclose(moved.change, expected, atol=1e-4)
    assert len(moved.pictures) == 4 and moved.reached == bool(at_once.reached[0])


def test_classes_of_one_name_have_their_index_with_it():
    labels = {0: "crane", 1: "cat", 2: "crane"}
    named = Model("m", hf_explain.Classifier(build("resnet", labels=labels), processor(64)).freeze())
    assert named.names == ["crane (0)", "cat", "crane (2)"]
    assert [named.index(target) for target in ("crane (2)", "cat", "0", 1)] == [2, 1, 0, 1]
    with pytest.raises(ExplainerError, match="names 2 classes"):
        named.index("crane")
    with pytest.raises(ExplainerError, match="m is a plain classifier without an explainer"):
        named.pipe(LEARNED)


# ---- what is shown ----


def lightness(colors):
    """CIE L* of sRGB colors (N, 3)."""
    linear = np.where(colors / 255 <= 0.04045, colors / 255 / 12.92, ((colors / 255 + 0.055) / 1.055) ** 2.4)
    y = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)


@pytest.mark.parametrize("name", list(painting.COLOR_MAPS))
def test_color_maps_are_even_in_lightness(name):
    """Sequential ones rise in nearly equal steps; diverging ones fall alike from the middle to both ends."""
    light = lightness(painting.color(np.linspace(0, 1, 33)[None], painting.COLOR_MAPS[name])[0])
    if name in painting.DIVERGING:
        assert np.abs(light - light[::-1]).max() < 8 and light.argmax() == 16
        light = light[:17]
    steps = np.diff(light)
    assert (steps > 0).all() and steps.max() < 3 * np.median(steps)


def test_zero_is_in_the_middle_of_diverging_colors():
    values = np.array([[-1.0, 0.0], [0.5, 2.0]])
    assert painting.scale(values, diverging=True)[0, 1] == 0.5
    assert (
        painting.choose_colors("automatic", True) == "blue-red"
        and painting.choose_colors("automatic", False) == "ember"
    )
    constant = painting.scale(np.ones((2, 2)), diverging=False)
    assert (constant == 0).all() and (painting.scale(np.zeros((2, 2)), diverging=True) == 0.5).all()
    with pytest.raises(ExplainerError, match="unknown colors 'jet'; choose from automatic, ember"):
        painting.choose_colors("jet", False)


def test_where_the_model_never_looked_the_picture_is_as_it_was():
    image = PIL.Image.fromarray(draw_scene(0, 0).image)
    values = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    values[:, :10] = np.nan
    shown = np.asarray(painting.paint(image, values, opacity=1.0))
    assert (shown[:, :10] == np.asarray(image)[:, :10]).all() and (shown[:, 10:] != np.asarray(image)[:, 10:]).any()
    top = painting.top_share(values, 0.25)
    assert top.sum() == round(0.25 * 64 * 54) and not top[:, :10].any()
    assert values[top].min() >= values[~top & np.isfinite(values)].max()
    kept = np.asarray(painting.keep(image, top))
    assert (kept[top] == np.asarray(image)[top]).all() and kept[~top].max() < 0.13 * 255
    clear = painting.paint(image, values, opacity=0.0)
    assert np.abs(np.asarray(clear)[:, 20, 0].astype(int) - np.asarray(image.convert("L"))[:, 20]).max() <= 1


# ---- what is let in ----


@pytest.mark.parametrize(("name", "write", "said"), CASES, ids=[case[0] for case in CASES])
def test_bad_uploads_are_refused_in_one_sentence(tmp_path, name, write, said):
    path = tmp_path / name
    write(path)
    with pytest.raises(ExplainerError, match=said) as error:
        read_upload(path, name, Limits(upload_bytes=2_000_000))
    text = str(error.value)
    assert str(tmp_path) not in text and "\n" not in text and text.count(". ") == 0 and len(text) < 200


def test_a_picture_is_known_by_its_content_and_bounded(tmp_path):
    """A PNG called .jpg is what the web is full of."""
    path = write_picture(tmp_path / "wide.png", 1, size=(3000, 600))
    path.rename(tmp_path / "wide.jpg")
    found = read_upload(tmp_path / "wide.jpg")
    assert found.image.size == (1024, 205) and found.image.mode == "RGB"
    again = read_upload(tmp_path / "wide.jpg", "another.png")
    assert found == again and hash(found) == hash(again)
    assert found != read_upload(write_picture(tmp_path / "other.png", 2))


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(30_000, 30_000))
    monkeypatch.setattr(PIL.Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ExplainerError, match="pixels"):
        read_upload(path)


def test_models_a_visitor_may_not_name(folder, tmp_path, monkeypatch):
    models = Models({"tiny": folder})
    monkeypatch.chdir(tmp_path)
    Path("owner/name").mkdir(parents=True)
    for name in (folder, "../tiny", "tiny/../../etc", "owner/name", "https://elsewhere.org/x", "", "a b/c"):
        with pytest.raises(
            ExplainerError, match=r"^besides .* list, this page loads those of the Hub only; give an id"
        ):
            models.load(name)
    with pytest.raises(ExplainerError, match=r"^tester/nothing could not be loaded: the Hub cannot be reached\.$"):
        models.load("tester/nothing")
    with pytest.raises(ExplainerError, match="this app explains tiny only"):
        Models({"tiny": folder}, open=False).load("tester/nothing")
    assert not models.loading


def test_a_model_is_loaded_once_and_forgotten_in_turn(folder, monkeypatch):
    models = Models(dict.fromkeys("abc", folder), kept=2)
    with ThreadPoolExecutor(4) as pool:
        assert len({id(one) for one in pool.map(models.load, "aaaa")}) == 1
    first = models.load("a")
    models.load("b")
    assert models.load("a") is first
    models.load("c")
    assert list(models.loaded) == ["a", "c"]


HUB = """
import json, os, sys
import torch
from families import build, processor
from huggingface_hub import HfApi
from loopback_hub import LoopbackHub
from hf_explain import ExplainerError, RankingExplainerForImageClassification
from hf_explain.app.models import Models
from hf_explain.app.uploads import Limits

api, owner = HfApi(), os.environ["HF_TOKEN"]
for name in ("plain", "hidden", "pickled", "coded", "bare"):
    build("resnet").push_to_hub(f"tester/{name}", private=name == "hidden")
    if name != "bare":
        processor(64).push_to_hub(f"tester/{name}")
build("vit", hidden_size=256, intermediate_size=1024).push_to_hub("tester/wide")
processor(64).push_to_hub("tester/wide")
explainer = RankingExplainerForImageClassification.from_classifier("tester/wide", preset="tiny")
explainer.push_to_hub("tester/explainer")
config = json.load(open(api.hf_hub_download("tester/coded", "config.json")))
config |= {"model_type": "strange", "auto_map": {"AutoConfig": "code.C", "AutoModelForImageClassification": "code.M"}}
api.upload_file(path_or_fileobj=json.dumps(config).encode(), path_in_repo="config.json", repo_id="tester/coded")
api.upload_file(path_or_fileobj=b"raise SystemExit('ran')", path_in_repo="code.py", repo_id="tester/coded")

said = {}
def ask(key, name, **settings):
    try:
        said[key] = Models({}, **settings).load(name).methods[0]
    except ExplainerError as error:
        said[key] = str(error)

ask("plain", "tester/plain")
ask("explainer", "tester/explainer")
ask("hidden", "tester/hidden")
ask("missing", "tester/missing")
ask("coded", "tester/coded")
ask("bare", "tester/bare")
ask("large", "tester/plain", limits=Limits(model_bytes=1000))
head = os.path.getsize(api.hf_hub_download("tester/explainer", "model.safetensors"))
ask("large classifier", "tester/explainer", limits=Limits(model_bytes=head))
print(json.dumps(said))
"""


def test_models_of_the_hub(tmp_path):
    """Public ones are read; hidden, missing, large and coding ones are refused in a sentence."""
    with LoopbackHub() as hub:
        environment = {**os.environ, **hub.environment(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        done = subprocess.run(
            [sys.executable, "-c", HUB], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=240
        )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["plain"] == "random" and said["explainer"] == LEARNED
    assert said["hidden"] == "tester/hidden could not be loaded: there is no public model of that id."
    assert said["missing"] == "tester/missing could not be loaded: there is no public model of that id."
    assert said["coded"] == "tester/coded could not be loaded: it needs code of its own, which this app does not run."
    assert said["bare"] == "tester/bare has no image processor beside it; choose another model."
    for key, name in (("large", "plain"), ("large classifier", "wide")):
        assert re.fullmatch(rf"the weights of tester/{name} have .* GB, but this app takes up to .*", said[key]), said[
            key
        ]


# ---- the demo's explainer ----


def test_the_demo_is_trained_once_and_kept(tmp_path, monkeypatch, capsys):
    settings = Demo(size=32, train_pictures=8, epochs=1, explainer_steps=1, batch_size=2, hidden_size=8)
    first = own.demo_explainer(tmp_path, settings)
    assert "some minutes, once.\nWith --model FOLDER it uses" in capsys.readouterr().out
    assert views.predict(Models({"demo": first}).load("demo"), Picture("x", PIL.Image.new("RGB", (40, 40)))).top
    assert os.listdir(tmp_path) == [Path(first).name]  # nothing is left of the training
    monkeypatch.setattr(own, "train", lambda *a: pytest.fail("trained again"))
    assert own.demo_explainer(tmp_path, settings) == first
    other = replace(settings, seed=1)
    assert own.key(other) != own.key(settings) == own.key(replace(settings, output_dir="elsewhere"))
    monkeypatch.setattr(own, "train", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        own.demo_explainer(tmp_path, other)
    assert os.listdir(tmp_path) == [Path(first).name]


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
    one = answers.attribute("tiny", picture, "zebra", LEARNED)
    models = Models({reproduction.OWN: lambda: answers.models.own["tiny"]})
    text = reproduction.code(models, reproduction.OWN, one, "/somewhere/cat.png", "automatic", 0.6, Limits())
    assert "model=demo_explainer()" in text and "/" not in text.replace('""" ', "").replace("hf-explain", "")
    compile(text, "explain.py", "exec")


def test_the_code_says_that_a_folder_has_to_be_put_beside_it(answers, picture, folder):
    """By its name alone: where it lies is nobody's business."""
    one = answers.attribute("tiny", picture, "zebra", LEARNED)
    rest = one, "cat.png", "automatic", 0.6, Limits()
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


def test_labels_of_a_model_are_text(tmp_path):
    labels = {i: f"<img src=x onerror=alert({i})>" for i in range(5)}
    save_classifier(tmp_path / "evil", labels=labels)
    handlers = events.Events(Answers(Models({"evil": str(tmp_path / "evil")})))
    upload = events.Upload(str(write_picture(tmp_path / "cat.png", 0)), "cat.png")
    question = upload, "evil", labels[0], "gradient", 0
    _, words = handlers.explain(*question, "automatic", 0.6, events.HEATMAP, 20, "black")
    drawing = handlers.curves(*question, "black", 20)[0]
    *_, ends = handlers.compare_classes(*question, labels[1], 0.6)
    *_, outcome = handlers.counterfactual(upload, "evil", labels[1], 1, 3)
    assert all("<img" not in text and "&lt;img" in text for text in (words, drawing, ends, outcome))


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
