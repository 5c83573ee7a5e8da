"""README and how-tos: what they print runs, against a loopback Hub with tiny stand-ins under the ids they name."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys

import pytest
import snippets
from loopback_hub import LoopbackHub

from hf_explain import METHODS, cli

ROOT, TESTS = snippets.ROOT, snippets.ROOT / "tests" / "support"
EVERY = snippets.snippets()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    with LoopbackHub() as hub:
        environment = {
            **os.environ,
            **hub.environment(folder / "home"),
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, TESTS))),
            "OMP_NUM_THREADS": "1",
            "ACCELERATE_USE_CPU": "true",
        }
        done = subprocess.run(
            [sys.executable, TESTS / "snippets.py"],
            cwd=folder, env=environment, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        files = {repo: sorted(hub.files(repo)) for repo in ("you/vit-base-explainer",)}
    return json.loads((folder / "results.json").read_text()) | {"files": files, "folder": folder}


@pytest.mark.parametrize("page, number", [one[:2] for one in EVERY])
def test_snippet(page, number, results):
    result = results[f"{page} {number}"]
    assert "error" not in result, result["error"]


def of_page(results, page, language="python"):
    """What each of its blocks printed."""
    return [
        results[f"{name} {number}"]["printed"] for name, number, kind, _ in EVERY if (name, kind) == (page, language)
    ]


def test_snippets_do_what_they_say(results):
    first, head, classes = of_page(results, "README.md")
    assert "(60, 90)" in first
    assert "(1, 2, 224, 224)" in head.replace("torch.Size([", "(").replace("])", ")")
    assert "['tabby, tabby cat', 'tiger cat'] [3, 3]" in classes
    assert {"README.md", "config.json", "model.safetensors"} <= set(results["files"]["you/vit-base-explainer"])
    assert "67 tokens fit no grid of a 64 x 64 picture" in of_page(results, "add_a_backbone.md")[0]


def test_commands_do_what_they_say(results):
    folder = results["folder"]
    assert (folder / "README/hf-explain-demo/report.html").exists()
    assert (folder / "README/cat-285-Egyptian_cat-grad_cam.png").exists()
    for explainer in ("README/explainer", "train/explainer", "train/published"):
        assert json.loads((folder / explainer / "config.json").read_text())["trained_steps"] > 0
    assert (folder / "README/results/results.csv").exists() and (folder / "measure/results/results.csv").exists()
    assert any("classifier passes" in printed for printed in of_page(results, "train.md", "bash"))


def test_an_unknown_or_failing_command_is_an_error():
    with pytest.raises(AssertionError, match="neither in SMALL nor in NOT_RUN"):
        snippets.run_command(["python", "scripts/unknown.py"])
    with pytest.raises(AssertionError, match="ended with 2"):
        snippets.run_command(["hf-explain", "train", "--dataset", "scenes"])


def test_commands_are_read_as_a_shell_reads_them():
    block = 'A=1 torchrun --nproc-per-node 2 x.py \\\n    --b "c d"  # why\npip install . && pytest\n'
    words = ["A=1", "torchrun", "--nproc-per-node", "2", "x.py", "--b", "c d"]
    assert snippets.commands(block) == [words, ["pip", "install", "."], ["pytest"]]
    assert snippets.launched(words[1:]) == ["x.py", "--b", "c d"]


def test_installing_is_what_the_workflow_does():
    said = {" ".join(c) for *_, kind, code in EVERY if kind == "bash" for c in snippets.commands(code) if c[0] == "pip"}
    done = (ROOT / ".ci/run").read_text().replace("--quiet ", "").replace('"', "")
    assert "pip install -e .[test] -c constraints.txt" in said and "pip install -e .[test] -c constraints.txt" in done
    extras = {extra for one in said for extra in re.findall(r"\.\[(\w+)\]", one)}
    assert extras <= set(
        re.findall(r'"(\w+)": \w+', re.search(r"extras_require=(.*)", (ROOT / "setup.py").read_text())[1])
    )


# ---- what is said between the snippets ----


def prose(page):
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)


def help_of(command):
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        cli.main([command, "--help"])
    return printed.getvalue()


def test_commands_and_flags_in_the_text_exist():
    flags = {flag for command in cli.COMMANDS for flag in re.findall(r"--\w+", help_of(command))}
    flags |= {flag for path in ROOT.glob("scripts/*.py") for flag in re.findall(r'"(--\w+)"', path.read_text())}
    for page in snippets.PAGES:
        for code in re.findall(r"`([^`]+)`", prose(page)):
            words = code.split()
            if words[0] == "hf-explain":
                assert words[1] in cli.COMMANDS, f"{page.name}: {code}"
            if words[0] == "python" and words[1].startswith("scripts/"):
                assert (ROOT / words[1]).exists(), f"{page.name}: {code}"
            if words[0] in ("hf-explain", "python") or words[0].startswith("--"):
                assert set(re.findall(r"--\w+", code)) <= flags, f"{page.name}: {code}"


def test_names_in_the_text_exist():
    """`hf_explain.a.b` is there, and the README names every method."""
    from importlib import import_module

    for page in snippets.PAGES:
        for name in re.findall(r"`(hf_explain(?:\.\w+)+)", prose(page)):
            module, thing = import_module("hf_explain"), None
            for part in name.split(".")[1:]:
                with contextlib.suppress(ImportError):
                    import_module(f"{module.__name__}.{part}")
                module = thing = getattr(module, part, None)
                assert thing is not None, f"{page.name}: {name}"
                if not hasattr(thing, "__path__") and not hasattr(thing, "__spec__"):
                    break
    named = set(re.findall(r"`([\w-]+)`", prose(ROOT / "README.md")))
    assert {name.replace("_", "-") for name in METHODS} <= named
    assert {f"`{name}`" for name in METHODS} <= set(re.findall(r"`\w+`", prose(ROOT / "docs/methods.md")))


def test_every_page_is_linked_and_every_link_leads_somewhere():
    linked = set()
    for page in snippets.PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]*)?\)", prose(page)):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
            linked.add((page.parent / target).resolve())
    assert set(snippets.PAGES) <= {*linked, ROOT / "README.md"}
