"""`hf-explain explain`: maps of one picture, or of a whole data set as a new one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..data.flags import DATA_SET, SCENES_SEED, STREAMING
from ..faithfulness.protocols import PRESETS
from ..jobs.flags import check_counts, flag
from ..jobs.models import load
from ..methods import METHODS
from ..methods.naming import find_method, spelled
from ..modeling.errors import ExplainerError
from .pictures import check_names, explain_pictures, is_picture, slug
from .pipeline import ImageAttributionPipeline

FLAGS = {
    "what is explained": {
        "picture": {"nargs": "*", "help": "pictures (files, URLs or photos:<name>); or one thing that --dataset takes"},
        "--explainer": flag("Hub id or folder of an explainer"),
        "--classifier": flag("Hub id or folder of a classifier, or photos:<name>, to be explained by --method"),
        "--method": flag(f"one of {', '.join(METHODS)}; with options: 'occlusion(window=8, stride=4)'"),
        "--target": flag("labels or indices of the classes to explain (default: the prediction)", nargs="+"),
        "--top_k": flag("explain this many of the most probable classes instead", type=int),
    },
    "how": {
        "--refine_steps": flag("steps of refinement of each map (default: none)", type=int),
        "--measure": flag(f"measure each map by a preset: {', '.join(PRESETS)}"),
        "--output_size": flag("image: maps of the picture's own size (default); model: of its input's"),
        "--seed": flag("of a method that draws random numbers, and of the refinement", type=int),
        "--batch_size": flag("pictures per forward", 8),
        "--num_workers": flag("processes that read pictures meanwhile", 0),
    },
    "a data set": {
        **DATA_SET,
        "--keep_columns": flag("other columns to keep, as source_<name>", ()),
        **STREAMING,
        **SCENES_SEED,
    },
    "results": {
        "--output_dir": flag(
            "folder of the new data set, where what is there is kept; of a picture's overlays (default: here)"
        ),
        "--overlays": flag("draw every map over its picture, into overlays/", False),
        "--no_maps": flag("leave the maps out: label, score and overlays only", False),
        "--no_images": flag("leave the pictures out of the new data set", False),
        "--block": flag("pictures per file of the new data set", 256),
        "--push_to_hub": flag("push the new data set at the end", False),
        "--hub_dataset_id": flag("where to (default: the name of the output folder)"),
        "--hub_private": flag("make a new repository a private one", False),
        "--dry_run": flag("explain a few pictures: print the time and disk of all", False),
    },
}


def run(arguments: argparse.Namespace) -> int:
    from ..jobs.processes import Processes, leave

    check(arguments)
    names = arguments.picture or [arguments.dataset]
    processes = Processes()
    explainer, classifier = load(arguments, processes.device, with_method=True)
    pipe = ImageAttributionPipeline(
        model=explainer or classifier.model, image_processor=classifier.image_processor, device=processes.device,
        **options(arguments), **({"method": arguments.method} if arguments.method else {}),
    )  # fmt: skip
    targets = None if arguments.target is None else [read_target(one, classifier) for one in arguments.target]
    if processes.is_main and (arguments.top_k or 0) > classifier.num_labels:
        print(
            f"--top_k {arguments.top_k}: there are {classifier.num_labels} classes, all are explained", file=sys.stderr
        )
    if is_picture(names[0]):
        if processes.is_main:
            made_by = slug(arguments.method or "learned") + ("-refined" if arguments.refine_steps else "")
            explain_pictures(names, pipe, targets, Path(arguments.output_dir or "."), made_by)
        return leave(0)
    explain_dataset(names[0], arguments, pipe, explainer, targets, processes)
    return leave(0)


def check(arguments: argparse.Namespace) -> None:
    """What can be refused before anything is loaded."""
    if bool(arguments.picture) == bool(arguments.dataset):
        raise ExplainerError(
            "no picture was given, or two sources; give a picture, a folder, or --dataset: one of them."
        )
    if bool(arguments.explainer) == bool(arguments.classifier):
        raise ExplainerError("give --explainer, or --classifier with --method; one of them.")
    if arguments.explainer and arguments.method:
        raise ExplainerError(
            f"--method {arguments.method} is for a classifier, and an explainer makes its own maps; leave it out, or "
            "give the classifier with --classifier instead of --explainer."
        )
    if arguments.classifier and not arguments.method:
        raise ExplainerError(f"--classifier needs --method; methods: {', '.join(METHODS)}.")
    if arguments.method:
        find_method(arguments.method)
        arguments.method = spelled(arguments.method)
    if arguments.target and arguments.top_k is not None:
        raise ExplainerError(
            "--target and --top_k were both given; give the classes, or how many of the most probable ones."
        )
    check_counts(arguments, "batch_size", "block")
    single = check_names(arguments.picture or [arguments.dataset])
    if not (single or arguments.output_dir or arguments.dry_run):
        raise ExplainerError("--output_dir is missing; give a folder for the new data set, or --dry_run.")
    if single and (arguments.push_to_hub or arguments.dry_run):
        raise ExplainerError("--push_to_hub and --dry_run are for data sets; leave them out for one picture.")
    if arguments.no_maps and not arguments.overlays and not arguments.measure:
        raise ExplainerError("--no_maps leaves only labels and scores; add --overlays or --measure, or keep the maps.")


def options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those of the pipeline that were given."""
    names = ("top_k", "refine_steps", "measure", "seed", "output_size")
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}


def read_target(text: str, classifier) -> int:
    """A label if there is such a one, else an index."""
    number = text.isdecimal() and text not in classifier.id2label.values()
    return classifier.target_index(int(text) if number else text)


# ---- a data set ----


def explain_dataset(name: str, arguments: argparse.Namespace, pipe, explainer, targets, processes) -> None:
    from ..data.picture_table import open_table
    from ..jobs.progress import progress
    from .card import write_card
    from .dataset import Explaining
    from .push import check_dataset_push, push_dataset
    from .rows import count

    source = open_table(
        name, arguments.dataset_config, arguments.split, arguments.image_column, arguments.keep_columns,
        arguments.dataset_size, arguments.streaming, max(pipe.classifier.size), arguments.scenes_seed,
    )  # fmt: skip
    settings = describe(name, arguments, pipe.classifier, explainer, targets, source)
    work = Explaining(arguments.output_dir or ".", source, pipe, settings, arguments.batch_size, arguments.num_workers)
    if arguments.dry_run:
        if processes.is_main:
            from .cost import estimate

            print(estimate(work))
        return
    repo_id = arguments.hub_dataset_id or work.folder.resolve().name
    if processes.is_main:
        work.open()
        if arguments.push_to_hub:
            check_dataset_push(repo_id, arguments.hub_private)
    processes.wait()
    with progress(desc="explaining", unit=" pictures", shown=processes.is_main) as bar:
        work.run(processes.rank, processes.world, bar.update)
    processes.wait()
    if not processes.is_main:
        return
    pictures, maps = count(work.folder, settings.block, settings.pictures)
    write_card(work.folder, settings, pictures, maps, work.columns, repo_id)
    print(f"{work.folder} holds {maps:,} maps of {pictures:,} pictures")
    if arguments.push_to_hub:
        print(f"pushed: {push_dataset(work.folder, repo_id)}", file=sys.stderr)


def describe(name: str, arguments: argparse.Namespace, classifier, explainer, targets, source):
    from ..modeling.frozen_models import fingerprint_of
    from .dataset import Settings

    return Settings(
        classifier={
            "name": classifier.name_or_path, "revision": classifier.revision and str(classifier.revision),
            "weights": fingerprint_of(classifier.model),
        },
        explainer=None if explainer is None else {
            "name": arguments.explainer, "weights": fingerprint_of(explainer.head),
            "trained_steps": explainer.config.trained_steps,
        },
        method=arguments.method,
        targets=targets,
        options=options(arguments),
        dataset={
            "name": name, "config": arguments.dataset_config, "split": arguments.split or "train",
            "column": source.column, "kept": source.kept, "size": arguments.dataset_size,
            "seed": arguments.scenes_seed if name == "scenes" else None,
        },
        pictures=source.pictures,
        block=arguments.block,
        maps=not arguments.no_maps,
        images=not arguments.no_images,
        overlays=arguments.overlays,
    )  # fmt: skip
