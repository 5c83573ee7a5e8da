"""The order of the pictures, and streams: the same for any number of processes, and after a restart."""

import json
import multiprocessing

import datasets
import pytest
import torch
from training_cases import ROWS, SIZE, equal, run

from hf_explain import ExplainerError
from hf_explain.training.batches import Order, Stream, load

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


def test_workers_end_with_what_breaks_off():
    """Not at the exit of the process, which would wait for them forever: they ignore the signal to end."""
    before = set(multiprocessing.active_children())
    batches = load([*ROWS[:6], {}], [[0, 1], [2, 3], [4, 6]], num_workers=2)
    next(batches)
    assert len(set(multiprocessing.active_children()) - before) == 2
    with pytest.raises(ExplainerError, match="without 'pixel_values'") as error:
        list(batches)
    assert set(multiprocessing.active_children()) == before and error.tb is not None  # which holds the iterator


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
