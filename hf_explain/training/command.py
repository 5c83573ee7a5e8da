"""`hf-explain train`: from a classifier and pictures to a trained explainer."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from dataclasses import fields
from typing import Any, get_type_hints

from ..jobs.flags import documented, flag
from ..jobs.models import check_kind
from ..modeling.errors import ExplainerError, unknown_name
from ..modeling.modeling_explainer import ExplainerForImageClassification
from .config import TrainingConfig
from .kinds import KINDS

EVALUATION_SEED = 1  # of the scenes to judge by; those to train on have seed 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what is trained")
    what.add_argument("--classifier", help="Hub id or folder of the classifier to explain")
    what.add_argument("--classifier_revision", help="branch, tag or commit of the classifier")
    what.add_argument("--explainer", help="Hub id or folder of a trained explainer to train further, instead")
    what.add_argument("--method", default="ranking", help=f"how it is trained: {', '.join(KINDS)}")
    what.add_argument("--preset", default="small", help="size of the head: tiny, small or base")
    what.add_argument("--hybrid", action="store_true", help="the maps see the classifier's slopes too: slower, finer")
    what.add_argument(
        "--neighborhood", type=int, metavar="PIXELS",
        help="side, odd, of the window whose mean is added to every pixel of a finished map (default: 1, none)",
    )  # fmt: skip
    what.add_argument("--backbone", help="Hub id or folder of a second model whose hidden states are read instead")
    what.add_argument("--output_dir", help="folder for the explainer, its checkpoints and the log")
    data = parser.add_argument_group("pictures")
    data.add_argument(
        "--dataset",
        required=True,
        help="Hub id, folder of pictures, folder of save_to_disk, parquet files, or scenes: drawn on the spot",
    )
    data.add_argument("--dataset_config", help="configuration of a Hub data set that has several")
    data.add_argument("--split", help="split to train on (default: train)")
    data.add_argument("--image_column", help="column with the pictures (default: the only one that has some)")
    data.add_argument("--dataset_size", type=int, help="use this many pictures only; the scenes: how many there are")
    data.add_argument("--image_size", type=int, help="pixels of the scenes (default: what the classifier takes)")
    data.add_argument("--streaming", action="store_true", help="read while training instead of downloading first")
    data.add_argument("--eval_dataset", help="another data set to judge by")
    data.add_argument("--eval_split", help="split to judge by (default: pictures held out of the training split)")
    data.add_argument("--eval_size", type=int, help="pictures to judge by; 0 for none (default: 64, at most a tenth)")
    parser.add_argument(
        "--dry_run", action="store_true", help="two real steps: print what the run will cost, save nothing"
    )
    settings = parser.add_argument_group("settings of the training")
    helps, types = documented(TrainingConfig), get_type_hints(TrainingConfig)
    for field in fields(TrainingConfig):
        options = flag(types[field.name], field.default, helps[field.name])
        others = [f"{k.usual[field.name]:g} with {name}" for name, k in KINDS.items() if field.name in k.usual]
        if others:  # None says that it was not given
            options |= {"default": None, "help": f"{options['help'][:-1]}; {', '.join(others)})"}
        settings.add_argument(f"--{field.name}", **options)


def run(arguments: argparse.Namespace) -> int:
    from ..jobs.processes import leave, print_once

    check(arguments)
    given = {field.name: getattr(arguments, field.name) for field in fields(TrainingConfig)}
    usual = {field.name: field.default for field in fields(TrainingConfig)} | KINDS[arguments.method].usual
    values: dict[str, Any] = {
        key: usual[key] if v is None else tuple(v) if isinstance(v, list) else v for key, v in given.items()
    }
    config = TrainingConfig(**values)
    explainer = make_explainer(arguments, config)
    dataset, eval_dataset = open_data(arguments, config, explainer)
    if arguments.dry_run:
        from .dry_run import dry_run

        cost = dry_run(explainer, dataset, config, eval_dataset)
        print_once(cost)
        return leave(0)
    from .loop import train

    result = train(explainer, dataset, config, eval_dataset, arguments.output_dir)
    if result.stopped_by:
        print_once(
            f"stopped by {signal.Signals(result.stopped_by).name} after step {result.step} of {config.max_steps}; "
            "to go on, give the same command with --resume_from_checkpoint last",
            file=sys.stderr,
        )
        return leave(128 + result.stopped_by)
    judged = config.objective_for(explainer).score
    score = "" if result.best_score is None else f", held-out {judged} {result.best_score:.3f}"
    print_once(f"{arguments.output_dir} holds the explainer of step {result.best_step}{score}")
    return leave(0)


def check(arguments: argparse.Namespace) -> None:
    """What can be refused before anything is loaded."""
    if arguments.method not in KINDS:
        raise ExplainerError(f"{unknown_name('method', arguments.method, KINDS)}.")
    if bool(arguments.classifier) == bool(arguments.explainer):
        raise ExplainerError("give --classifier for a new explainer, or --explainer to train one further; one of them.")
    if arguments.explainer and (said := [*head_options(arguments), *(["backbone"] if arguments.backbone else [])]):
        raise ExplainerError(
            f"--{said[0]} is of a new explainer, and {arguments.explainer} is as it was made; leave it out, or give "
            "--classifier for a new one."
        )
    if not arguments.output_dir and not arguments.dry_run:
        raise ExplainerError("--output_dir is missing; give a folder for the explainer, or --dry_run.")
    if arguments.streaming and arguments.eval_size and not (arguments.eval_dataset or arguments.eval_split):
        raise ExplainerError(
            f"--eval_size {arguments.eval_size} with --streaming, but nothing can be held out of a stream; give "
            "--eval_split or --eval_dataset."
        )
    splits = [split or "train" for split in (arguments.split, arguments.eval_split)]
    judged = arguments.eval_size != 0 and (arguments.eval_dataset or arguments.eval_split)
    same = same_data(arguments.dataset, arguments.eval_dataset or arguments.dataset)
    if judged and same and splits[0] == splits[1] and arguments.dataset != "scenes":  # those are drawn anew
        raise ExplainerError(
            f"the pictures to judge by are those to train on, split {splits[0]!r} of {arguments.dataset}; give another "
            "--eval_split or --eval_dataset, or neither: then some are held out."
        )


def same_data(one: str, other: str) -> bool:
    return one == other or (os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other))


def make_explainer(arguments: argparse.Namespace, config: TrainingConfig):
    name = arguments.explainer or arguments.classifier
    try:
        hub = check_kind(arguments)
        if arguments.explainer:
            return ExplainerForImageClassification.from_pretrained(name, **hub)
        return KINDS[arguments.method].explainer.from_classifier(
            name, backbone=arguments.backbone, preset=arguments.preset, seed=config.seed,
            **head_options(arguments), **hub,
        )  # fmt: skip
    except OSError as error:
        raise OSError(f"{name} could not be loaded: {error}") from error


def head_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was said of a new explainer's head, beside its preset."""
    said = {"hybrid": arguments.hybrid or None, "neighborhood": arguments.neighborhood}
    return {name: value for name, value in said.items() if value is not None}


def open_data(arguments: argparse.Namespace, config: TrainingConfig, explainer):
    """(rows to train on, rows to judge by)."""
    from ..data.unlabeled import choose, hold_out, open_pictures

    processor = explainer.image_processor
    size = arguments.image_size or max(explainer.config.image_size)
    one = {"image_column": arguments.image_column, "streaming": arguments.streaming, "image_size": size}
    dataset = open_pictures(
        arguments.dataset, processor, arguments.dataset_config, arguments.split, size=arguments.dataset_size,
        seed=0 if arguments.dataset == "scenes" else config.seed, **one,
    )  # fmt: skip
    count, scenes = arguments.eval_size, arguments.eval_dataset in (None, "scenes") and arguments.dataset == "scenes"
    if count == 0:
        return dataset, None
    if arguments.eval_dataset or arguments.eval_split or scenes:
        name = arguments.eval_dataset or arguments.dataset
        own = name == arguments.dataset
        seed = EVALUATION_SEED if name == "scenes" else config.seed
        judged = open_pictures(
            name, processor, arguments.dataset_config if own else None, arguments.eval_split, seed=seed,
            **one | ({} if own else {"image_column": None}),
        )  # fmt: skip
        return dataset, choose(judged, count, config.seed)
    if arguments.streaming:
        return dataset, None
    return hold_out(dataset, count, config.seed)
