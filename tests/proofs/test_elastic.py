"""Proves that a run can go on with another number of devices and processes, to the same result."""

import functools
import shutil
from pathlib import Path

import pytest

import jaxmnist
from jaxmnist.checkpoint import steps_in
from jaxmnist.testing import run_processes
from proofs.resuming import (
    CrashError,
    assert_records_close,
    crash_at,
    learned,
    metrics,
)
from support import Tiny, small_config, small_data, worst_leaf

# A small step, since every update multiplies the rounding differences of the sums before it.
SETTINGS = {
    "train.ema_decay": 0.9,
    "augment.shift": 1,
    "checkpoint.every": 4,
    "optimizer.learning_rate": 0.02,
}
STRATEGIES = ("shard_map", "pmap", "jit")


def part(workdir, *, devices, strategy="shard_map", until=None):
    """Trains on some devices, from the last checkpoint to a step where it crashes, or the end."""
    config = small_config(**SETTINGS, parallel__devices=devices, parallel__strategy=strategy)
    try:
        with crash_at(until):
            result = jaxmnist.train(
                config, workdir, dataset=small_data(), model=Tiny(dropout=0.5), quiet=True
            )
    except CrashError:
        assert steps_in(workdir / "checkpoints")[-1] == until - 4
        return None
    assert until is None
    return learned(result.state)


def part_in_processes(workdir, strategy, until):
    """The function of each process: four devices in all."""
    part(Path(workdir), devices=4, strategy=strategy, until=until)


def go_on_in_two_processes(workdir, strategy, until):
    run_processes(part_in_processes, args=(workdir, strategy, until), timeout_s=240)


def assert_same(workdir, state, unbroken_workdir, unbroken):
    """Parameters, optimizer, average and metrics agree to 1e-6; the steps are the same ones."""
    assert worst_leaf(state, unbroken) <= 1e-6
    assert_records_close(metrics(workdir), metrics(unbroken_workdir), rtol=1e-6)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Work directory and state of the run on 8 devices that nothing stops."""
    workdir = tmp_path_factory.mktemp("unbroken") / "run"
    return workdir, part(workdir, devices=8)


@pytest.fixture(scope="module")
def saved_on_8(tmp_path_factory):
    """Copies the work directory of a run on 8 devices that ended after its save at step 4."""

    @functools.cache
    def saved(strategy):
        workdir = tmp_path_factory.mktemp("saved") / "run"
        part(workdir, devices=8, strategy=strategy, until=8)
        return workdir

    return lambda strategy, to: shutil.copytree(saved(strategy), to)


def test_from_8_devices_to_2_processes_to_1_device_and_back(tmp_path, unbroken):
    part(tmp_path, devices=8, until=8)
    go_on_in_two_processes(tmp_path, "shard_map", 12)
    part(tmp_path, devices=1, until=16)
    assert_same(tmp_path, part(tmp_path, devices=8), *unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("devices", [4, 2, 1])
def test_saved_on_8_and_resumed_on_fewer_and_back(
    tmp_path, unbroken, saved_on_8, strategy, devices
):
    fewer, back = tmp_path / "fewer", tmp_path / "back"
    saved_on_8(strategy, fewer)
    assert_same(fewer, part(fewer, devices=devices, strategy=strategy), *unbroken)
    part(back, devices=devices, strategy=strategy, until=8)
    assert_same(back, part(back, devices=8, strategy=strategy), *unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_saved_on_8_and_resumed_in_2_processes_and_back(tmp_path, unbroken, saved_on_8, strategy):
    saved_on_8(strategy, tmp_path / "run")
    go_on_in_two_processes(tmp_path / "run", strategy, 16)
    assert_same(tmp_path / "run", part(tmp_path / "run", devices=8, strategy=strategy), *unbroken)


@pytest.mark.slow
def test_a_strategy_may_change_too(tmp_path, unbroken):
    part(tmp_path, devices=8, strategy="pmap", until=8)
    assert_same(tmp_path, part(tmp_path, devices=2, strategy="jit"), *unbroken)
