"""`jaxmnist launch slurm`: the batch script is sound shell and starts one process a node."""

import itertools
import os
import subprocess
import sys

import pytest

from jaxmnist.cli.main import main

AWKWARD = '/shared/it\'s a "run" of $HOME'


@pytest.fixture
def launch(capfd):
    """Runs the command; returns exit code, output and errors."""

    def launch(*flags, workdir=AWKWARD):
        capfd.readouterr()
        flags = [*flags, *([f"--workdir={workdir}"] if workdir else [])]
        return main(["launch", "slurm", *flags]), *capfd.readouterr()

    return launch


OPTIONS = [[], ["--nodes=4", "--time=1-12", "--account=a"], ["--partition=gpu", "--name=x-1"]]
SIZES = [["--gpus_per_node=8", "--cpus_per_task=16"], ["--restarts=0"]]


@pytest.mark.parametrize("flags", [a + b for a, b in itertools.product(OPTIONS, SIZES)])
def test_the_script_passes_shellcheck(launch, check_shell, flags):
    code, script, err = launch(*flags)
    assert (code, err) == (0, "")
    check_shell(script)


def test_it_asks_for_what_the_flags_say(launch):
    _, script, _ = launch("--nodes=2", "--gpus_per_node=4", "--time=4:00:00", "--partition=p")
    asked = [line.removeprefix("#SBATCH ") for line in script.splitlines() if "#SBATCH" in line]
    assert asked == [
        "--job-name=jaxmnist",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--gpus-per-node=4",
        "--time=4:00:00",
        "--partition=p",
        "--output=jaxmnist-%j.log",
        "--open-mode=append",
        "--requeue",
        "--signal=TERM@120",
    ]


def test_a_bucket_is_passed_on(launch, check_shell, monkeypatch):
    monkeypatch.setattr("jaxmnist.bucket.address.has_library", lambda: True)
    code, script, _ = launch(workdir="gs://bucket/a run")
    assert code == 0 and "jaxmnist train '--workdir=gs://bucket/a run' " in script
    check_shell(script)
    # The job runs with this Python, which must be able to use it.
    monkeypatch.setattr("jaxmnist.bucket.address.has_library", lambda: False)
    code, script, err = launch(workdir="gs://bucket/a run")
    assert (code, script) == (2, "") and "pip install 'jaxmnist[gcs]'" in err


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (["--name=a b"], "--name=a b is no name"),
        (["--time=soon"], "--time=soon is no time that Slurm reads: give minutes"),
        (["--partition=a b"], "--partition=a b is no name"),
        (["--nodes=0"], "nodes"),
        (["--config.seed=x"], "seed"),
        (["--profile_steps=0:5"], "--profile_steps=0:5: give the first and the last step"),
        (["now"], "takes no argument 'now'"),
    ],
)
def test_bad_input_gets_one_sentence_and_nothing_is_submitted(launch, stand_in, flags, fault):
    code, out, err = launch(*flags, "--run")
    assert (code, out) == (2, "") and fault in err
    assert len(err.splitlines()) == 1 and stand_in.records("sbatch") == []


def test_a_work_directory_is_needed(launch):
    code, _, err = launch(workdir=None)
    assert code == 2 and "--workdir is missing: give the job a directory on a file system" in err


def test_it_is_submitted(launch, stand_in, monkeypatch):
    monkeypatch.setenv("ANSWER", "123;cluster")
    _, script, _ = launch()
    code, out, _ = launch("--run")
    assert code == 0
    assert "job 123 is queued" in out and "tail -F jaxmnist-123.log" in out
    assert stand_in.records("sbatch") == [[["--parsable"], script]]


def test_where_sbatch_refuses_its_exit_code_is_ours(launch, stand_in, monkeypatch):
    monkeypatch.setenv("CODE", "3")
    code, _, err = launch("--run")
    assert code == 3 and "sbatch ended with exit code 3" in err


def run_script(script, *, code, restarts="0"):
    """Runs a batch script as Slurm does; its exit code."""
    environment = os.environ | {"CODE": code, "SLURM_RESTART_COUNT": restarts}
    environment |= {"SLURM_JOB_ID": "9"}
    command = ["bash", "-c", script]
    stdin = subprocess.DEVNULL
    return subprocess.run(command, env=environment, stdin=stdin, check=False).returncode


def test_one_process_a_node_takes_all_of_its_gpus(launch, stand_in):
    passed_on = ["--profile_steps=2:3", "--noreport", "--config.seed=3"]
    _, script, _ = launch("--nodes=2", "--gpus_per_node=4", *passed_on)
    assert run_script(script, code="0") == 0
    ((arguments, _),) = stand_in.records("srun")
    python = [sys.executable, "-m", "jaxmnist", "train", *passed_on]
    devices = ["--distributed=on", "--local_device_ids=0,1,2,3"]
    place = f"--workdir={AWKWARD}"
    assert arguments == ["--kill-on-bad-exit=1", "--label", *python, place, *devices]
    assert stand_in.records("scontrol") == []


@pytest.mark.parametrize(
    ("code", "restarts", "queued"),
    [("1", "0", True), ("143", "4", True), ("143", "5", False), ("2", "0", False)],
)
def test_what_failed_is_queued_again_but_not_for_ever(launch, stand_in, code, restarts, queued):
    _, script, _ = launch("--nodes=2")
    assert run_script(script, code=code, restarts=restarts) == int(code)
    again = [arguments for arguments, _ in stand_in.records("scontrol")]
    assert again == ([["requeue", "9"]] if queued else [])
