"""`jaxmnist launch local`: real processes that train as one does, and end together."""

import os
import shlex
import signal
import socket
import time
from pathlib import Path

import pytest

from distributed.data import write_data
from distributed.jobs import config, started
from jaxmnist.cli.main import main
from jaxmnist.errors import ConfigError, UsageError
from jaxmnist.launch.local import (
    refuse_tpu,
    reserved_port,
    share_cpu_devices,
    share_gpus,
    usable_gpus,
)
from jaxmnist.runs.evaluate import load_run
from support import worst_leaf

# Plain SGD, whose steps show the size of a gradient, where Adam hides it.
SGD = {"optimizer.name": "sgd", "optimizer.learning_rate": 0.05}
LONG = {"train.steps": 300, "checkpoint.every": 20, "eval.every": 150} | SGD


def launch(workdir, **changes):
    return ["launch", "local", "--processes=2", *config(**changes), f"--workdir={workdir}"]


def params_of(workdir):
    return load_run(workdir)[1].params


def children(process):
    """The numbers of the processes of a job, in the order in which they were started."""
    pid = process.popen.pid
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pid):
    return not Path(f"/proc/{pid}").exists()


class TestDevices:
    @pytest.mark.parametrize(
        ("asked", "batch_size", "processes", "cores", "each"),
        [
            (8, 64, 2, 1, 4),
            (2, 64, 2, 1, 1),
            (None, 256, 2, 2, 1),
            (None, 256, 2, 16, 8),
            (None, 36, 2, 64, 2),
            (None, 30, 3, 1, 1),
        ],
    )
    def test_cpu_devices_are_shared_out(self, asked, batch_size, processes, cores, each):
        share = share_cpu_devices(asked, batch_size=batch_size, processes=processes, cores=cores)
        assert share == each
        assert batch_size % (share * processes) == 0

    def test_what_cannot_be_shared_is_refused_with_the_nearest_that_can(self):
        shares = {"processes": 3, "cores": 8}
        with pytest.raises(ConfigError, match=r"batch_size=256 cannot .* by 3 .* are 255 or 258"):
            share_cpu_devices(None, batch_size=256, **shares)
        with pytest.raises(ConfigError, match=r"cpu_devices=8 cannot .* choose one of 6 or 9"):
            share_cpu_devices(8, batch_size=48, **shares)

    def test_gpus_are_shared_out(self):
        flags = [["--local_device_ids=0,1"], ["--local_device_ids=2,3"]]
        assert share_gpus(4, processes=2) == flags
        with pytest.raises(UsageError, match=r"the 3 GPU\(s\) .* --processes=2: choose another"):
            share_gpus(3, processes=2)

    def test_gpus_that_jax_will_not_use_do_not_count(self, monkeypatch):
        assert usable_gpus({"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "0,1"}) == 0
        monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
        assert usable_gpus({"CUDA_VISIBLE_DEVICES": "2,3,5"}) == 3
        assert usable_gpus({"CUDA_VISIBLE_DEVICES": ""}) == 0

    def test_a_tpu_is_not_shared_out(self, monkeypatch, tmp_path):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
        refuse_tpu({}, devices=tmp_path)
        (tmp_path / "accel0").touch()
        refuse_tpu({"JAX_PLATFORMS": "cpu"}, devices=tmp_path)
        with pytest.raises(UsageError, match="one process drives all TPU chips of a machine"):
            refuse_tpu({}, devices=tmp_path)


def test_a_reserved_port_is_not_given_to_others_and_process_0_can_have_it():
    with reserved_port() as port:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        socket.create_server(("", port)).close()


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (["--processes=0"], "processes"),
        (["--processes=3", "--config.batch_size=256"], "batch_size=256 cannot be shared"),
        (["--workdir=s3://bucket/run"], "--workdir=s3://bucket/run is not a place that"),
        (["--config.batch=3"], "there is no key 'batch'"),
        (["--profile_steps=6:5"], "--profile_steps=6:5: give the first and the last step, such as"),
        (["--process_id=1"], "Unknown command line flag 'process_id'"),
    ],
)
def test_bad_input_gets_a_sentence_and_starts_nothing(capfd, tmp_path, flags, fault):
    assert main(["launch", "local", f"--workdir={tmp_path / 'run'}", *flags]) == 2
    out, err = capfd.readouterr()
    assert fault in err and "Traceback" not in err and out == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path):
    data = {"dataset.dir": write_data(tmp_path / "data"), **SGD}
    one = ["train", *config(**data), f"--workdir={tmp_path / 'one'}"]
    two = [*launch(tmp_path / "two", **data), "--noreport", "--profile_steps=2:3"]
    with started(tmp_path, two, one) as (job, alone):
        expected, found = alone.result(tmp_path / "one"), job.result(tmp_path / "two")
    assert found["test"]["accuracy"] == expected["test"]["accuracy"]
    assert worst_leaf(params_of(tmp_path / "two"), params_of(tmp_path / "one")) < 1e-6
    assert found["devices"]["processes"] == 2
    # What is no key of the configuration reaches both, too.
    traced = [list((tmp_path / "two" / n).rglob("*.xplane.pb")) for n in ("profile", "profile-1")]
    assert [len(files) for files in traced] == [1, 1]
    written = [(tmp_path / name / "report.html").exists() for name in ("one", "two")]
    assert written == [True, False]
    # Each line says whose it is; the metrics come once.
    lines = job.text.splitlines()
    assert lines[0].startswith("2 processes, each with")
    assert all(line.startswith(("[0] ", "[1] ")) for line in lines[1:])
    assert len([line for line in lines if " 40/40 " in line and " train " in line]) == 1


@pytest.mark.slow
def test_a_killed_process_ends_the_job_with_its_reason_and_the_same_command_resumes(tmp_path):
    workdir = tmp_path / "it's here"
    data = {"dataset.dir": write_data(tmp_path / "data")}
    command = launch(workdir, **LONG, **data)
    with started(tmp_path, command) as (job,):
        job.wait_for(" 100/300 ")
        both = children(job)
        assert len(both) == 2
        os.kill(both[1], signal.SIGKILL)
        begin = time.monotonic()
        assert job.ends(15) == 128 + signal.SIGKILL, job.text
        assert time.monotonic() - begin < 15
        assert gone(both[0])
    last = job.text.partition("jaxmnist: process 1 of 2 was killed by SIGKILL")[2]
    assert "process 0 then" in last and "Traceback" not in job.text
    again = shlex.split(last.partition("To go on:\n")[2])
    assert again == ["jaxmnist", *command]
    # As many devices as the job: 300 steps round differently on one.
    devices = {"parallel.cpu_devices": 2}
    one = ["train", *config(**LONG, **data, **devices), f"--workdir={tmp_path / 'one'}"]
    with started(tmp_path, again[1:], one) as (job, alone):
        found, expected = job.result(workdir), alone.result(tmp_path / "one")
    assert "[0] resumed at step " in job.text
    # Those who read the run here have devices of their own.
    written = tmp_path / "one" / "config.json"
    written.write_text(written.read_text().replace('"cpu_devices": 2', '"cpu_devices": null'))
    written = workdir / "config.json"
    written.write_text(written.read_text().replace('"cpu_devices": 1', '"cpu_devices": null'))
    assert found["test"]["accuracy"] == expected["test"]["accuracy"]
    assert worst_leaf(params_of(workdir), params_of(tmp_path / "one")) < 1e-6


@pytest.mark.slow
def test_a_signal_is_passed_on_and_the_job_saves(tmp_path):
    command = launch(tmp_path / "run", **LONG, **{"dataset.dir": write_data(tmp_path / "data")})
    with started(tmp_path, command) as (job,):
        job.wait_for(" 10/300 ")
        job.popen.send_signal(signal.SIGTERM)
        assert job.ends(30) == 143, job.text
    assert "of 300, and saved" in job.text
    assert "jaxmnist: the job was stopped by SIGTERM. To go on:\n  jaxmnist launch" in job.text
    steps = [int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir()]
    assert f"stopped at step {max(steps)} of 300, and saved" in job.text
