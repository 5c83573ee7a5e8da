"""`hf-explain train`: from a classifier and pictures to a trained explainer."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from dataclasses import fields
from typing import Any

from ..data.flags import DATA_SET, STREAMING
from ..jobs.flags import flag, flags_of, given
from ..jobs.models import check_kind
from ..modeling.errors import ExplainerError, unknown_name
from ..modeling.modeling_explainer import ExplainerForImageClassification
from .config import TrainingConfig
from .kinds import KINDS

EVALUATION_SEED = 1  # of the scenes to judge by; those to train on have seed 0


def flags_of_training() -> dict[str, dict]:
    """Those of `TrainingConfig`; None says that one was not given whose usual value depends on the method."""
    found = flags_of(TrainingConfig)
    for name in {name for kind in KINDS.values() for name in kind.usual}:
        said = found[f"--{name}"]
        usual = [f"{kind.usual[name]:g} with {method}" for method, kind in KINDS.items() if name in kind.usual]
        said |= {"default": None, "help": f"{said['help'][:-1]}; {', '.join(usual)})"}
    return found


FLAGS = {
    "what is trained": {
        "--classifier": flag("Hub id or folder of the classifier to explain, or photos:<name>"),
        "--classifier_revision": flag("branch, tag or commit of the classifier"),
        "--explainer": flag("Hub id or folder of a trained explainer to train further, instead"),
        "--method": flag(f"how it is trained: {', '.join(KINDS)}", "ranking"),
        "--preset": flag("size of the head: tiny, small or base", "small"),
        "--hybrid": flag("the maps see the classifier's slopes too: slower, finer", False),
        "--neighborhood": flag(
            "side, odd, of the window whose mean is added to every pixel of a finished map (default: 1, none)",
            type=int, metavar="PIXELS",
        ),
        "--finest": flag(
            "pixels a cell of the head's finest features: 1, 2 or 4 (default: by the picture's size)", type=int
        ),
        "--backbone": flag("Hub id or folder of a second model whose hidden states are read instead"),
        "--output_dir": flag("folder for the explainer, its checkpoints and the log"),
    },
    "pictures": {
        **DATA_SET, "--dataset": DATA_SET["--dataset"] | {"required": True},
        "--image_size": flag("pixels of the scenes (default: what the classifier takes)", type=int),
        **STREAMING,
        "--eval_dataset": flag("another data set to judge by"),
        "--eval_split": flag("split to judge by (default: pictures held out of the training split)"),
        "--eval_size": flag("pictures to judge by; 0 for none (default: 64, at most a tenth)", type=int),
    },
    "": {"--dry_run": flag("two real steps: print what the run will cost, save nothing", False)},
    "settings of the training": flags_of_training(),
}  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    from ..jobs.processes import leave, print_once

    check(arguments)
    usual: dict[str, Any] = {field.name: field.default for field in fields(TrainingConfig)} | KINDS[
        arguments.method
    ].usual
    values = given(TrainingConfig, arguments)
    config = TrainingConfig(**{name: usual[name] if value is None else value for name, value in values.items()})
    explainer = make_explainer(arguments, config)
    dataset, eval_dataset = open_data(arguments, config, explainer)
    if arguments.dry_run:
        from .dry_run import dry_run

        print_once(dry_run(explainer, dataset, config, eval_dataset))
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
    said = {name: getattr(arguments, name) for name in ("neighborhood", "finest")}
    said["hybrid"] = arguments.hybrid or None
    return {name: value for name, value in said.items() if value is not None}


def open_data(arguments: argparse.Namespace, config: TrainingConfig, explainer):
    """(rows to train on, rows to judge by)."""
    from ..data.unlabeled import choose, hold_out, open_pictures

    processor = explainer.image_processor
    size = arguments.image_size or max(explainer.config.image_size)
    one = {"streaming": arguments.streaming, "image_size": size}
    scenes = arguments.dataset == "scenes"
    dataset = open_pictures(
        arguments.dataset, processor, arguments.dataset_config, arguments.split, arguments.image_column,
        size=arguments.dataset_size, seed=0 if scenes else config.seed, **one,
    )  # fmt: skip
    name, count = arguments.eval_dataset or arguments.dataset, arguments.eval_size
    if count == 0:
        return dataset, None
    if arguments.eval_dataset or arguments.eval_split or scenes:
        own = name == arguments.dataset
        judged = open_pictures(
            name, processor, arguments.dataset_config if own else None, arguments.eval_split,
            arguments.image_column if own else None, seed=EVALUATION_SEED if name == "scenes" else config.seed, **one,
        )  # fmt: skip
        return dataset, choose(judged, count, config.seed)
    return (dataset, None) if arguments.streaming else hold_out(dataset, count, config.seed)
