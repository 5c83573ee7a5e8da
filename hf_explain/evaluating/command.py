"""`hf-explain evaluate`: methods and explainers on a data set, measured side by side."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from functools import partial
from pathlib import Path

import torch

from ..data.flags import DATA_SET, SCENES_SEED
from ..faithfulness.protocols import PRESETS, read_protocol
from ..jobs.flags import check_counts, flag
from ..jobs.models import load
from ..methods.naming import split_names
from ..modeling.errors import ExplainerError
from ..modeling.references import RAW_REFERENCES, REFERENCES, read_reference
from .methods import DEFAULT, REFINE_STEPS, TUNE_STEPS, find_method, find_refusals, read_names

REFUSED = "refused.json"


FLAGS = {
    "what is measured": {
        "--explainer": flag("Hub id or folder of an explainer; its maps are the method `learned`"),
        "--classifier": flag("Hub id or folder of a classifier, or photos:<name>, for training-free methods alone"),
        "--methods": flag(
            "names with commas, the first one is compared with the others: learned, refined (learned, then "
            f"{REFINE_STEPS} steps), tuned (of ltx: {TUNE_STEPS} steps on the picture), those of docs/methods.md, also "
            "with options as in 'rise(masks=8000)', or all: of these those that are defined for the classifier, and "
            f"named with options beside it if so (default: learned and {DEFAULT})"
        ),
        "--explained": flag("class of the maps: predicted or label", "predicted"),
    },
    "pictures": {
        **DATA_SET,
        "--dataset": DATA_SET["--dataset"] | {"required": True},
        "--split": flag("default: test; of a folder without one validation, else all there is"),
        "--label_column": flag("column with the true classes"),
        "--mask_column": flag("column with pictures that are not black where the evidence is"),
        **SCENES_SEED,
    },
    "how it is measured": {
        "--preset": flag(f"one or more of {', '.join(PRESETS)}", ("aha",)),
        "--reference": flag("what removed pixels become, each in turn (default: the preset's)", nargs="+"),
        "--budgets": flag("points of the curves (default: the preset's)", type=int),
        "--grids": flag("also DiFull, on so many grids of 2 x 2 of the pictures", 0),
        "--batch_size": flag("pictures per forward", 32),
        "--block": flag("pictures per part of the results", 64),
        "--dtype": flag("bfloat16: the classifier's forwards are autocast to it; faster, a little off"),
        "--seed": flag("of random methods", 0),
    },
    "results": {
        "--output_dir": flag("folder of the results; given again, what is there is kept", required=True),
        "--write_model_card": flag("put the numbers into the card of the --explainer folder", False),
    },
}


def run(arguments: argparse.Namespace) -> int:
    from ..data.judged import open_judged
    from ..jobs.processes import Processes, leave
    from ..jobs.progress import progress
    from .grids import measure_grids

    check(arguments)
    processes = Processes()
    explainer, classifier = load(arguments, processes.device)
    rows = open_judged(
        arguments.dataset, classifier, arguments.dataset_config, arguments.split, arguments.image_column,
        arguments.label_column, arguments.mask_column, arguments.dataset_size, arguments.scenes_seed,
    )  # fmt: skip
    survey = open_survey(arguments, explainer, classifier, rows, processes)
    bar = partial(progress, desc="evaluating", unit="block", shown=processes.is_main)
    survey.run(processes.rank, processes.world, bar)
    if arguments.grids:
        measure_grids(
            arguments.output_dir, classifier, rows, survey.methods, arguments.grids, pictures=len(rows),
            batch_size=arguments.batch_size, rank=processes.rank, world=processes.world, progress=bar,
        )  # fmt: skip
    processes.wait()
    if processes.is_main:
        finish(arguments, explainer, survey)
    return leave(0)


def open_survey(arguments: argparse.Namespace, explainer, classifier, rows, processes):
    """The survey in its folder, of those methods that are defined for the classifier."""
    from .survey import Survey

    methods = {name: find_method(name, explainer) for name in names(arguments)}
    trunk = getattr(getattr(explainer, "head", None), "trunk", None)
    settings = describe(arguments, classifier, explainer, rows)
    models = [trunk] if trunk else []
    survey = Survey(arguments.output_dir, classifier, rows, methods, settings, arguments.batch_size, models)
    if processes.is_main:
        survey.open()
        refuse(arguments, survey)
    processes.wait()
    refused = read_refused(survey.folder)
    survey.methods = {name: method for name, method in survey.methods.items() if name not in refused}
    return survey


def names(arguments: argparse.Namespace) -> list[str]:
    return read_names(arguments.methods, bool(arguments.explainer))


def refuse(arguments: argparse.Namespace, survey) -> None:
    """Of `all` methods those that are not defined for the classifier are left out; their reasons are written down."""
    from ..jobs.folders import write_whole

    path = survey.folder / REFUSED
    if "all" in split_names(arguments.methods or "") and not path.exists():
        refused = find_refusals(survey.methods, survey.classifier, survey.rows[0]["pixel_values"][None])
        write_whole(path, json.dumps(refused, indent=1).encode())


def read_refused(folder: Path) -> dict[str, str]:
    path = folder / REFUSED
    return json.loads(path.read_text()) if path.exists() else {}


def check(arguments: argparse.Namespace) -> None:
    """What can be refused before anything is loaded."""
    if bool(arguments.explainer) == bool(arguments.classifier):
        raise ExplainerError("give --explainer, or --classifier for training-free methods alone; one of them.")
    if arguments.explained not in ("predicted", "label"):
        raise ExplainerError(f"--explained {arguments.explained}; choose predicted or label.")
    check_counts(arguments, "batch_size", "block")
    if arguments.dtype not in (None, "bfloat16", "float16"):
        raise ExplainerError(f"--dtype {arguments.dtype}; give bfloat16 or float16, or leave it out for float32.")
    if arguments.write_model_card and not (arguments.explainer and Path(arguments.explainer).is_dir()):
        raise ExplainerError("--write_model_card writes into the folder of an explainer; give one with --explainer.")
    if arguments.grids < 0:
        raise ExplainerError(f"--grids {arguments.grids}; give how many, or 0 for none.")
    names(arguments)
    protocols(arguments)


def protocols(arguments: argparse.Namespace) -> dict[str, dict]:
    """name -> the arguments of `measure`; a preset under several references is several protocols."""
    known = (*REFERENCES, *RAW_REFERENCES)
    found = {}
    for preset in arguments.preset:
        changes: dict = {} if arguments.budgets is None else {"budgets": arguments.budgets}
        for reference in arguments.reference or [None]:
            one = changes if reference is None else {**changes, "reference": read_reference(reference, known)}
            read = read_protocol(preset, one)
            found[preset if read.is_suite else f"{preset}/{read.reference}"] = {"preset": preset, **one}
    return found


def describe(arguments: argparse.Namespace, classifier, explainer, rows):
    from ..modeling.frozen_models import fingerprint_of
    from .survey import Settings

    data = ("dataset_config", "split", "image_column", "label_column", "mask_column", "scenes_seed")
    return Settings(
        classifier={"name": str(classifier.name_or_path), "weights": fingerprint_of(classifier.model)},
        explainer=None
        if explainer is None
        else {"name": arguments.explainer, "weights": fingerprint_of(explainer.head)},
        dataset={"name": arguments.dataset, **{key: getattr(arguments, key) for key in data}},
        pictures=len(rows),
        protocols=protocols(arguments),
        block=arguments.block,
        explained=arguments.explained,
        dtype=arguments.dtype,
        seed=arguments.seed,
        grids=arguments.grids,
    )


def finish(arguments: argparse.Namespace, explainer, survey) -> None:
    """The table, and every file of the results."""
    from dataclasses import asdict

    import transformers

    from ..jobs.folders import write_whole
    from ..reports.lettering import save
    from .report import as_terminal, draw, summarize, write_csv
    from .sheet import draw_sheet
    from .survey import read_columns

    folder, settings = survey.folder, survey.settings
    found = read_columns(folder, list(survey.methods))
    results = summarize(folder, found, settings)
    results |= {"settings": asdict(settings), "refused": read_refused(folder)}
    results["versions"] = {
        "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
    }  # fmt: skip
    write_whole(folder / "results.json", json.dumps(results, indent=1).encode())
    write_csv(folder, found)
    for name, figure in draw(results, settings).items():
        save(figure, folder / name)
    save(draw_sheet(folder, found, settings, survey.rows), folder / "sheet.png")
    print(as_terminal(results, settings))
    if arguments.write_model_card:
        from .card import write_card

        write_card(Path(arguments.explainer), results, explainer)
        print(f"the card of {arguments.explainer} holds these numbers", file=sys.stderr)
