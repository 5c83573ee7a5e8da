"""The training loop: exact wherever it stops, however the batch is split, and honest about what went wrong."""

import io
import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from accelerate.tracking import GeneralTracker
from families import build, pictures, processor
from transformers.utils import logging

from hf_explain import ExplainerError, ExplainerForImageClassification, RankingExplainerForImageClassification
from hf_explain import checkpoints as checkpoints_module
from hf_explain import processes as processes_module
from hf_explain import training as training_module
from hf_explain import training_run as training_run_module
from hf_explain.batches import Order, Stream
from hf_explain.checkpoints import checkpoints
from hf_explain.dry_run import dry_run
from hf_explain.evaluation import evaluate
from hf_explain.objectives import base as base_module
from hf_explain.processes import Processes
from hf_explain.reporting import read_log
from hf_explain.training import TrainingConfig, train

SIZE = 32
ROWS = [{"pixel_values": p} for p in pictures(10, (SIZE, SIZE))]  # an epoch ends in the third step
HELD_OUT = [{"pixel_values": p} for p in pictures(3, (SIZE, SIZE), seed=2)]
CONFIG = TrainingConfig(
    max_steps=6, per_device_train_batch_size=4, budgets=4, grids=(3, 5), eval_budgets=3, eval_steps=2, save_steps=2,
    logging_steps=1, num_workers=0,
)  # fmt: skip


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


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


@pytest.fixture(scope="module")
def whole():
    """The head and result of a run that nothing disturbed."""
    os.environ["ACCELERATE_USE_CPU"] = "true"
    return run()


# ---- processes, as torchrun makes them but without the seconds of importing ----


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
    write = checkpoints_module.write_json

    def kill(path, values):
        if values.get("step") == step:
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, values)

    checkpoints_module.write_json = kill
    (train_in or run)(folder, **changes)


def test_a_killed_run_goes_on_to_the_bit(tmp_path, whole):
    """kill -9 while a checkpoint is being written; the one before it is in an earlier epoch."""
    assert wait(start(1, killed_while_writing, tmp_path, 4, {})) == [-signal.SIGKILL]
    assert [Path(c).name for c in checkpoints(tmp_path)] == ["checkpoint-2"]
    assert any(path.name.endswith(".unfinished") for path in tmp_path.iterdir())
    resumed, result = run(tmp_path, resume_from_checkpoint="last")
    assert result.step == 6 and result.log[0]["step"] == 3
    assert equal(resumed, whole[0]) and result.best_step == whole[1].best_step
    assert timeless(read_log(tmp_path / "training_log.jsonl")) == timeless(whole[1].log)
    assert not any(path.name.endswith(".unfinished") for path in tmp_path.iterdir())


def two(rank, folder):
    """What two processes must show, one training after the other; the first one tells."""
    half = {"per_device_train_batch_size": 2}
    found = {"whole": run(**half)}
    found["resumed"] = run(folder / "killed", resume_from_checkpoint="last", **half)
    found["one at a time"] = run(per_device_train_batch_size=1, gradient_accumulation_steps=2)
    original = training_module.loss_of
    if rank == 1:
        training_module.loss_of = too_large(original, 1)
    found["out of memory"] = run(**half)
    training_module.loss_of = original
    if rank == 1:
        training_module.loss_of = at_step(3, lambda: os.kill(os.getpid(), signal.SIGTERM), original)
    found["stopped"] = run(folder / "stopped", **half)
    training_module.loss_of = original
    found["went on"] = run(folder / "stopped", resume_from_checkpoint="last", **half)
    different = make()  # as if the processes had begun with other weights
    with torch.no_grad():
        next(different.head.parameters()).add_(rank)
    found["other beginnings"] = run(explainer=different, **half)
    if rank == 1:
        training_module.loss_of = at_step(1, None, original)
    try:
        run(**half)
    except ExplainerError as error:
        found["not finite"] = str(error)
    training_module.loss_of = original
    costs = replace(CONFIG, references=("black",), max_steps=2, per_device_eval_batch_size=2, **half)
    found["cost"] = dry_run(make(), ROWS, costs, HELD_OUT).passes
    torch.save(found, folder / f"found-{rank}.pt")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What the two processes found."""
    os.environ["ACCELERATE_USE_CPU"] = "true"
    folder = tmp_path_factory.mktemp("two")
    victims = start(2, killed_while_writing, folder / "killed", 4, {"per_device_train_batch_size": 2})
    victims[0].join(120)
    assert victims[0].exitcode == -signal.SIGKILL
    victims[1].kill()
    assert [Path(c).name for c in checkpoints(folder / "killed")] == ["checkpoint-2"]
    assert wait(start(2, two, folder)) == [0, 0]
    return [torch.load(folder / f"found-{rank}.pt", weights_only=False) for rank in (0, 1)]


def test_both_processes_have_the_same_weights(both):
    for name in ("whole", "resumed", "out of memory", "went on", "other beginnings"):
        assert equal(both[0][name][0], both[1][name][0]), name


def test_a_killed_run_of_two_processes_goes_on_to_the_bit(both):
    assert equal(both[0]["resumed"][0], both[0]["whole"][0])
    assert both[0]["resumed"][1].log[0]["step"] == 3


def test_two_processes_follow_the_curve_of_one(both, whole):
    torch.testing.assert_close(losses(both[0]["whole"][1]), losses(whole[1]), atol=1e-4, rtol=0)
    scores = [[line["eval/score"] for line in r.log if "eval/score" in line] for r in (both[0]["whole"][1], whole[1])]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4) and len(scores[0]) == 3


def test_memory_that_runs_out_on_one_process_only(both):
    """All processes begin the step again with smaller micro-batches."""
    assert equal(both[0]["out of memory"][0], both[0]["one at a time"][0])


def test_a_signal_to_one_process_stops_all(both):
    assert [found["stopped"][1].stopped_by for found in both] == [signal.SIGTERM] * 2
    assert both[0]["stopped"][1].step == 4
    assert equal(both[0]["went on"][0], both[0]["whole"][0])


def test_a_loss_that_breaks_on_one_process_ends_all(both):
    for found in both:
        assert "step 1: the loss of pictures 2 to 3 of the batch" in found["not finite"]


def test_a_dry_run_counts_the_pictures_of_all_processes(both):
    """Two steps of 2 pictures on each of two processes, and one evaluation of 3 pictures, as in `test_dry_run`."""
    assert [found["cost"] for found in both] == [2 * 2 * (2 + 1 + 2 * 2 * 2) + 3 * (1 + 2 * (1 + 1 + 2))] * 2


# ---- splitting the batch, running out of memory ----


def too_large(loss, most):
    """`loss`, with a memory for `most` pictures."""

    def limited(explainer, pixel_values, *arguments, **keywords):
        if len(pixel_values) > most:
            raise torch.OutOfMemoryError("injected")
        return loss(explainer, pixel_values, *arguments, **keywords)

    return limited


def at_step(step, call, loss):
    """`loss`, which calls `call` in a step; without one it becomes NaN there."""

    def disturbed(explainer, pixel_values, draws, *arguments, **keywords):
        value, log = loss(explainer, pixel_values, draws, *arguments, **keywords)
        if draws.step == step:
            if call is None:
                return value * float("nan"), log
            call()
        return value, log

    return disturbed


def test_accumulation_changes_rounding_only(whole):
    _, result = run(per_device_train_batch_size=1, gradient_accumulation_steps=4)
    torch.testing.assert_close(losses(result), losses(whole[1]), atol=1e-4, rtol=0)


def test_running_out_of_memory(monkeypatch, whole):
    smaller, _ = run(per_device_train_batch_size=2, gradient_accumulation_steps=2)
    monkeypatch.setattr(training_module, "loss_of", too_large(training_module.loss_of, 3))
    halved, result = run()
    assert equal(halved, smaller) and not equal(halved, whole[0])
    torch.testing.assert_close(losses(result), losses(whole[1]), atol=1e-4, rtol=0)


def test_a_resumed_run_keeps_the_smaller_micro_batch(monkeypatch, tmp_path):
    smaller, _ = run(per_device_train_batch_size=2, gradient_accumulation_steps=2)
    with monkeypatch.context() as patch:
        patch.setattr(training_module, "loss_of", too_large(training_module.loss_of, 3))
        run(tmp_path, stop_after=3)
    assert equal(run(tmp_path, resume_from_checkpoint="last")[0], smaller)


def test_one_picture_is_too_much(monkeypatch):
    monkeypatch.setattr(training_module, "loss_of", too_large(training_module.loss_of, 0))
    with pytest.raises(ExplainerError, match="memory ran out with one picture per forward; take gradient_checkpoint"):
        run()


def test_other_errors_are_not_taken_for_memory(monkeypatch):
    def broken(*arguments):
        raise RuntimeError("a bug")

    monkeypatch.setattr(training_module, "loss_of", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        run()


def test_memory_that_runs_out_in_evaluation(monkeypatch):
    explainer, processes = make().to("cpu"), Processes()
    expected = evaluate(explainer, HELD_OUT, CONFIG, processes)
    original, sizes = base_module.measure, []

    def limited(*arguments, batch_size, **keywords):
        sizes.append(batch_size)
        if batch_size > 8:
            raise torch.OutOfMemoryError("injected")
        return original(*arguments, batch_size=batch_size, **keywords)

    monkeypatch.setattr(base_module, "measure", limited)
    assert evaluate(explainer, HELD_OUT, CONFIG, processes) == pytest.approx(expected, abs=1e-5)
    assert sizes == [32, 16, 8, 8]  # the last two are the two references


# ---- the order of the pictures ----


def test_an_epoch_is_a_permutation_and_the_next_one_another():
    order = Order(5, 0, 2, range(10))
    seen = [row for step in range(10) for row in order.rows(step)]
    epochs = [seen[i : i + 5] for i in range(0, 20, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs) and len({tuple(e) for e in epochs}) > 1
    assert seen != [row for step in range(10) for row in Order(5, 1, 2, range(10)).rows(step)]


def test_the_order_is_the_same_for_any_number_of_processes():
    alone = Order(7, 3, 6, range(5))
    for world in (2, 3):
        parts = [Order(7, 3, 6, range(5), range(r * 6 // world, (r + 1) * 6 // world)) for r in range(world)]
        for step in (4, 0, 2):
            assert [row for part in parts for row in part.rows(step)] == alone.rows(step)


def test_workers_change_nothing(whole):
    assert equal(run(num_workers=2)[0], whole[0])


# ---- streams ----


def numbered(shards, each=3):
    """A stream whose pictures are told apart by their first value."""

    def rows(shards):
        for shard in shards:
            for i in range(each):
                yield {"pixel_values": torch.full((3, SIZE, SIZE), float(shard * each + i)).numpy()}

    return datasets.IterableDataset.from_generator(rows, gen_kwargs={"shards": list(range(shards))})


def numbers(batch):
    return batch[:, 0, 0, 0].int().tolist()


@pytest.mark.parametrize("world", [1, 2])
def test_a_stream_goes_on_where_it_was(world):
    seen = []
    for rank in range(world):
        stream = Stream(numbered(4), 2, rank, world)
        seen += numbers(next(stream))
        again = Stream(numbered(4), 2, rank, world, json.loads(json.dumps(stream.state())))
        after = [numbers(next(again)) for _ in range(6 // world - 1)]
        assert after == [numbers(next(stream)) for _ in range(6 // world - 1)]
        seen += [number for batch in after for number in batch]
    assert sorted(seen) == list(range(12))  # one epoch, over all processes, and nothing twice


def test_a_stream_begins_again_after_its_end():
    stream = Stream(numbered(2, 2), 3, 0, 1)
    seen = [number for _ in range(4) for number in numbers(next(stream))]
    assert sorted(seen[:4]) == sorted(seen[4:8]) == [0, 1, 2, 3]


def test_a_shuffled_stream_repeats_nothing_it_has_seen():
    """The pictures waiting in the shuffle buffer are lost, as `datasets` documents."""
    stream = Stream(numbered(6).shuffle(seed=0, buffer_size=4), 2, 0, 1)
    before = [number for _ in range(3) for number in numbers(next(stream))]
    again = Stream(numbered(6).shuffle(seed=0, buffer_size=4), 2, 0, 1, stream.state())
    after = []
    while again.epoch == 0:
        after += numbers(next(again))
    rest = [n for n in after[:-2] if n in before]
    assert len(before) == 6 and len(after) > 4 and not rest


class Plain(torch.utils.data.IterableDataset):
    """A stream without a state, which is passed over up to the place."""

    def __iter__(self):
        return iter(ROWS)


@pytest.mark.parametrize("stream", [Plain, lambda: numbered(4)])
def test_training_on_a_stream_resumes_to_the_bit(stream, tmp_path):
    undisturbed, _ = run(rows=stream())
    run(tmp_path, rows=stream(), stop_after=3)
    assert equal(run(tmp_path, rows=stream(), resume_from_checkpoint="last")[0], undisturbed)


def test_an_empty_stream_is_refused():
    with pytest.raises(ExplainerError, match="no pictures for every process"):
        next(Stream(iter(()), 1, 0, 1))


# ---- the best weights, and what is written ----


def test_the_best_weights_are_kept(monkeypatch, tmp_path):
    heads, scores = [], iter([0.5, 0.3, 0.4])

    def scripted(explainer, *arguments):
        heads.append(head(explainer))
        return {"deletion": 0.5, "insertion": 0.5, "score": next(scores)}

    monkeypatch.setattr(training_module, "evaluate", scripted)
    explainer = make()
    best, result = run(tmp_path, explainer)
    assert (result.best_step, result.best_score, result.step) == (4, 0.3, 6)
    assert equal(best, heads[1]) and not equal(heads[1], heads[2])
    saved = ExplainerForImageClassification.from_pretrained(str(tmp_path))
    assert equal(head(saved), best) and saved.config.trained_steps == explainer.config.trained_steps == 4
    assert saved.image_processor is not None
    last = ExplainerForImageClassification.from_pretrained(str(tmp_path / "checkpoint-6"))
    assert equal(head(last), heads[2]) and last.config.trained_steps == 6


def test_the_score_is_that_of_the_weights_one_gets(whole):
    explainer = make()
    _, result = run(explainer=explainer)
    again = evaluate(explainer, HELD_OUT, CONFIG, Processes())
    assert again["score"] == result.best_score == min(x["eval/score"] for x in result.log if "eval/score" in x)
    assert again["score"] == pytest.approx(again["deletion"] + 1 - again["insertion"])
    assert again["deletion"] == pytest.approx((again["mean/deletion"] + again["blur/deletion"]) / 2)
    assert not explainer.training


def test_the_best_of_an_earlier_part_survives_a_restart(monkeypatch, tmp_path):
    scores = iter([0.3, 0.5, 0.4])
    fake = lambda *arguments: {"deletion": 0.5, "insertion": 0.5, "score": next(scores)}  # noqa: E731
    monkeypatch.setattr(training_module, "evaluate", fake)
    run(tmp_path, stop_after=4)
    early = head(ExplainerForImageClassification.from_pretrained(str(tmp_path)))
    final, result = run(tmp_path, resume_from_checkpoint="last")
    assert result.best_step == 2 and equal(final, early)


def test_a_score_that_is_none_is_never_the_best(monkeypatch, tmp_path):
    scores = iter([float("nan"), 0.5, float("nan")])
    fake = lambda *arguments: {"deletion": 0.5, "insertion": 0.5, "score": next(scores)}  # noqa: E731
    monkeypatch.setattr(training_module, "evaluate", fake)
    _, result = run(tmp_path)
    assert (result.best_step, result.best_score) == (4, 0.5)
    scores = iter([float("nan")] * 3)
    _, result = run()
    assert (result.best_step, result.best_score) == (6, None)


@pytest.mark.parametrize("held_out, said", [([], "eval_dataset is empty"), (iter(ROWS), "eval_dataset has no length")])
def test_held_out_pictures_that_are_none(held_out, said, tmp_path):
    with pytest.raises(ExplainerError, match=said):
        run(tmp_path / "new", held_out=held_out)
    with pytest.raises(ExplainerError, match=said):
        dry_run(make(), ROWS, CONFIG, held_out)
    assert not (tmp_path / "new").exists()


def test_without_held_out_pictures_the_last_weights_are_kept(tmp_path):
    last, result = run(tmp_path, held_out=None)
    saved = ExplainerForImageClassification.from_pretrained(str(tmp_path))
    assert equal(head(saved), last) and saved.config.trained_steps == result.best_step == 6
    assert result.best_score is None


def test_only_so_many_checkpoints_are_kept(tmp_path):
    run(tmp_path, save_steps=1, save_total_limit=2, held_out=None)
    assert [Path(c).name for c in checkpoints(tmp_path)] == ["checkpoint-5", "checkpoint-6"]


def test_no_steps(tmp_path):
    explainer = make()
    before = head(explainer)
    after, result = run(tmp_path, explainer, max_steps=0)
    assert equal(before, after) and result.step == 0 and result.log == []
    assert ExplainerForImageClassification.from_pretrained(str(tmp_path)).config.trained_steps == 0


def test_a_finished_run_may_be_resumed(tmp_path, whole):
    run(tmp_path)
    again, result = run(tmp_path, resume_from_checkpoint="last")
    assert equal(again, whole[0]) and result.log == [] and result.step == 6


def test_a_trained_explainer_can_be_trained_further():
    explainer = make()
    run(explainer=explainer, held_out=None)
    run(explainer=explainer, held_out=None)
    assert explainer.config.trained_steps == 12


def test_training_lowers_the_loss():
    _, result = run(max_steps=25, per_device_train_batch_size=8, held_out=None, references=("black",), grids=(4, 4))
    assert losses(result)[-5:].mean() < losses(result)[:5].mean() - 0.01


# ---- going on ----


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"seed": 1}, "seed=0, but this one has seed=1"),
        ({"per_device_train_batch_size": 8}, "global batch=4, but this one has global batch=8"),
        ({"objective": "aha-release"}, "objective="),
        ({"learning_rate": 0.1}, "learning_rate=0.001"),
        ({"explainer": 1}, "of another classifier, "),
        ({"rows": ROWS[:9]}, "pictures=10"),
    ],
)
def test_going_on_with_other_settings_is_refused(changes, said, tmp_path_factory, request):
    folder = request.getfixturevalue("stopped")
    changes = changes | ({"explainer": make(seed=1)} if "explainer" in changes else {})
    with pytest.raises(ExplainerError, match=said):
        run(folder, resume_from_checkpoint="last", **changes)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    os.environ["ACCELERATE_USE_CPU"] = "true"
    folder = tmp_path_factory.mktemp("stopped")
    run(folder, stop_after=2)
    return folder


def test_another_split_of_the_same_batch_may_go_on(stopped, tmp_path, whole):
    checkpoint = str(stopped / "checkpoint-2")
    _, result = run(
        tmp_path, resume_from_checkpoint=checkpoint, per_device_train_batch_size=2, gradient_accumulation_steps=2
    )
    torch.testing.assert_close(losses(result), losses(whole[1])[2:], atol=1e-4, rtol=0)


def test_a_folder_of_an_earlier_run_is_refused(stopped, tmp_path):
    with pytest.raises(ExplainerError, match="checkpoint-2 of an earlier run; go on from it with"):
        run(stopped)
    with pytest.raises(ExplainerError, match=r"is no checkpoint of a training run; .* holds checkpoint-2"):
        run(stopped, resume_from_checkpoint=str(tmp_path))
    with pytest.raises(ExplainerError, match="needs the output_dir"):
        run(resume_from_checkpoint="last")


def test_going_on_from_an_earlier_checkpoint(tmp_path, whole):
    """The later ones go, or the limit would remove the new ones as soon as they are written."""
    run(tmp_path, save_total_limit=3)
    early = str(tmp_path / "checkpoint-2")
    assert len(checkpoints(tmp_path)) == 3
    _, result = run(tmp_path, resume_from_checkpoint=early, save_total_limit=2, stop_after=3)
    assert [Path(c).name for c in checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-3"]
    assert os.path.isdir(result.checkpoint)
    assert equal(run(tmp_path, resume_from_checkpoint="last")[0], whole[0])


def test_checkpoints_of_another_run_are_not_touched(stopped, tmp_path):
    run(tmp_path, stop_after=3)
    with pytest.raises(ExplainerError, match=r"is none of the checkpoints in .* go on from it in another output_dir"):
        run(tmp_path, resume_from_checkpoint=str(stopped / "checkpoint-2"))
    assert [Path(c).name for c in checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-3"]


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"eval_references": ("black",)}, "eval_references=['mean', 'blur'] is now ['black']"),
        ({"eval_budgets": 5}, "eval_budgets=3 is now 5"),
        ({"held_out": HELD_OUT[:2]}, "eval pictures=3 is now 2"),
        ({}, None),
    ],
)
def test_a_best_score_of_another_kind_is_forgotten(changes, said, stopped, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(training_run_module.logger, "warning", warnings.append)
    scores = iter([9.0, 8.0])  # worse than what the first part had
    fake = lambda *arguments: {"deletion": 0.5, "insertion": 0.5, "score": next(scores)}  # noqa: E731
    monkeypatch.setattr(training_module, "evaluate", fake)
    _, result = run(tmp_path, resume_from_checkpoint=str(stopped / "checkpoint-2"), **changes)
    assert result.best_step == (6 if said else 2)
    assert len(warnings) == bool(said) and all(said in warning for warning in warnings)


def test_last_without_a_checkpoint_begins(tmp_path, whole):
    assert equal(run(tmp_path / "new", resume_from_checkpoint="last")[0], whole[0])


def test_another_head_is_refused(stopped):
    other = RankingExplainerForImageClassification.from_classifier(
        build("resnet", 0, SIZE), processor(SIZE), preset="small"
    )
    with pytest.raises(ExplainerError, match=r"the head in .* has another shape than this one"):
        run(stopped, other, resume_from_checkpoint="last")


# ---- stopping ----


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_and_saves(number, monkeypatch, tmp_path, whole):
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        disturbed = at_step(2, lambda: os.kill(os.getpid(), number), training_module.loss_of)
        patch.setattr(training_module, "loss_of", disturbed)
        _, result = run(tmp_path)
    assert (result.step, result.stopped_by) == (3, number) and result.checkpoint.endswith("checkpoint-3")
    assert signal.getsignal(number) is before
    assert equal(run(tmp_path, resume_from_checkpoint="last")[0], whole[0])


class SignalsAllInAWorker:
    """100 pictures, read slowly; reading the first one of step 5 signals the whole group."""

    def __init__(self, number):
        self.number, self.row = number, Order(100, 0, 4, range(20)).rows(5)[0]

    def __len__(self):
        return 100

    def __getitem__(self, row):
        time.sleep(0.05)
        if row == self.row:
            os.killpg(0, self.number)
            time.sleep(0.2)
        return ROWS[row % len(ROWS)]


def signalled_with_its_workers(rank, folder, number):
    os.setpgrp()
    _, result = run(folder, rows=SignalsAllInAWorker(number), num_workers=2, max_steps=20, held_out=None)
    assert result.stopped_by == number and 0 < result.step <= 6
    assert result.checkpoint.endswith(f"checkpoint-{result.step}") and os.path.isdir(result.checkpoint)
    assert not multiprocessing.active_children()  # shut down, not waited for


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_leaves_the_workers(number, tmp_path):
    """As Ctrl-C in a terminal and job schedulers send it."""
    began = time.monotonic()
    assert wait(start(1, signalled_with_its_workers, tmp_path, number)) == [0]
    assert time.monotonic() - began < 30


def test_a_second_interrupt_does_not_wait(monkeypatch):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(training_module, "loss_of", at_step(1, twice, training_module.loss_of))
    with pytest.raises(KeyboardInterrupt):
        run()


# ---- numbers that are none ----


def test_a_loss_that_is_not_finite_ends_the_run(monkeypatch, tmp_path, whole):
    with monkeypatch.context() as patch:
        patch.setattr(training_module, "loss_of", at_step(3, None, training_module.loss_of))
        with pytest.raises(ExplainerError, match=r"step 3: the loss of pictures 0 to 3 .*checkpoint-2; lower learning"):
            run(tmp_path)
    assert [Path(c).name for c in checkpoints(tmp_path)] == ["checkpoint-2"]
    assert equal(run(tmp_path, resume_from_checkpoint="last")[0], whole[0])


def test_a_gradient_that_is_not_finite_ends_the_run(monkeypatch):
    original = training_module.loss_of

    def steep(explainer, *arguments):
        loss, log = original(explainer, *arguments)
        return loss + (0 * next(explainer.head.parameters())).sqrt().sum(), log  # slope: 0 times infinity

    monkeypatch.setattr(training_module, "loss_of", steep)
    explainer = make()
    before = head(explainer)
    with pytest.raises(ExplainerError, match=r"step 0: the gradient of pictures 0 to 3 .* there is no checkpoint yet"):
        run(explainer=explainer)
    assert equal(head(explainer), before)


def test_a_picture_that_is_not_finite_is_named():
    rows = [dict(row) for row in ROWS]
    rows[7] = {"pixel_values": torch.full((3, SIZE, SIZE), torch.nan)}
    with pytest.raises(ExplainerError, match=r"the pixel_values of picture \d of the batch \(row 7 of the data set\)"):
        run(rows=rows)
    some = torch.utils.data.Subset([*rows, *ROWS], range(5, 15))
    with pytest.raises(ExplainerError, match=r"\(row 7 of the data set\)"):
        run(rows=some)


# ---- speed and memory ----


def test_bf16_is_for_the_classifier_only(monkeypatch):
    seen, original = [], training_module.loss_of

    def watched(explainer, *arguments):
        seen.append(arguments[-1])
        return original(explainer, *arguments)

    monkeypatch.setattr(training_module, "loss_of", watched)
    trained, result = run(mixed_precision="bf16", max_steps=2, held_out=None)
    assert seen == [torch.bfloat16] * 2 and {p.dtype for p in trained.values()} == {torch.float32}
    assert torch.isfinite(losses(result)).all()


def test_a_head_in_half_precision_is_refused():
    explainer = make()
    explainer.head.to(torch.bfloat16)
    with pytest.raises(ExplainerError, match=r"the head is in torch.bfloat16, .* load it in float32"):
        run(explainer=explainer)


def test_gradient_checkpointing(monkeypatch):
    plain, _ = run(explainer=make("vit"), max_steps=2, held_out=None)
    explainer, calls = make("vit"), []
    model = explainer.classifier.model
    enable = model.activation_checkpointing_enable
    monkeypatch.setattr(model, "activation_checkpointing_enable", lambda *a: (calls.append(1), enable(*a)))
    recomputed, _ = run(explainer=explainer, max_steps=2, held_out=None, gradient_checkpointing=True)
    assert calls and not model.is_activation_checkpointing
    for name, value in plain.items():
        torch.testing.assert_close(recomputed[name], value, atol=1e-5, rtol=1e-4)


def test_a_family_without_gradient_checkpointing():
    with pytest.raises(ExplainerError, match="ResNetForImageClassification has no gradient checkpointing"):
        run(gradient_checkpointing=True)


def test_torch_compile(whole):
    explainer, compiled = make(), []

    def backend(graph, inputs):
        compiled.append(len(graph.graph.nodes))
        return graph.forward

    _, result = run(explainer=explainer, torch_compile=True, torch_compile_backend=backend, max_steps=2, held_out=None)
    assert compiled and explainer.classifier.model._compiled_call_impl is None
    torch.testing.assert_close(losses(result)[0], losses(whole[1])[0], atol=1e-4, rtol=0)


# ---- what a run says ----


class Notebook(GeneralTracker):
    """A tracker that keeps what it is told."""

    name, requires_logging_directory = "notebook", False

    def __init__(self):
        super().__init__(_blank=True)
        self.config, self.lines, self.finished = None, [], False

    @property
    def tracker(self):
        return self

    def store_init_configuration(self, values):
        self.config = values

    def log(self, values, step=None, **kwargs):
        self.lines.append({"step": step} | values)

    def finish(self):
        self.finished = True


def test_trackers_get_what_the_log_gets(monkeypatch):
    notebook = Notebook()
    monkeypatch.setattr(processes_module, "trackers", lambda *arguments: [notebook])
    _, result = run(max_steps=2)
    assert notebook.lines == result.log and notebook.finished
    assert notebook.config["seed"] == 0 and notebook.config["grids"] == "(3, 5)"


def test_trackers_that_are_not_there(monkeypatch, tmp_path):
    with pytest.raises(ExplainerError, match="unknown tracker 'paper' in report_to; choose from none, all, "):
        run(report_to="paper")
    monkeypatch.setattr(processes_module, "installed", lambda name: False)
    with pytest.raises(ExplainerError, match="report_to names wandb, which is not installed; pip install wandb"):
        run(report_to=("wandb",))
    assert processes_module.trackers(("all",), None) == []
    monkeypatch.setattr(processes_module, "installed", lambda name: name in ("tensorboard", "trackio"))
    assert processes_module.trackers(("all",), None) == ["trackio"]
    assert set(processes_module.trackers(("all",), "folder")) == {"tensorboard", "trackio"}
    with pytest.raises(ExplainerError, match="writes into output_dir"):
        run(report_to="tensorboard")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    "stream, switch, shown", [(Terminal, True, True), (io.StringIO, True, False), (Terminal, False, False)]
)
def test_the_progress_bar(stream, switch, shown, monkeypatch, tmp_path):
    """On a terminal, unless transformers' switch is off; checkpoints add no bars of their own."""
    explainer = make()
    monkeypatch.setattr(sys, "stderr", stream())
    (logging.enable_progress_bar if switch else logging.disable_progress_bar)()
    try:
        run(tmp_path, explainer, max_steps=2)
        assert logging.is_progress_bar_enabled() == switch
    finally:
        logging.disable_progress_bar()
    said = sys.stderr.getvalue()
    assert ("training" in said) == shown and "shards" not in said
    if shown:
        assert all(word in said for word in ("deletion=", "insertion=", "kappa=", "eval=", "2/2"))


def test_log_lines(whole):
    first, last = whole[1].log[0], whole[1].log[-1]
    assert {"train/loss", "train/deletion", "train/insertion", "train/kappa", "train/learning_rate"} <= first.keys()
    assert first["train/loss"] == pytest.approx(first["train/deletion"] + 1 - first["train/insertion"], abs=1e-5)
    assert {"eval/score", "eval/deletion", "eval/blur/insertion", "eval/mean/deletion"} <= last.keys()


def test_dry_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    explainer = make()
    before = head(explainer)
    config = replace(CONFIG, references=("black",), max_steps=100, eval_steps=50, gradient_accumulation_steps=2)
    cost = dry_run(explainer, ROWS, config, HELD_OUT)
    assert equal(head(explainer), before) and explainer.config.trained_steps == 0 and not any(tmp_path.iterdir())
    # per forward 4 clean pictures, a blank one, and 2 inner budgets of deletion and insertion; two forwards a step
    assert cost.passes_per_step == 2 * (4 + 1 + 2 * 2 * 4)
    # per evaluation and picture: map, under both references clean and one inner budget both ways, and its blur; and
    # the mean color once
    assert cost.passes == 100 * cost.passes_per_step + 2 * (3 * (1 + 2 * (1 + 2) + 1) + 1)
    assert cost.pictures == 10 and cost.pictures_per_step == 8
    assert cost.head_parameters == sum(p.numel() for p in explainer.head.parameters())
    assert cost.hours > 0 and cost.peak_memory > 1e6
    for word in ("parameters", "pictures per epoch", "42 pictures per step", "hours in total", "peak memory"):
        assert word in str(cost)
    assert not explainer.classifier.model._forward_pre_hooks


# ---- wrong settings ----


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"mixed_precision": "fp16"}, "mixed_precision='fp16' is not offered: .* take 'bf16'"),
        ({"mixed_precision": "int8"}, "choose no or bf16"),
        ({"max_steps": -1}, "max_steps=-1; give 0 or more"),
        ({"save_steps": 0}, "save_steps=0; give 1 or more"),
        ({"learning_rate": 0}, "learning_rate=0; give a positive number"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"warmup_ratio": 2}, "warmup_ratio=2; give a share"),
        ({"grids": (9, 4)}, "give two counts of cells in rising order"),
        ({"grids": (4,)}, "give two values"),
        ({"grids": (4, "many")}, "grids holds 'many'"),
        ({"references": ("grey",)}, "unknown reference 'grey'; choose from black, mean, blur, noise"),
        ({"eval_references": "2"}, "give a gray from 0 to 1"),
        ({"eval_references": ()}, "name at least one"),
        ({"eval_budgets": 2}, "at least 3 points"),
        ({"objective": "best"}, "unknown objective 'best'; choose from default"),
        ({"operator": "sort"}, "unknown operator 'sort'"),
    ],
)
def test_wrong_settings(changes, said):
    with pytest.raises(ExplainerError, match=said):
        TrainingConfig(**changes)


def test_settings_of_the_objective():
    objective = TrainingConfig(grids=("4", "pixels"), references=("black", "0.5"), tau=(1.0, 0.1)).ranking_objective()
    assert objective.grids == (4, None) and objective.references == ("black", 0.5) and objective.tau == (1.0, 0.1)


def test_the_learning_rate_rises_and_falls():
    config = TrainingConfig(max_steps=100, warmup_ratio=0.1, learning_rate=1.0)
    rates = [config.learning_rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == 1.0 and 0 < rates[99] < 1e-3
    assert rates[55] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "rows, said",
    [
        ([], "the data set is empty"),
        ([{"image": 1}] * 4, "holds a dict without 'pixel_values'"),
        ([{"pixel_values": torch.zeros(3, 32, 32 + i)} for i in range(4)], "equal for all, is needed"),
    ],
)
def test_wrong_rows(rows, said):
    with pytest.raises(ExplainerError, match=said):
        run(rows=rows, num_workers=1)
