"""Each part keeps the promises: the same on any number of devices, and resumed exactly."""

import tempfile

import jax
import pytest

import jaxmnist
from jaxmnist.testing import assert_equal_across_devices, assert_resumes_exactly

QUICK = {
    "batch_size": "32",
    "train.steps": "6",
    "checkpoint.every": "2",
    "checkpoint.keep": "9",
    "dataset.name": "mydigits.data:bars",
    "optimizer.name": "sgd",
    "optimizer.learning_rate": "0.05",
}
PARTS = {
    "model and data set": {"model.name": "mydigits.models:WideNet"},
    "loss": {"loss.name": "mydigits.losses:focal", "loss.kwargs.gamma": "1.5"},
    "augmentation": {"augment.custom": "mydigits.augment:mirror"},
    "optimizer": {"optimizer.name": "mydigits.optim:centralized"},
    "schedule": {"schedule.name": "mydigits.optim:square_root"},
    "callback": {"callbacks": "mydigits.callbacks:WorstClass"},
}


def train(folder, settings):
    """The parameters of a short run with some keys set."""
    keys = QUICK | PARTS["model and data set"] | settings
    config = jaxmnist.config.apply_overrides(jaxmnist.get_config(), keys)
    return jaxmnist.train(config, folder, quiet=True).state.params


@pytest.mark.parametrize("part", PARTS)
def test_the_result_is_the_same_on_1_and_4_devices(part):
    def parameters(mesh):
        with tempfile.TemporaryDirectory() as folder:
            return train(f"{folder}/run", PARTS[part] | {"parallel.devices": str(mesh.size)})

    assert_equal_across_devices(parameters, devices=(1, 4))


def run(folder):
    """All parts together; called in processes of its own."""
    settings = {key: value for part in PARTS.values() for key, value in part.items()}
    return jax.device_get(train(f"{folder}/run", settings))


def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    def saved(folder):
        return (folder / "run" / "checkpoints" / "2").exists()

    assert_resumes_exactly(run, workdir=tmp_path / "runs", kill_at=saved)
