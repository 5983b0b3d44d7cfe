"""Promise 1 on the shipped debug configuration: the full CNN on real MNIST, every loss the same."""

import functools

import pytest

import jaxmnist
from jaxmnist.config import apply_overrides, get_config
from proofs.runs import STRATEGIES

pytestmark = pytest.mark.slow


@functools.cache
def losses(strategy, devices, folder):
    config = apply_overrides(
        get_config("debug"),
        {
            "parallel.strategy": strategy,
            "parallel.devices": str(devices),
            "checkpoint.every": "1000",
            "eval.every": "1000",
        },
    )
    history = jaxmnist.train(config, folder / f"{strategy}{devices}", quiet=True).history
    return [r["loss"] for r in history if r["split"] == "train"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("debug")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_every_step_has_the_same_loss(strategy, devices, folder, record_property):
    reference = losses("shard_map", 1, folder)
    found = losses(strategy, devices, folder)
    worst = max(abs(a - b) / abs(b) for a, b in zip(found, reference, strict=True))
    record_property("worst", worst)
    assert len(found) == 60
    assert worst < 1e-5


def test_the_loss_at_least_halves(folder):
    found = losses("shard_map", 8, folder)
    assert sum(found[-10:]) / 10 < found[0] / 2
