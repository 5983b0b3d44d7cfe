"""Promise 1, bit for bit: with parallel.deterministic the number of devices changes nothing."""

import json
import os
import subprocess
import sys

import pytest

import jaxmnist
from jaxmnist.errors import ConfigError, ModelError
from proofs.runs import learned, trained
from proofs.test_equivalence import first_gradient
from support import Tiny, bits_equal, small_batch, small_config, small_data


@pytest.mark.parametrize(
    "variant", ["dropout and shift", pytest.param("batch norm", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "devices", [8, pytest.param(2, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_a_run_has_the_same_bits(variant, devices):
    # 256 rows: with 64 the shards are too small to show that XLA compiles batches differently.
    one = trained(variant, devices=1, deterministic=True, batch_size=256)
    many = trained(variant, devices=devices, deterministic=True, batch_size=256)
    assert many.params_sha256 == one.params_sha256
    assert bits_equal(learned(many), learned(one))


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_one_step_with_everything_on_has_the_same_bits(accumulate):
    def gradient(devices):
        return first_gradient(
            "shard_map",
            devices,
            batch=small_batch(256),
            model=Tiny(dropout=0.5, groups=8),
            shift=2,
            accumulate=accumulate,
            unroll=True,
            deterministic_bits=True,
        )

    reference = gradient(1)
    for devices in (2, 4, 8):
        assert bits_equal(gradient(devices), reference), devices


def test_it_agrees_with_the_plain_step():
    plain = trained("plain")
    exact = trained("plain", devices=2, deterministic=True)
    for one, other in zip(plain.history, exact.history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


def test_a_batch_that_eight_shards_cannot_share_is_refused(tmp_path):
    config = small_config(batch_size=36, parallel__deterministic=True)
    with pytest.raises(ConfigError, match=r"batch_size=36 .*multiple of 8 .*shards.*32 or 40"):
        jaxmnist.train(config, tmp_path / "run", dataset=small_data(), model=Tiny(), quiet=True)


def test_devices_that_cannot_share_eight_shards_are_refused(tmp_path):
    config = small_config(batch_size=48, parallel__deterministic=True, parallel__devices=3)
    with pytest.raises(ConfigError, match=r"8 virtual shards, which 3 devices.*\[1, 2, 4, 8\]"):
        jaxmnist.train(config, tmp_path / "run", dataset=small_data(), model=Tiny(), quiet=True)


def test_batch_norm_over_the_whole_batch_is_refused(tmp_path):
    config = small_config(parallel__deterministic=True)
    with pytest.raises(ModelError, match=r"needs communication inside the model.*groups=8"):
        jaxmnist.train(
            config, tmp_path / "run", dataset=small_data(), model=Tiny(groups=1), quiet=True
        )


# Sets the affinity in the new process itself: one core, whatever the machine has.
ON_ONE_CORE = (
    "import os, runpy; os.sched_setaffinity(0, {0}); "
    "runpy.run_module('jaxmnist', run_name='__main__', alter_sys=True)"
)
MACHINES = {
    "1 device": ["--config.parallel.cpu_devices=1"],
    "2 devices": ["--config.parallel.cpu_devices=2"],
    "4 devices": ["--config.parallel.cpu_devices=4"],
    "8 devices": ["--config.parallel.cpu_devices=8"],
    "1 device on one core": ["--config.parallel.cpu_devices=1"],
    "8 devices on one core": ["--config.parallel.cpu_devices=8"],
}


@pytest.mark.slow
@pytest.mark.parametrize("conv", ["winograd", "xla"])
def test_the_command_line_trains_the_cnn_to_the_same_bits(conv, tmp_path):
    told = ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES", "NPROC")
    environment = {name: value for name, value in os.environ.items() if name not in told}
    digests = {}
    for number, (machine, devices) in enumerate(MACHINES.items()):
        if conv == "winograd" and machine in ("2 devices", "4 devices"):
            continue  # shown with the other, which compiles in less time
        if conv == "xla" and machine == "8 devices on one core":
            continue  # as well
        start = ["-c", ON_ONE_CORE] if machine.endswith("core") else ["-m", "jaxmnist"]
        command = [sys.executable, *start, "train", "--config.parallel.deterministic", *devices]
        command += [
            "--config.batch_size=256",
            "--config.train.steps=3",
            f"--config.model.conv={conv}",
        ]
        command += ["--config.model.kwargs.dropout=0.5", "--config.augment.shift=2", "--quiet"]
        command.append("--noreport")
        subprocess.run(
            [*command, f"--workdir={tmp_path / str(number)}"], env=environment, check=True
        )
        result = json.loads((tmp_path / str(number) / "result.json").read_text())
        digests[machine] = result["params"]["sha256"]
    assert len(set(digests.values())) == 1, digests
