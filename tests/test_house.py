"""The rooms: imports go one way, doors say what is behind them, CONTRIBUTING shows them, old names still work."""

import ast
import importlib
import re
import subprocess
import sys

import house
import pytest
import snippets

from hf_explain.moved import MOVED

ROOT = house.ROOT
ROOMS = [room for room in house.FLOORS if room]
# The tensor files of modeling/, which know nothing of transformers.
BOTTOM = {"errors", "pixel_space", "references", "perturbation", "decoder", "precision", "ranking", "sinkhorn", "topk"}


def test_rooms_import_lower_floors_only():
    assert house.against_the_floors(house.arrows()) == []


def test_no_circles():
    assert house.circles(house.arrows()) == []


def test_an_import_against_the_floors_is_found(tmp_path):
    """The test of the test: one line at a time, in every way an import can be written."""
    known = house.modules()
    for line in (
        "from ..app.views import explain",
        "from ..app import views",
        "from hf_explain.app import views",
        "import hf_explain.app.views",
        "def f():\n    from ..app import views",
    ):
        path = tmp_path / "protocols.py"
        path.write_text(line)
        taken = set(house.imports("hf_explain.faithfulness.protocols", path, known))
        said = house.against_the_floors({"hf_explain.faithfulness.protocols": taken})
        assert said == ["hf_explain.faithfulness.protocols (floor 2) imports hf_explain.app.views (floor 6)"], line
    loop = {"hf_explain.a": {"hf_explain.b"}, "hf_explain.b": {"hf_explain.c"}, "hf_explain.c": {"hf_explain.a"}}
    assert house.circles(loop) == ["hf_explain.a -> hf_explain.b -> hf_explain.c -> hf_explain.a"]


def test_the_house_stays_small():
    assert len(ROOMS) <= 15 and max(house.FLOORS.values()) <= 8
    top = {path.stem for path in (ROOT / "hf_explain").glob("*.py")}
    assert top == {"__init__", "cli", "moved", "version"}  # whatever else there is has a room
    folders = {path.parent.name for path in (ROOT / "hf_explain").glob("*/__init__.py")} | {"modeling"}
    assert folders == set(ROOMS)


def test_nothing_imports_what_is_outside():
    for path in (ROOT / "hf_explain").glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not {name.split(".")[0] for name in names} & {"scripts", "tests", "modeling"}, path


def test_tensor_files_know_no_transformers():
    for name in BOTTOM:
        text = (ROOT / "modeling" / f"{name}.py").read_text()
        assert set(re.findall(r"from \.(\w+) import", text)) <= BOTTOM, name
        assert "transformers import" not in text or name == "ranking", name


@pytest.mark.parametrize("room", ROOMS)
def test_doors_say_what_is_behind_them(room):
    module = importlib.import_module(f"hf_explain.{room}")
    said = module.__doc__
    assert len(said.split("\n")[0]) <= 105 and said.split("\n")[1] == ""
    assert "tart with" in said and "import" in said  # where to read, and what it may import
    for name in getattr(module, "__all__", ()):
        assert getattr(module, name).__doc__ or isinstance(getattr(module, name), dict), name
    here = ROOT / ("modeling" if room == "modeling" else f"hf_explain/{room}")
    for name in re.findall(r"([\w/]+\.py)", said):
        assert (here / name).exists(), f"{room}: {name}"


def test_contributing_shows_the_tree():
    done = subprocess.run([sys.executable, ROOT / "scripts/house.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_tests_stand_where_their_rooms_are():
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders <= set(ROOMS)
    for path in (ROOT / "tests").glob("**/*.py"):
        imported = re.findall(r"^\s*(?:from|import) (test_\w+)", path.read_text(), re.MULTILINE)
        assert not imported, f"{path} imports {imported}; what tests share is in tests/support/"


def test_files_hold_one_idea():
    for name, path in house.modules().items():
        lines = path.read_text().count("\n")
        assert lines <= 300, f"{name}: {lines} lines"
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno - node.lineno < 60, f"{name}.{node.name}"


# Imports as README and docs printed them before the rooms.
PRINTED = """
from hf_explain.app.start import make, serve
from hf_explain.comparison import to_pixels
from hf_explain.faithfulness import PRESETS, better_by, measure
from hf_explain.grids import explain_grids, make_grids
from hf_explain.inner_methods import attribute_at
from hf_explain.intervals import interval, paired
from hf_explain.layers import find_layers
from hf_explain.localization import localization_score
from hf_explain.methods.batching import batches
from hf_explain.methods.gradients import pixel_gradient
from hf_explain.methods.semantic_pullback import pullback
from hf_explain.methods.soft_backward import Rules
from hf_explain.modeling.perturbation import reference_image
from hf_explain.modeling.ranking import gumbel_sinkhorn
from hf_explain.objectives import ranking_loss
from hf_explain.refinement import Refinement, refine
from hf_explain.road import road
from hf_explain.sanity import class_sensitivity, parameter_randomization, summary
from hf_explain.scenes import draw_scenes
from hf_explain.small_classifiers import build_classifier, random_classifier
from hf_explain.smoothing import box
from hf_explain.training import TrainingConfig, train
from hf_explain.tuning import tune
"""


@pytest.mark.parametrize("line", PRINTED.strip().splitlines())
@pytest.mark.filterwarnings("ignore:.hf_explain:FutureWarning")
def test_imports_that_were_printed_still_work(line):
    found = {}
    exec(line, found)
    for name, thing in found.items():
        if name != "__builtins__" and hasattr(thing, "__module__"):  # the same thing, not a copy
            assert getattr(importlib.import_module(thing.__module__), name) is thing


def test_old_names_warn_and_say_the_new_one():
    for old, places in MOVED.items():
        sys.modules.pop(f"hf_explain.{old}", None)
        with pytest.warns(FutureWarning, match=f"`hf_explain.{old}` is deprecated and goes in 0.2; use .*{places[0]}"):
            importlib.import_module(f"hf_explain.{old}")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("hf_explain.account")


def test_documentation_uses_no_old_name():
    for page in snippets.PAGES:
        words = set(re.findall(r"hf_explain\.(\w+)", page.read_text("utf-8")))
        assert not words & set(MOVED), page.name
