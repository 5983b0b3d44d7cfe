"""Promise 5: one trace of each step, donated state, no hidden transfer, bounded steps in flight."""

import dataclasses
from collections import deque

import jax
import numpy as np
import pytest

import jaxmnist
from jaxmnist.mesh import data_mesh, in_flight_limit, replicate
from jaxmnist.runs import train as train_module
from jaxmnist.state import create_state
from jaxmnist.step import make_train_step, place_batch
from jaxmnist.step import strategies as strategies_module
from jaxmnist.testing import assert_no_host_transfers, assert_single_trace
from proofs.runs import STRATEGIES
from support import Tiny, small_batch, small_config, small_data, small_task


def prepared(strategy="shard_map", devices=4):
    """A step, its state and a batch on the devices."""
    task, init = small_task()
    mesh = data_mesh(devices)
    state = replicate(
        create_state(jax.device_get(init(jax.random.key(0))), task.tx, ema=False), mesh
    )
    step = make_train_step(task, mesh, strategy=strategy)
    return step, state, place_batch(small_batch(), mesh, strategy=strategy)


@pytest.mark.parametrize(
    "strategy",
    ["shard_map", *(pytest.param(s, marks=pytest.mark.slow) for s in ("pmap", "jit"))],
)
def test_each_step_is_traced_once_over_training_evaluation_and_resumption(
    strategy, tmp_path, monkeypatch
):
    for name in ("local_train_step", "local_eval_step"):
        monkeypatch.setattr(
            strategies_module, name, assert_single_trace(getattr(strategies_module, name))
        )
    config = small_config(parallel__strategy=strategy, parallel__devices=4, train__steps=19)
    jaxmnist.train(config, tmp_path / "run", dataset=small_data(), model=Tiny(), quiet=True)
    monkeypatch.undo()
    for name in ("local_train_step", "local_eval_step"):
        monkeypatch.setattr(
            strategies_module, name, assert_single_trace(getattr(strategies_module, name))
        )
    # Another part of the same run: it traces once more, and only once.
    longer = small_config(parallel__strategy=strategy, parallel__devices=4, train__steps=40)
    jaxmnist.train(
        longer,
        tmp_path / "run",
        dataset=small_data(),
        model=Tiny(),
        quiet=True,
        allow_config_change=True,
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_state_is_donated(strategy):
    step, state, batch = prepared(strategy)
    new_state, _ = step(state, batch)
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    alive = [jax.tree_util.keystr(path) for path, x in leaves if not x.is_deleted()]
    # The step does not read the last learning rate, so that one is not even passed to it.
    assert alive == [".window.learning_rate"]
    with pytest.raises(RuntimeError, match="deleted"):
        np.asarray(jax.tree.leaves(state.params)[0])
    assert not any(x.is_deleted() for x in jax.tree.leaves((new_state, batch)))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_loop_reads_once_a_log_line_and_moves_nothing_unasked(strategy, tmp_path, monkeypatch):
    """20 steps with a line at the first and at every fourth: six reads."""
    loop = train_module._loop

    def guarded(*args, **kwargs):
        with assert_no_host_transfers(allowed=6):
            return loop(*args, **kwargs)

    monkeypatch.setattr(train_module, "_loop", guarded)
    # An evaluation reads its sums at its end and a checkpoint the state; here it is the steps
    # between them that are looked at.
    recorder = train_module.Recorder
    monkeypatch.setattr(recorder, "evaluate", lambda self, state, step: False)
    monkeypatch.setattr(recorder, "save", lambda self, state, step: None)
    config = small_config(parallel__strategy=strategy, parallel__devices=4, checkpoint__every=1000)
    result = jaxmnist.train(
        config, tmp_path / "run", dataset=small_data(), model=Tiny(), quiet=True
    )
    assert [r["step"] for r in result.history if r["split"] == "train"] == [1, 4, 8, 12, 16, 20]


def test_a_line_is_read_while_the_next_call_is_under_way(tmp_path, monkeypatch):
    """Unless an evaluation, a checkpoint or the end wants it; those of 20 steps are as above."""
    calls, lines = [], []
    make, write = train_module.make_train_step, train_module.Recorder._write

    def make_counted(*args, **kwargs):
        step = make(*args, **kwargs)
        return dataclasses.replace(step, call=lambda *a: (calls.append(a), step(*a))[1])

    def written(self, split, step, *args):
        lines.append((split, step, len(calls)))
        write(self, split, step, *args)

    monkeypatch.setattr(train_module, "make_train_step", make_counted)
    monkeypatch.setattr(train_module.Recorder, "_write", written)
    config = small_config(eval__every=8, checkpoint__every=12)
    jaxmnist.train(config, tmp_path / "run", dataset=small_data(), model=Tiny(), quiet=True)
    train = [("train", 1, 2), ("train", 4, 5), ("train", 8, 8), ("train", 12, 12)]
    train += [("train", 16, 16), ("train", 20, 20)]
    assert [line for line in lines if line[0] == "train"] == train
    assert [line for line in lines if line[1] == 16] == [("train", 16, 16), ("test", 16, 16)]


def test_on_cpu_devices_one_step_is_in_flight():
    assert in_flight_limit(data_mesh(2)) == 1


@pytest.mark.parametrize("steps", [1500, pytest.param(4000, marks=pytest.mark.slow)])
def test_thousands_of_tiny_steps_do_not_deadlock(steps):
    """On as many devices as there are threads in XLA's pool, and no metric is read."""
    step, state, batch = prepared(devices=8)
    in_flight, limit = deque(), in_flight_limit(data_mesh(8))
    for _ in range(steps):
        state, sums = step(state, batch)
        in_flight.append(sums)
        if len(in_flight) > limit:
            jax.block_until_ready(in_flight.popleft())
    assert int(state.step) == steps


@pytest.mark.slow
def test_the_real_loop_does_not_deadlock(tmp_path):
    config = small_config(
        train__steps=4000, log__every=4000, checkpoint__every=4000, eval__every=4000
    )
    result = jaxmnist.train(
        config, tmp_path / "run", dataset=small_data(), model=Tiny(), quiet=True
    )
    assert int(result.state.step) == 4000
