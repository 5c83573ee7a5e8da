"""What the app takes: from its start to the first map, per interaction, and under many visitors at once.

The app runs in a process of its own, as `hf-explain app` starts it, and is asked by gradio_client.
"""

import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import PIL.Image
import psutil
from gradio_client import Client, handle_file

from hf_explain.app import views
from hf_explain.app.events import HEATMAP
from hf_explain.app.models import LEARNED, Models
from hf_explain.app.uploads import read_upload
from hf_explain.data.scenes import draw_scene
from hf_explain.demo.kept import demo_explainer
from hf_explain.modeling.errors import ExplainerError

SEED = 20_000  # of the pictures, which no training saw
DIFFERENT = 24  # pictures that the clients draw from


def app(arguments):
    """Rows of numbers; an answer that is lost or wrong ends it."""
    folder = arguments.model or demo_explainer()
    with tempfile.TemporaryDirectory() as scratch:
        paths = [draw(Path(scratch) / f"{index}.png", index) for index in range(DIFFERENT)]
        with Server(folder, scratch, arguments.threads) as server:
            client = Client(server.address, verbose=False)
            started = time.perf_counter()
            explain(client, server.name, paths[0], opacity=0.6)
            first = time.perf_counter() - started
            yield {
                "cold_start_to_first_map_s": round(server.seconds + first, 2),
                "until_the_page_s": round(server.seconds, 2),
                "cpu_s": round(server.cpu(), 2),
            }
            yield from interactions(client, server, paths[1], arguments.runs)
            yield load(server, paths, folder, arguments)


def draw(path, index):
    PIL.Image.fromarray(draw_scene(SEED, index, 256).image).save(path)
    return path


class Server:
    """The app in a process of its own; `seconds` until it answered."""

    def __init__(self, folder, scratch, threads):
        self.name = os.path.basename(os.path.abspath(folder))
        port = random.randint(20_000, 40_000)
        self.address = f"http://127.0.0.1:{port}/"
        command = [sys.executable, "-m", "hf_explain.cli", "app", "--model", folder, "--port", str(port)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "GRADIO_TEMP_DIR": str(scratch)}
        self.log = open(Path(scratch) / "log.txt", "w")  # noqa: SIM115 (closed with the process)
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [*command, "--cache_dir", str(scratch)], env=environment, stdout=self.log, stderr=subprocess.STDOUT
        )
        while not self.answers():
            if self.process.poll() is not None:
                raise ExplainerError(f"the app ended with {Path(self.log.name).read_text()[-500:]!r}.")
            time.sleep(0.05)
        self.seconds = time.perf_counter() - started

    def answers(self):
        try:
            return httpx.get(self.address, timeout=60).status_code == 200
        except httpx.TransportError:
            return False

    def memory(self):
        """Resident, in MB."""
        return psutil.Process(self.process.pid).memory_info().rss / 1e6

    def cpu(self):
        """Seconds that it computed, in all threads: what a busy machine does not make longer."""
        return sum(psutil.Process(self.process.pid).cpu_times()[:2])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.log.close()


def explain(client, model, path, opacity):
    asked = handle_file(str(path)), model, None, LEARNED, 0, "automatic", opacity, HEATMAP, 20, "black"
    return client.predict(*asked, api_name="/explain")


def interactions(client, server, path, runs):
    """A row per kind: median seconds that a visitor waits for a new answer, and that the server computes for it."""
    picture, model = handle_file(str(path)), server.name
    classes = [one["label"] for one in client.predict(picture, model, api_name="/predict")["confidences"]]
    look = "automatic", 0.6, HEATMAP, 20, "black"
    calls = {
        "another opacity": lambda i: (picture, model, None, LEARNED, 0, "automatic", 0.1 * i, *look[2:], "/explain"),
        "another class": lambda i: (picture, model, classes[i], LEARNED, 0, *look, "/explain"),
        "curves": lambda i: (picture, model, classes[i], LEARNED, 0, "blur", 20, "/curves"),
        "scrubber": lambda i: (picture, model, classes[0], LEARNED, 0, "blur", 25 + 5 * i, "/curves"),
        "two classes": lambda i: (picture, model, classes[i], LEARNED, 0, classes[i - 1], 0.6, "/compare_classes"),
        "refined, 2 steps": lambda i: (picture, model, classes[i], LEARNED, 2, *look, "/explain"),
        "integrated gradients": lambda i: (picture, model, classes[i], "integrated_gradients", 0, *look, "/explain"),
        "counterfactual, 5 steps": lambda i: (picture, model, classes[i], 5, 3, "/counterfactual"),
    }
    for name, call in calls.items():
        waited, computed = [], []
        for run in range(min(runs, len(classes))):
            *asked, endpoint = call(run)
            started, cpu = time.perf_counter(), server.cpu()
            client.predict(*asked, api_name=endpoint)
            waited.append(time.perf_counter() - started)
            computed.append(server.cpu() - cpu)
        yield {
            "interaction": name,
            "s": round(statistics.median(waited), 3),
            "cpu_s": round(statistics.median(computed), 3),
        }


def load(server, paths, folder, arguments):
    """Requests of several clients at once, each answer compared with the one that `views` give."""
    model = Models({"here": folder}).load("here")
    expected = [views.predict(model, read_upload(path)).top[0] for path in paths]
    wrong, lost, done, memory, lock = [], [], [0], {}, threading.Lock()
    turns = iter(range(arguments.requests // 2))  # the clients share them

    def one(client, index):
        said = client.predict(handle_file(str(paths[index])), server.name, api_name="/predict")
        words = explain(client, server.name, paths[index], 0.6)[1]
        best = said["confidences"][0]
        same = best["label"] == expected[index].name and abs(best["confidence"] - expected[index].score) < 1e-4
        if not same or f"<b>{expected[index].name}</b>" not in words:
            wrong.append((index, best))

    def visit(number):
        client, order = Client(server.address, verbose=False), random.Random(number)
        for _ in turns:  # each is two requests
            try:
                one(client, order.randrange(len(paths)))
            except Exception as error:
                lost.append(repr(error))
            with lock:
                done[0] += 2
                memory[done[0]] = server.memory()

    started = time.perf_counter()
    with ThreadPoolExecutor(arguments.clients) as pool:
        list(pool.map(visit, range(arguments.clients)))
    seconds = time.perf_counter() - started
    early, late = memory[arguments.requests // 4], memory[arguments.requests]
    return {
        "requests": done[0], "clients": arguments.clients, "lost": len(lost), "wrong": len(wrong),
        "requests_per_s": round(done[0] / seconds, 2), f"memory_after_{arguments.requests // 4}_mb": round(early),
        f"memory_after_{arguments.requests}_mb": round(late), "ratio": round(late / early, 3),
    }  # fmt: skip
