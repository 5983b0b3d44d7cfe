"""Bad times of real runs: nothing is lost but the time since the last save, and it is said."""

import re
import signal
import subprocess
import sys
import time

import pytest

from distributed.data import write_data
from distributed.jobs import config, job, started
from jaxmnist.cli.main import main
from jaxmnist.distributed.lock import locked

MANY = 100_000
STANDS_STILL = """
import time, jax
from jaxmnist.runs.recorder import Recorder
stepped = Recorder.stepped
def stand_still(self, state, step):
    stepped(self, state, step)
    if step == {step} and jax.process_index() == {process}:
        time.sleep(100)
Recorder.stepped = stand_still
"""
# Each look at the wall clock finds it an hour earlier, or a day later.
JUMPS = """
import itertools, time
changes = itertools.cycle([-3_600.0, 86_400.0])
wall = itertools.accumulate(changes, initial=1e9)
time.time = lambda: next(wall)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "digits")


@pytest.fixture(scope="module")
def run(data):
    """The command of a run of one process."""
    return lambda workdir, **changes: [
        "train",
        "--noreport",
        f"--workdir={workdir}",
        *config(dataset__dir=data, **changes),
    ]


def limit(kind, soft):
    """A statement that lowers the soft limit of a resource."""
    return f"resource.setrlimit(resource.{kind}, ({soft}, resource.getrlimit(resource.{kind})[1]))"


def assert_a_sentence(process, *parts, traces=False):
    """`traces`: threads of libraries may add theirs, which nobody can catch."""
    lines = [line for line in process.text.splitlines() if line.startswith("jaxmnist: ")]
    assert lines and all(re.search(part, lines[-1]) for part in parts), process.text
    assert traces or "Traceback" not in process.text, process.text


class TestWorkDirectory:
    def test_of_another_run_is_refused_and_left_alone(self, tmp_path, run, capfd):
        with locked(tmp_path / "run"):
            assert main(run(tmp_path / "run")) == 1
        expected = (
            r"work directory \S+ is in use by process \d+ on \S+ since \S+: wait for that run"
        )
        assert re.search(expected, capfd.readouterr().err)
        assert not (tmp_path / "run/config.json").exists()

    @pytest.mark.slow
    def test_two_runs_at_once_and_a_lock_left_by_a_kill(self, tmp_path, run):
        workdir = tmp_path / "run"
        with started(tmp_path, run(workdir, train__steps=MANY)) as (first,):
            first.wait_for("step     20/")
            with started(tmp_path, run(workdir, train__steps=MANY)) as (second,):
                assert second.ends(60) == 1
            assert_a_sentence(second, f"in use by process {first.popen.pid} on ")
            first.wait_for("step     40/")
            first.popen.kill()
            first.ends(5)
        with started(tmp_path, run(workdir, train__steps=MANY)) as (third,):
            third.wait_for("resumed at step")

    @pytest.mark.slow
    def test_below_a_file(self, tmp_path, run):
        (tmp_path / "file").touch()
        commands = job(tmp_path / "file/run")
        with started(tmp_path, run(tmp_path / "file/run"), *commands) as processes:
            assert [process.ends(60) for process in processes] == [1, 1, 1]
        for process in processes:
            assert_a_sentence(
                process, "file/run cannot be written: Not a directory; choose another"
            )


class TestResources:
    @pytest.mark.slow
    def test_a_disk_that_is_full_while_saving(self, tmp_path, run):
        workdir = tmp_path / "run"
        with started(tmp_path, run(workdir, train__steps=20)) as (process,):
            process.result(workdir)
        largest = max(p.stat().st_size for p in (workdir / "checkpoints").rglob("*") if p.is_file())
        command = [*run(workdir, train__steps=60), "--allow_config_change"]
        before = limit("RLIMIT_FSIZE", largest // 2)
        with started(tmp_path, command, before=before, JAX_COMPILATION_CACHE_DIR="") as (process,):
            assert process.ends(90) == 1
        assert_a_sentence(process, "free space", "then run the same command again", traces=True)
        with started(tmp_path, command) as (process,):
            process.result(workdir)
        assert "resumed at step 20 of 60" in process.text

    @pytest.mark.slow
    def test_no_file_handles_left(self, tmp_path, run):
        workdir = tmp_path / "run"
        with started(tmp_path, run(workdir, train__steps=20)) as (process,):
            process.result(workdir)
        command = [*run(workdir, train__steps=60), "--allow_config_change"]
        with started(tmp_path, command, before=limit("RLIMIT_NOFILE", 14)) as (process,):
            assert process.ends(90) == 1
        assert_a_sentence(process, "ulimit -n", traces=True)
        with started(tmp_path, command) as (process,):
            process.result(workdir)
        assert "resumed at step 20 of 60" in process.text


class TestStandstill:
    @pytest.mark.slow
    def test_the_watchdog_shows_the_stacks_and_the_job_resumes(self, tmp_path):
        changes = {"train.steps": MANY, "watchdog.timeout": 3}
        with started(tmp_path, *job(tmp_path / "run", **changes)) as (first, second):
            first.wait_for("step     30/")
            second.popen.send_signal(signal.SIGSTOP)
            begun = time.monotonic()
            assert first.ends(8) == 1
            assert time.monotonic() - begun > 2
        assert_a_sentence(
            first,
            "no step and no batch of evaluation was finished for 3 s",
            "The last step that was begun is [\\d,]+ of 100,000, its batch: examples [\\d,]+ to",
            "watchdog.timeout is the limit; the stacks of all threads follow",
        )
        assert "runs/train.py" in first.text and "in _loop" in first.text

    @pytest.mark.slow
    def test_every_process_shows_its_stacks(self, tmp_path, data):
        changes = {"train.steps": MANY, "watchdog.timeout": 3, "dataset.dir": data}
        # The second one stands still of itself, the first one because it waits for it.
        before = STANDS_STILL.format(step=30, process=1)
        with started(tmp_path, *job(tmp_path / "run", **changes), before=before) as processes:
            assert [process.ends(60) for process in processes] == [1, 1]
        for process in processes:
            assert_a_sentence(
                process,
                r"no step and no batch of evaluation was finished for 3 s",
                r"The last step that was begun is 3\d of 100,000, its batch: examples \d+ to",
            )
            assert "runs/train.py" in process.text and "in _loop" in process.text
        assert "in stand_still" in processes[1].text and "in stand_still" not in processes[0].text

    @pytest.mark.slow
    def test_clocks_that_jump_leave_durations_and_limits_alone(self, tmp_path, data):
        changes = {"watchdog.timeout": 60, "dataset.dir": data}
        with started(tmp_path, *job(tmp_path / "run", **changes), before=JUMPS) as (first, second):
            found = first.result(tmp_path / "run")["train"]
            assert second.ends(10) == 0
        seconds = [value for name, value in found.items() if name.endswith("seconds")]
        assert len(seconds) > 4 and all(0 <= value < 90 for value in seconds)
        assert "-" not in "".join(re.findall(r"(\S+) images/s", first.text))


def test_a_lone_run_imports_nothing_that_joins_processes():
    code = "import sys, jaxmnist.cli.main; print([n for n in sys.modules if n == 'jax'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n"
