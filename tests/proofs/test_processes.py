"""Proves that several processes train as one does: same result, each reads its rows, one writes."""

import collections
import contextlib
import itertools
import json
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest

import jaxmnist
from jaxmnist import pipeline
from jaxmnist.checkpoint import read_info, steps_in
from jaxmnist.distributed.lock import LOCK
from jaxmnist.pipeline import process_rows, stream_rows
from jaxmnist.testing import run_processes
from jaxmnist.writers import read_records
from proofs.resuming import TIMING, assert_records_close, learned
from support import Tiny, relative, small_config, small_data

STEPS = 20
# The first examples are looked at for their shape, and their augmentation is shown.
SHOWN = {*range(8)}
# 22 steps of 24 rows are an epoch of the 509 examples: no example comes twice in these 20.
COMMON = {
    "batch_size": 24,
    "train.steps": STEPS,
    "train.ema_decay": 0.9,
    "augment.shift": 1,
    "optimizer.clip_norm": 1.0,
}
CASES = {
    "shard_map": {"train.accumulate": 2},
    "pmap": {"parallel.strategy": "pmap"},
    "jit": {"parallel.strategy": "jit"},
    "deterministic": {"parallel.deterministic": True, "batch_size": 32},
}


@contextlib.contextmanager
def rows_asked_for():
    """Notes which rows are read, by the number of examples in the split."""
    asked, make = collections.defaultdict(list), pipeline.make_gather

    def make_noting(source):
        gather = make(source)

        def noting(epochs, indices):
            asked[len(source)].append(np.array(indices))
            return gather(epochs, indices)

        return noting

    with mock.patch.object(pipeline, "make_gather", make_noting):
        yield asked


def train_case(name, workdir, *, devices=None):
    """Trains a case on the processes there are; returns what this one learned, said and read."""
    data = small_data()
    config = small_config(**COMMON | CASES[name], parallel__devices=devices)
    model = Tiny(dropout=0.5)
    with rows_asked_for() as asked:
        result = jaxmnist.train(config, workdir, dataset=data, model=model, quiet=True)
    return {
        "learned": dict(enumerate(jax.tree.leaves(learned(result.state)))),
        "params_sha256": result.params_sha256,
        "test": result.test.to_dict(),
        "history": [{k: r[k] for k in r.keys() - set(TIMING)} for r in result.history],
        "trained_rows": np.concatenate(asked[len(data.train)]),
        "evaluated_rows": np.concatenate(asked[len(data.test)]),
    }


def train_cases(folder, names):
    """The function that each process of a job runs."""
    return {name: train_case(name, Path(folder) / name) for name in names}


def assert_same_as_one(results, one, *, rtol):
    """Every process has the same bits, and they are those of one process but for rounding."""
    for other in results[1:]:
        assert other["params_sha256"] == results[0]["params_sha256"]
        assert other["test"] == results[0]["test"]
        assert other["history"] == results[0]["history"]
    result = results[0]
    assert result["learned"].keys() == {str(key) for key in one["learned"]}
    worst = {k: relative(result["learned"][str(k)], leaf) for k, leaf in one["learned"].items()}
    assert max(worst.values()) <= rtol, worst
    assert result["test"]["confusion"] == one["test"]["confusion"]
    assert result["test"]["count"] == 131
    assert_records_close(result["history"], one["history"], rtol=1e-6)
    if rtol == 0:
        assert result["params_sha256"] == one["params_sha256"]


def assert_each_reads_its_rows(results, *, batch_size):
    """Of every batch a process has asked for its contiguous rows, and for no others."""
    count = len(results)
    for process, result in enumerate(results):
        rows = process_rows(batch_size, process=process, processes=count)
        batches = [
            stream_rows(0, step, batch_size=batch_size, examples=len(small_data().train), rows=rows)
            for step in range(STEPS)
        ]
        asked, expected = set(result["trained_rows"]), set(np.concatenate([b[1] for b in batches]))
        assert expected <= asked
        assert asked - expected <= SHOWN
    for a, b in itertools.combinations(results, 2):
        assert not set(a["trained_rows"]) & set(b["trained_rows"]) - SHOWN
        # What stands in for padding is example 0.
        assert not set(a["evaluated_rows"]) & set(b["evaluated_rows"]) - {0}
    assert set().union(*(set(r["evaluated_rows"]) for r in results)) == set(range(131))


def assert_written_once(workdir):
    """The files are those of a run of one process; no line and no event file comes twice."""
    lines = [(r["split"], r["step"]) for r in read_records(workdir / "metrics.jsonl")]
    train = [("train", step) for step in (1, *range(4, STEPS + 1, 4))]
    assert sorted(lines) == sorted([*train, ("test", 16), ("test", 20)])
    # What stands at the start, the metrics, what stands at the end.
    assert len(list((workdir / "tensorboard").iterdir())) == 3
    names = {"checkpoints", "config.json", "metrics.jsonl", "result.json", "tensorboard", LOCK}
    assert {p.name for p in workdir.iterdir()} == names
    assert json.loads((workdir / "result.json").read_text())["test"]["count"] == 131
    assert steps_in(workdir / "checkpoints") == [8, 16, 20]
    for step in (8, 16, 20):
        assert read_info(workdir / "checkpoints", step).step == step


def prove(folder, names, *, processes, devices):
    results = run_processes(
        train_cases, processes=processes, devices=devices, args=(folder, names), timeout_s=240
    )
    for name in names:
        one = train_case(name, folder / f"one {name}", devices=1)
        several = [r[name] for r in results]
        assert_same_as_one(several, one, rtol=0 if name == "deterministic" else 1e-6)
        batch_size = (COMMON | CASES[name])["batch_size"]
        if batch_size * STEPS < 509:
            assert_each_reads_its_rows(several, batch_size=batch_size)
        assert_written_once(folder / name)


def test_two_processes_of_two_devices(tmp_path):
    prove(tmp_path, ["shard_map", "deterministic"], processes=2, devices=2)


@pytest.mark.slow
def test_three_processes_of_one_device(tmp_path):
    prove(tmp_path, ["shard_map"], processes=3, devices=1)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "devices"), [(2, 2), (3, 1)])
def test_the_other_strategies(tmp_path, processes, devices):
    prove(tmp_path, ["pmap", "jit"], processes=processes, devices=devices)
