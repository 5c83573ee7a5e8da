"""What is installed, what importing costs, and what is public."""

import ast
import doctest
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import snippets

import hf_explain

ROOT = Path(__file__).resolve().parent.parent
TRAVELS = {"torch", "transformers", "numpy", "PIL"}


def child(code):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_brings_nothing_heavy():
    """Beyond what `from transformers import AutoModel, pipeline` imports by itself."""
    added = child(
        "import sys; from transformers import AutoModel, pipeline; before = set(sys.modules); import hf_explain\n"
        "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    assert "hf_explain" in added
    assert not set(added) & {"captum", "datasets", "evaluate", "accelerate", "matplotlib", "gradio", "scipy", "pandas"}


def test_modeling_imports_only_what_travels():
    for path in (ROOT / "modeling").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1 and node.module and "." not in node.module, path.name  # siblings are copied flat
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                for top in (name.split(".")[0] for name in names):
                    assert top in TRAVELS or top in sys.stdlib_module_names, f"{path.name}: {top}"


def test_modeling_is_one_package_under_one_name():
    assert (ROOT / "hf_explain" / "modeling").resolve() == ROOT / "modeling"
    assert "modeling" not in sys.modules
    assert hf_explain.Classifier.__module__ == "hf_explain.modeling.classifier"


def test_public_names_exist_and_are_documented():
    for name in hf_explain.__all__:
        thing = getattr(hf_explain, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert thing.__doc__, name
    for promised in (
        "Classifier",
        "ExplainerForImageClassification",
        "RankingExplainerForImageClassification",
        "AutoModelForImageAttribution",
        "METHODS",
    ):
        assert promised in hf_explain.__all__


def test_registration_is_idempotent(monkeypatch):
    from transformers.pipelines import PIPELINE_REGISTRY

    def refuse(*args, **kwargs):
        raise AssertionError("registered twice")

    monkeypatch.setattr(PIPELINE_REGISTRY, "register_pipeline", refuse)
    hf_explain.register()
    assert PIPELINE_REGISTRY.supported_tasks["image-attribution"]["impl"] is hf_explain.ImageAttributionPipeline


# What users call beyond `hf_explain.__all__`, `METHODS` and what a snippet of the documentation imports.
PUBLIC = {
    "data.scenes": ("draw_scene", "draw_scenes", "load_scenes", "to_pixels"),
    "data.small_classifiers": ("build_classifier", "random_classifier"),
    "evaluating.sanity": ("class_sensitivity", "correlation", "parameter_randomization", "summary"),
    "explaining.counterfactual": ("counterfactual",),
    "explaining.regions": ("smallest_region",),
    "faithfulness": ("better_by", "measure", "read_protocol"),
    "faithfulness.correlations": (
        "faithfulness_correlation", "faithfulness_estimate", "monotonicity_correlation", "random_logit",
    ),
    "faithfulness.imputation": ("impute",),
    "faithfulness.information": ("information_curves",),
    "faithfulness.intervals": ("interval", "paired"),
    "faithfulness.masked_confidence": ("masked_confidence",),
    "faithfulness.road": ("road",),
    "faithfulness.robustness": ("infidelity", "max_sensitivity"),
    "faithfulness.similarity": ("pearson", "spearman", "ssim"),
    "localization": (
        "average_precision", "cell_masks", "class_discrimination", "localization_score", "pointing_game",
    ),
    "localization.aggatt": ("aggatt_sheet",),
    "localization.aggregation": ("aggregate", "bin_edges", "sort_maps"),
    "localization.grids": ("confident_pictures", "explain_cells", "explain_grids", "make_grids"),
    "localization.segmentation": ("average_precision", "segment"),
    "methods.inner": ("attribute_at",),
    "methods.layers": ("LayerClassifier", "find_layers"),
    "methods.smoothing": ("box", "gaussian"),
    "modeling.perturbation": ("blend", "rank_each", "rank_pixels", "top_mask"),
    "modeling.ranking": ("draw_gumbel", "gumbel_sinkhorn", "soft_topk"),
    "modeling.references": ("blur_with", "read_reference", "reference_image"),
    "reports": ("headline",),
    "reports.sheet": ("sheet",),
    "training": ("Refinement", "TrainingConfig", "refine", "train", "tune"),
    "training.refinement": ("standardize",),
}  # fmt: skip


def public():
    """name -> what users call."""
    found = {name: getattr(hf_explain, name) for name in hf_explain.__all__ if name != "METHODS"}
    found |= {f"METHODS[{name!r}]": method for name, method in hf_explain.METHODS.items()}
    named = [(module, name) for module, names in PUBLIC.items() for name in names]
    for *_, language, code in snippets.snippets():
        for node in ast.walk(ast.parse(code) if language == "python" else ast.Module([])):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hf_explain."):
                named += [(node.module.removeprefix("hf_explain."), alias.name) for alias in node.names]
    for module, name in named:
        found[f"{module}.{name}"] = getattr(importlib.import_module(f"hf_explain.{module}"), name)
    return {name: thing for name, thing in found.items() if inspect.isclass(thing) or inspect.isroutine(thing)}


@pytest.mark.parametrize("name, thing", public().items())
def test_what_users_call_has_an_example(name, thing):
    finder = doctest.DocTestFinder(recurse=False)
    assert any(test.examples for test in finder.find(inspect.unwrap(thing), name, globs={})), name


@pytest.mark.parametrize("module", [found.name for found in pkgutil.walk_packages(hf_explain.__path__, "hf_explain.")])
def test_examples_in_docstrings(module):
    """Every `>>>` runs, with no network, and prints what it says."""
    assert not doctest.testmod(importlib.import_module(module)).failed


def test_the_default_model_is_that_of_image_classification():
    """No explainer has been published: without a model it is a plain classifier's pixels that are explained."""
    from transformers.pipelines import PIPELINE_REGISTRY
    from transformers.pipelines.base import get_default_model_and_revision

    tasks = PIPELINE_REGISTRY.supported_tasks
    ours, theirs = (
        get_default_model_and_revision(tasks[t], None) for t in ("image-attribution", "image-classification")
    )
    assert ours == theirs and ours[0] == "google/vit-base-patch16-224"


def test_version_is_written_once():
    said = subprocess.run([sys.executable, "setup.py", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert said.stdout.split()[-1] == hf_explain.__version__


def test_files_speak_of_the_project_only():
    """No file under version control names a machine's paths."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:  # an unpacked sdist
        listed.stdout = "\n".join(str(p.relative_to(ROOT)) for p in ROOT.glob("**/*.py"))
    words = re.compile(r"/(?:root|work)/|\b[A-Z]:\\\\Users")
    for name in listed.stdout.split():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".txt", ".cff", ".yml"} and path.name != Path(__file__).name:
            assert not words.search(path.read_text()), name
