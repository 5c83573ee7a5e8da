"""What the tests of training share: tiny data, a run, processes, and ways to break off."""

import multiprocessing
import os
import signal
import socket
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from accelerate.state import AcceleratorState, GradientState
from families import build, pictures, processor

from hf_explain import RankingExplainerForImageClassification
from hf_explain.training import TrainingConfig, train
from hf_explain.training.kinds import KINDS

SIZE = 32
ROWS = [{"pixel_values": p} for p in pictures(10, (SIZE, SIZE))]  # an epoch ends in the third step
HELD_OUT = [{"pixel_values": p} for p in pictures(3, (SIZE, SIZE), seed=2)]
CONFIG = TrainingConfig(
    max_steps=6, per_device_train_batch_size=4, budgets=4, grids=(3, 5), eval_budgets=3, eval_steps=2, save_steps=2,
    logging_steps=1, num_workers=0,
)  # fmt: skip


def make(family="resnet", seed=0):
    classifier = build(family, seed, SIZE)
    return RankingExplainerForImageClassification.from_classifier(classifier, processor(SIZE), preset="tiny")


def run(output_dir=None, explainer=None, rows=ROWS, held_out=HELD_OUT, stop_after=None, **changes):
    """(head, result) of a training of a fresh explainer."""
    explainer = explainer or make()
    output_dir = output_dir and str(output_dir)
    result = train(explainer, rows, replace(CONFIG, **changes), held_out, output_dir, stop_after=stop_after)
    return head(explainer), result


def head(explainer):
    return {name: p.detach().clone() for name, p in explainer.head.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def timeless(lines):
    return [{k: v for k, v in line.items() if "seconds" not in k} for line in lines]


def losses(result):
    return torch.tensor([line["train/loss"] for line in result.log if "train/loss" in line])


def start(world, function, *arguments):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def child(rank):
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        if world > 1:
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": world, "RANK": rank}
            os.environ.update({k: str(v) for k, v in where.items()} | {"LOCAL_RANK": str(rank)})
            os.environ["OMP_NUM_THREADS"] = "1"  # else accelerate gives each process all threads
        function(rank, *arguments)
        sys.stdout.flush()
        os._exit(0)

    context = multiprocessing.get_context("fork")
    children = [context.Process(target=child, args=(rank,)) for rank in range(world)]
    for process in children:
        process.start()
    return children


def wait(children):
    for process in children:
        process.join(120)
    return [process.exitcode for process in children]


def killed_while_writing(rank, folder, step, changes, train_in=None):
    """Trains until the process is killed with the checkpoint of `step` half-written."""
    save = torch.save

    def kill(values, path):
        save(values, path)
        if Path(path).parent.name.startswith(f".checkpoint-{step}."):
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = kill
    (train_in or run)(folder, **changes)


def disturb(monkeypatch, change):
    """Replaces the losses of all objectives: `change` gets a loss and its arguments."""
    for kind in KINDS.values():
        objective = type(kind.objectives["default"])
        monkeypatch.setattr(objective, "loss", changed(objective.loss, change))


def changed(loss, change):
    return lambda self, *arguments: change(partial(loss, self), *arguments)


def too_large(most):
    """A change: memory for `most` pictures."""

    def limited(loss, explainer, pixel_values, *arguments):
        if len(pixel_values) > most:
            raise torch.OutOfMemoryError("injected")
        return loss(explainer, pixel_values, *arguments)

    return limited


def at_step(step, call):
    """A change: calls `call` in a step; without one the loss becomes NaN there."""

    def disturbed(loss, explainer, pixel_values, draws, *arguments):
        value, log = loss(explainer, pixel_values, draws, *arguments)
        if draws.step == step:
            if call is None:
                return value * float("nan"), log
            call()
        return value, log

    return disturbed
