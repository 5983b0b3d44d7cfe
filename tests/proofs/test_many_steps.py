"""Several steps in one call, and data on the devices, change no bit (promises 1 and 5)."""

import jax
import numpy as np
import pytest

import jaxmnist
from jaxmnist.mesh import data_mesh, replicate
from jaxmnist.models import CNN
from jaxmnist.state import create_state
from jaxmnist.step import Batch, Indexed, Several, make_train_step, place_batch
from proofs.resuming import TIMING, CrashError, crash_at
from proofs.runs import STRATEGIES
from support import bits_equal, small_config, small_data, small_task, worst_leaf

K, STEPS = 4, 8


def batches():
    """Row numbers of eight batches, int32 [steps, b]."""
    return np.random.default_rng(5).integers(0, len(small_data().train), (STEPS, 32), np.int32)


def trained(strategy, devices, *, steps_per_call, resident, cuts=None):
    """The state after eight steps, made in calls of so many steps."""
    conv = "xla" if strategy == "jit" else "winograd"
    task, init = small_task(CNN(dropout=0.5, conv=conv), shift=1)
    mesh, train = data_mesh(devices), small_data().train
    state = create_state(jax.device_get(init(jax.random.key(0))), task.tx, ema=False)
    state = replicate(state, mesh)
    table = replicate((train.images, train.labels.astype(np.int32)), mesh)
    step = make_train_step(
        task, mesh, strategy=strategy, steps_per_call=steps_per_call, resident=resident
    )
    many, done = steps_per_call > 1, 0
    for count in cuts or [steps_per_call] * (STEPS // steps_per_call):
        index = np.zeros((steps_per_call, 32), np.int32)
        index[:count] = batches()[done : done + count]
        index = index if many else index[0]
        mask = np.ones(index.shape, bool)
        labels = train.labels[index].astype(np.int32)
        rows = (index, mask) if resident else (train.images[index], labels, mask)
        rows = place_batch(rows, mesh, strategy=strategy, axis=int(many))
        batch = Indexed(*rows, table) if resident else Batch(*rows)
        batch = Several(batch, replicate(np.int32(count), mesh)) if many else batch
        state, _ = step(state, batch)
        done += count
    assert done == STEPS and int(state.step) == STEPS
    return jax.device_get(state)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "devices"), [("shard_map", 1), *((strategy, 4) for strategy in STRATEGIES)]
)
def test_several_steps_in_a_call_equal_one_by_one(strategy, devices):
    one = trained(strategy, devices, steps_per_call=1, resident=False)
    streamed = trained(strategy, devices, steps_per_call=K, resident=False)
    resident = trained(strategy, devices, steps_per_call=K, resident=True, cuts=[1, 3, 4])
    assert bits_equal(resident, streamed)
    if strategy == "jit":
        # It has XLA's convolution, which sums in another order within a loop on CPU.
        assert worst_leaf(streamed.params, one.params) < 1e-5
    else:
        assert bits_equal(streamed, one)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_data_on_the_devices_change_no_bit(strategy):
    streamed = trained(strategy, 4, steps_per_call=1, resident=False)
    resident = trained(strategy, 4, steps_per_call=1, resident=True)
    assert bits_equal(resident, streamed)


def run(workdir, **overrides):
    """The real loop with the shipped model on two devices; log lines cut the calls unevenly."""
    settings = {"model.conv": "winograd", "parallel.devices": 2, "log.every": 3} | overrides
    return jaxmnist.train(small_config(**settings), workdir, dataset=small_data(), quiet=True)


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs") / "one")


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param({"train.steps_per_call": 5}, marks=pytest.mark.slow),
        pytest.param({"pipeline.resident": "on"}, marks=pytest.mark.slow),
        {"train.steps_per_call": 16, "pipeline.resident": "on"},
    ],
    ids=["several steps a call", "data on the devices", "both"],
)
def test_a_run_has_the_same_bits_and_lines(overrides, one_by_one, tmp_path):
    result = run(tmp_path / "run", **overrides)
    assert result.params_sha256 == one_by_one.params_sha256
    for mine, other in zip(result.history, one_by_one.history, strict=True):
        mine, other = ({k: v for k, v in r.items() if k not in TIMING} for r in (mine, other))
        assert mine == other


@pytest.mark.slow
def test_a_run_that_is_broken_off_between_calls_resumes_exactly(one_by_one, tmp_path):
    overrides = {"train.steps_per_call": 5, "pipeline.resident": "on"}
    with crash_at(12), pytest.raises(CrashError):
        run(tmp_path / "run", **overrides)
    assert run(tmp_path / "run", **overrides).params_sha256 == one_by_one.params_sha256
