"""Promise 3: the training stream is a sequence of permutations, evaluation counts each row once."""

import contextlib
from itertools import pairwise

import grain
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmnist.errors import DataError
from jaxmnist.pipeline import (
    BatchSource,
    epoch_permutation,
    eval_batches,
    eval_rows,
    make_gather,
    process_rows,
    stream_rows,
    train_batches,
)
from support import small_data

pytestmark = pytest.mark.smoke
sizes = st.integers(1, 300)


def test_the_permutation_never_changes():
    """Golden: a change of it would change every result that was ever published."""
    assert epoch_permutation(0, 0, 10).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    assert epoch_permutation(1, 0, 10).tolist() != epoch_permutation(0, 1, 10).tolist()


@settings(max_examples=60, deadline=None)
@given(examples=sizes, batch_size=sizes, seed=st.integers(0, 2**32 - 1))
def test_every_epoch_holds_every_example_once(examples, batch_size, seed):
    steps = -(-3 * examples // batch_size)
    epochs, rows = [], []
    for step in range(steps):
        epoch, row = stream_rows(seed, step, batch_size=batch_size, examples=examples)
        assert len(row) == batch_size
        epochs.extend(epoch)
        rows.extend(row)
    for epoch in range(3):
        assert sorted(rows[epoch * examples : (epoch + 1) * examples]) == list(range(examples))
        assert set(epochs[epoch * examples : (epoch + 1) * examples]) == {epoch}


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {tuple(epoch_permutation(s, e, 50)) for s in range(3) for e in range(3)}
    assert len(orders) == 9


@settings(max_examples=60, deadline=None)
@given(
    each=st.integers(1, 40),
    processes=st.integers(1, 8),
    step=st.integers(0, 50),
    examples=sizes,
)
def test_processes_read_contiguous_rows_that_make_up_the_batch(each, processes, step, examples):
    batch_size = each * processes
    whole = stream_rows(0, step, batch_size=batch_size, examples=examples)[1]
    parts = [
        stream_rows(
            0,
            step,
            batch_size=batch_size,
            examples=examples,
            rows=process_rows(batch_size, process=p, processes=processes),
        )[1]
        for p in range(processes)
    ]
    assert np.concatenate(parts).tolist() == whole.tolist()


@settings(max_examples=100, deadline=None)
@given(examples=sizes, batch_size=sizes, devices=st.integers(1, 9), processes=st.integers(1, 4))
def test_evaluation_holds_every_example_once(examples, batch_size, devices, processes):
    padded = -(-batch_size // (devices * processes)) * devices * processes
    seen = []
    for number in range(-(-examples // batch_size)):
        for process in range(processes):
            rows = process_rows(padded, process=process, processes=processes)
            index, mask = eval_rows(
                number, batch_size=batch_size, padded_size=padded, examples=examples, rows=rows
            )
            assert len(index) == padded // processes
            seen.extend(index[mask])
    assert seen == list(range(examples))


def test_a_run_is_a_prefix_of_a_longer_run_and_resumes_by_seeking():
    data = small_data().train

    def labels(steps, start=0):
        bounds = range(start, steps + 1)
        source = BatchSource(data, seed=1, batch_size=100, bounds=bounds, rows=slice(None))
        return [b.label.tolist() for b in train_batches(source)]

    whole = labels(12)
    assert labels(7) == whole[:7]
    assert labels(12, start=5) == whole[5:]
    # However long it is, nothing is made ahead for each of its steps.
    endless = BatchSource(data, seed=1, batch_size=100, bounds=range(10**12), rows=slice(None))
    with contextlib.closing(train_batches(endless)) as batches:
        assert [next(batches).label.tolist() for _ in range(12)] == whole


def test_the_source_serves_its_own_rows_only():
    data = small_data().train
    source = BatchSource(data, seed=1, batch_size=60, bounds=range(4), rows=slice(20, 40))
    whole = BatchSource(data, seed=1, batch_size=60, bounds=range(4), rows=slice(None))
    assert source[2].label.tolist() == whole[2].label[20:40].tolist()
    assert (source[2].image == whole[2].image[20:40]).all()


def test_batches_of_several_steps_are_those_of_one_step_each():
    data = small_data().train
    options = {"seed": 1, "batch_size": 60, "rows": slice(20, 40)}
    one = list(train_batches(BatchSource(data, bounds=range(2, 8), **options)))
    bounds = [2, 5, 7]
    several = list(train_batches(BatchSource(data, bounds=bounds, several=3, **options)))
    indexed = BatchSource(data, bounds=bounds, several=3, indexed=True, **options)
    assert [int(call.count) for call in several] == [3, 2]
    for call, numbers, steps in zip(several, train_batches(indexed), pairwise(bounds), strict=True):
        for i, step in enumerate(range(*steps)):
            expected = one[step - 2]
            assert (call.batches.image[i] == expected.image).all()
            assert (call.batches.label[i] == expected.label).all() and call.batches.mask[i].all()
            index = numbers.batches.index[i]
            assert (data.images[index] == expected.image).all()
    assert not several[1].batches.mask[2].any()


def test_a_map_dataset_is_asked_at_its_place_in_the_repetition():
    asked = []

    class Source:
        def __len__(self):
            return 7

        def __getitem__(self, index):
            asked.append(int(index))
            return {"image": np.full((4, 4, 1), index, np.uint8), "label": int(index)}

    dataset = grain.MapDataset.source(Source())
    source = BatchSource(dataset, seed=0, batch_size=5, bounds=range(5), rows=slice(None))
    batches = [source[i] for i in range(3)]
    drawn = [int(x) for b in batches for x in b.label]
    assert sorted(drawn[:7]) == list(range(7)) and sorted(drawn[7:14]) == list(range(7))
    assert batches[0].image.shape == (5, 4, 4, 1)
    assert [int(b) for b in batches[0].image[:, 0, 0, 0]] == drawn[:5]


def test_a_map_dataset_draws_anew_in_every_epoch():
    dataset = (
        grain.MapDataset.range(6)
        .seed(3)
        .random_map(
            lambda i, rng: {"image": rng.integers(0, 255, (4, 4, 1), dtype=np.uint8), "label": i}
        )
    )
    gather = make_gather(dataset)
    index = np.arange(6)
    first, _ = gather(np.zeros(6, int), index)
    again, _ = gather(np.zeros(6, int), index)
    second, _ = gather(np.ones(6, int), index)
    assert (first == again).all()
    assert not (first == second).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize(
    ("dataset", "text"),
    [
        ([1, 2], "data set of type list cannot be read.*grain.MapDataset"),
        (grain.MapDataset.range(3).repeat(), "give a finite one without repeat"),
    ],
)
def test_what_is_no_data_set_is_refused(dataset, text):
    with pytest.raises(DataError, match=text):
        make_gather(dataset)(np.zeros(1, int), np.zeros(1, int))


def test_evaluation_batches_hold_each_example_and_then_padding():
    data = small_data().test
    batches = list(eval_batches(data, batch_size=50, padded_size=56, rows=slice(None)))
    assert [int(b.mask.sum()) for b in batches] == [50, 50, 31]
    assert np.concatenate([b.label[b.mask] for b in batches]).tolist() == data.labels.tolist()
