"""`hf-explain evaluate`: methods and explainers on a data set, measured side by side."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from functools import partial
from pathlib import Path

import torch

from ..faithfulness.protocols import PRESETS, read_protocol
from ..jobs.models import load
from ..modeling.errors import ExplainerError, whole_number
from ..modeling.references import RAW_REFERENCES, REFERENCES, read_reference
from .methods import DEFAULT, REFINE_STEPS, TUNE_STEPS, find_method, find_refusals, read_names

REFUSED = "refused.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what is measured")
    what.add_argument("--explainer", help="Hub id or folder of an explainer; its maps are the method `learned`")
    what.add_argument("--classifier", help="Hub id or folder of a classifier, for training-free methods alone")
    what.add_argument(
        "--methods",
        help="names with commas, the first one is compared with the others: learned, refined (learned, then "
        f"{REFINE_STEPS} steps), tuned (of ltx: {TUNE_STEPS} steps on the picture), those of docs/methods.md, or "
        f"all: of these those that are defined for the classifier (default: learned and {DEFAULT})",
    )
    what.add_argument("--explained", default="predicted", help="class of the maps: predicted or label")
    data = parser.add_argument_group("pictures")
    data.add_argument(
        "--dataset", required=True, help="as of hf-explain train; scenes: drawn on the spot, with evidence"
    )
    data.add_argument("--dataset_config", help="configuration of a Hub data set that has several")
    data.add_argument("--split", help="default: test; of a folder without one validation, else all there is")
    data.add_argument("--dataset_size", type=int, help="the first so many pictures only; the scenes: how many")
    data.add_argument("--image_column", help="column with the pictures (default: the only one that has some)")
    data.add_argument("--label_column", help="column with the true classes")
    data.add_argument("--mask_column", help="column with pictures that are not black where the evidence is")
    data.add_argument(
        "--scenes_seed", type=int, default=10_000, help="of the scenes; 10000 and up were never trained on"
    )
    how = parser.add_argument_group("how it is measured")
    how.add_argument("--preset", nargs="+", default=["aha"], help=f"one or more of {', '.join(PRESETS)} (default: aha)")
    how.add_argument("--reference", nargs="+", help="what removed pixels become, each in turn (default: the preset's)")
    how.add_argument("--budgets", type=int, help="points of the curves (default: the preset's)")
    how.add_argument("--grids", type=int, default=0, help="also DiFull, on so many grids of 2 x 2 of the pictures")
    how.add_argument("--batch_size", type=int, default=32, help="pictures per forward (default: 32)")
    how.add_argument("--block", type=int, default=64, help="pictures per part of the results (default: 64)")
    how.add_argument("--dtype", help="bfloat16: the classifier's forwards are autocast to it; faster, a little off")
    how.add_argument("--seed", type=int, default=0, help="of random methods (default: 0)")
    out = parser.add_argument_group("results")
    out.add_argument("--output_dir", required=True, help="folder of the results; given again, what is there is kept")
    out.add_argument(
        "--write_model_card", action="store_true", help="put the numbers into the card of the --explainer folder"
    )


def run(arguments: argparse.Namespace) -> int:
    from ..jobs.processes import Processes, leave
    from ..jobs.progress import progress
    from .grids import measure_grids
    from .survey import Survey

    check(arguments)
    processes = Processes()
    explainer, classifier = load(arguments, processes.device)
    rows = open_rows(arguments, classifier)
    settings = describe(arguments, classifier, explainer, rows)
    methods = {name: find_method(name, explainer) for name in names(arguments)}
    trunk = getattr(getattr(explainer, "head", None), "trunk", None)
    survey = Survey(
        arguments.output_dir, classifier, rows, methods, settings, arguments.batch_size, [trunk] if trunk else []
    )
    if processes.is_main:
        survey.open()
        refuse(arguments, survey)
    processes.wait()
    refused = read_refused(arguments.output_dir)
    survey.methods = {name: method for name, method in survey.methods.items() if name not in refused}
    bar = partial(progress, desc="evaluating", unit="block", shown=processes.is_main)
    survey.run(processes.rank, processes.world, bar)
    if arguments.grids:
        measure_grids(
            arguments.output_dir, classifier, rows, survey.methods, arguments.grids, pictures=len(rows),
            batch_size=arguments.batch_size, rank=processes.rank, world=processes.world, progress=bar,
        )  # fmt: skip
    processes.wait()
    if processes.is_main:
        finish(arguments, explainer, list(survey.methods), settings, rows, refused)
    return leave(0)


def names(arguments: argparse.Namespace) -> list[str]:
    return read_names(arguments.methods, bool(arguments.explainer))


def refuse(arguments: argparse.Namespace, survey) -> None:
    """Of `all` methods those that are not defined for the classifier are left out; their reasons are written down."""
    from ..jobs.folders import write_whole

    path = Path(arguments.output_dir) / REFUSED
    if "all" in (arguments.methods or "").replace(" ", "").split(",") and not path.exists():
        refused = find_refusals(survey.methods, survey.classifier, survey.rows[0]["pixel_values"][None])
        write_whole(path, json.dumps(refused, indent=1).encode())


def read_refused(folder: str) -> dict[str, str]:
    path = Path(folder) / REFUSED
    return json.loads(path.read_text()) if path.exists() else {}


def check(arguments: argparse.Namespace) -> None:
    """What can be refused before anything is loaded."""
    if bool(arguments.explainer) == bool(arguments.classifier):
        raise ExplainerError("give --explainer, or --classifier for training-free methods alone; one of them.")
    if arguments.explained not in ("predicted", "label"):
        raise ExplainerError(f"--explained {arguments.explained}; choose predicted or label.")
    for name in ("batch_size", "block"):
        whole_number(f"--{name}", getattr(arguments, name), 1)
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


def open_rows(arguments: argparse.Namespace, classifier):
    from ..data.judged import open_judged

    return open_judged(
        arguments.dataset, classifier, arguments.dataset_config, arguments.split, arguments.image_column,
        arguments.label_column, arguments.mask_column, arguments.dataset_size, arguments.scenes_seed,
    )  # fmt: skip


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


def finish(arguments: argparse.Namespace, explainer, methods: list[str], settings, rows, refused) -> None:
    """The table, and every file of the results."""
    from dataclasses import asdict

    import transformers

    from ..jobs.folders import write_whole
    from ..reports.lettering import save
    from .report import as_terminal, draw, summarize, write_csv
    from .sheet import draw_sheet
    from .survey import read_columns

    folder = Path(arguments.output_dir)
    found = read_columns(folder, methods)
    results = summarize(folder, found, settings)
    results |= {"settings": asdict(settings), "refused": refused}
    results["versions"] = {
        "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
    }  # fmt: skip
    write_whole(folder / "results.json", json.dumps(results, indent=1).encode())
    write_csv(folder, found)
    for name, figure in draw(results, settings).items():
        save(figure, folder / name)
    save(draw_sheet(folder, found, settings, rows), folder / "sheet.png")
    print(as_terminal(results, settings))
    if arguments.write_model_card:
        from .card import write_card

        write_card(Path(arguments.explainer), results, explainer)
        print(f"the card of {arguments.explainer} holds these numbers", file=sys.stderr)
