"""The Hub as users meet it: the real clients, in processes of their own, against `loopback_hub.py`.

Each script in hub_scripts is one role and holds many checks, since starting a process takes seconds; each of its checks
is a test here. The roles follow one another: what the author pushes, the others read.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from loopback_hub import LoopbackHub

import hf_explain

TESTS = Path(__file__).parents[1] / "support"
SCRIPTS = TESTS / "hub_scripts"
LIBRARY = Path(hf_explain.__file__).parent.parent
NOT_INHERITED = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_MODULES_CACHE")


@pytest.fixture(scope="module")
def hub():
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What the roles share, and an empty folder to stand in."""
    root = tmp_path_factory.mktemp("hub")
    for name in ("shared", "empty"):
        (root / name).mkdir()
    return root


def play(role, hub, folders, home=None, isolated=False, **environment):
    """Runs a role and returns {check: traceback, or "" when it passed}."""
    results = folders / f"{role}.json"
    flags = ["-I"] if isolated else []
    command = [sys.executable, *flags, SCRIPTS / f"{role}.py", results, folders / "shared", SCRIPTS]
    variables = {
        **{k: v for k, v in os.environ.items() if k not in NOT_INHERITED},
        **hub.environment(folders / (home or role)),
        "PYTHONPATH": os.pathsep.join(map(str, [LIBRARY, TESTS])),
        "EXECUTED": str(folders / "executed"),
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    child = subprocess.run(
        list(map(str, command)),
        cwd=folders / "empty",
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 0, child.stdout + child.stderr
    return json.loads(results.read_text())


@pytest.fixture(scope="module")
def author(hub, folders):
    return play("author", hub, folders)


@pytest.fixture(scope="module")
def reader(author, hub, folders):
    return play("reader", hub, folders, HF_TOKEN="")


@pytest.fixture(scope="module")
def offline(reader, hub, folders):
    """In the cache that the reader has filled."""
    hub.log.clear()
    return play("offline", hub, folders, home="reader", HF_HUB_OFFLINE="1") | {"log": list(hub.log)}


@pytest.fixture(scope="module")
def without_library(author, hub, folders):
    return play("without_library", hub, folders, isolated=True, HF_TOKEN="")


def checks(role):
    return re.findall(r"^def (check_\w+)", (SCRIPTS / f"{role}.py").read_text(), re.MULTILINE)


@pytest.mark.parametrize("check", checks("author"))
def test_author(author, check):
    assert not author[check], author[check]


@pytest.mark.parametrize("check", checks("reader"))
def test_reader(reader, check):
    assert not reader[check], reader[check]


@pytest.mark.parametrize("check", checks("offline"))
def test_offline(offline, check):
    assert not offline[check], offline[check]


def test_offline_asks_the_hub_for_nothing(offline):
    assert offline["log"] == []


@pytest.mark.parametrize("check", checks("without_library"))
def test_without_library(without_library, check):
    assert not without_library[check], without_library[check]
