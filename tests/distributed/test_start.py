"""Flags that contradict each other get a sentence at once; a lone machine joins nothing."""

import re
import signal
import subprocess
import sys

import pytest

from distributed.jobs import free_port
from jaxmnist.cli.main import main
from jaxmnist.distributed.start import Start, claimed_port, join
from jaxmnist.errors import JobError, UsageError

ALL = ["--coordinator_address=127.0.0.1:1234", "--num_processes=2", "--process_id=1"]


@pytest.mark.parametrize("command", ["train", "eval"])
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--distributed=off", *ALL], "--distributed=off contradicts --coordinator_address, --num"),
        (
            ["--distributed=off", "--local_device_ids=0"],
            "off contradicts --local_device_ids: leave",
        ),
        (["--distributed=maybe"], "value should be one of <auto|on|off>"),
        (["--distributed=on"], "Open MPI was recognised here: give --coordinator_address, --num_p"),
        (ALL[:1], "give --num_processes, --process_id too, or --distributed=off"),
        (ALL[1:], "give --coordinator_address too, or --distributed=off"),
        (["--local_device_ids=0,1"], "no TPU pod, GKE, Slurm or Open MPI was recognised here"),
        ([*ALL[1:], "--coordinator_address=host"], "host must be HOST:PORT of process 0, such as"),
        ([*ALL[1:], "--coordinator_address=host:65536"], "=host:65536 must be HOST:PORT of proc"),
        ([*ALL[1:], "--coordinator_address=host:0"], "=host:0 must be HOST:PORT of process 0, su"),
        ([*ALL[:2], "--process_id=2"], "--process_id=2 of --num_processes=2 must be one of 0 to 1"),
        ([*ALL[:2], "--process_id=-1"], "--process_id=-1 of --num_processes=2 must be one of 0 to"),
        ([ALL[0], "--num_processes=0", ALL[2]], "--num_processes=0 must be 1 or more"),
        (
            [*ALL, "--local_device_ids=a"],
            "--local_device_ids=a must be numbers from 0, such as 0,1",
        ),
        ([*ALL, "--local_device_ids=0,0"], "--local_device_ids=0,0 names a device twice"),
        (["--initialization_timeout=0"], "initialization_timeout"),
    ],
)
def test_a_sentence_at_once(command, flags, expected, capfd):
    assert main([command, "--workdir=nowhere", *flags]) == 2
    error = capfd.readouterr().err
    assert expected in error and error.startswith("jaxmnist: ") and error.count("\n") == 1


def test_a_lone_machine_joins_nothing():
    assert not join(Start())
    assert not join(Start(mode="off"))
    with pytest.raises(UsageError, match="recognised here"):
        join(Start(mode="on"))


def test_a_lone_task_of_a_cluster_joins_nothing(monkeypatch):
    names = ["JOB_ID", "STEP_NODELIST", "NTASKS", "PROCID", "LOCALID"]
    for name, value in zip(names, ["7", "node1", "1", "0", "0"], strict=True):
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert not join(Start())


def test_of_two_processes_0_that_start_at_the_same_moment_one_is_refused():
    port = free_port()
    expected = f"process 0 cannot listen on port {port}: Address already in use; end the other"
    with (
        claimed_port(f"127.0.0.1:{port}"),  # found free, and JAX does not listen yet
        pytest.raises(JobError, match=re.escape(expected)),
        claimed_port(f"localhost:{port}"),
    ):
        pass
    with claimed_port(f"127.0.0.1:{port}"):
        pass


def test_sigterm_ends_a_process_that_has_joined():
    """JAX would keep the signal for its preemption service."""
    code = (
        "import os, signal\n"
        "from jaxmnist.distributed.start import Start, join\n"
        f"address = '127.0.0.1:{free_port()}'\n"
        "assert join(Start(coordinator_address=address, num_processes=1, process_id=0))\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('lives')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert not done.stdout


def test_process_0_leaves_the_others_time_to_read_why_it_ends():
    """Its own thread that listens for such reasons finds it, too."""
    code = (
        "from jaxmnist.distributed.ending import abandon\n"
        "from jaxmnist.distributed.start import Start, join\n"
        f"address = '127.0.0.1:{free_port()}'\n"
        "assert join(Start(coordinator_address=address, num_processes=1, process_id=0))\n"
        "abandon('the disk is full', 3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert "the disk is full" not in done.stderr
