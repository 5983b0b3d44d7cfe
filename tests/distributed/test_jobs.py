"""Jobs of several real processes: they start or say why not, stop together, and resume."""

import json
import re
import signal
import time

import pytest

from distributed.data import write_data
from distributed.jobs import job, started
from jaxmnist.runs.evaluate import load_run
from support import worst_leaf

# JAX takes a process for dead after so many seconds without a sign of life; a little is added.
HEARTBEAT_LIMIT_S = 20.0
MANY = 100_000


class TestStart:
    def test_a_difference_between_processes_is_named_on_all_of_them(self, tmp_path):
        commands = job(tmp_path / "run", per_process={1: {"seed": 7, "batch_size": 64}})
        with started(tmp_path, *commands) as (first, second):
            assert first.ends(60) == second.ends(60) == 1
        for process in (first, second):
            assert re.search(
                r"jaxmnist: process 1 on \S+ differs: seed is 7 there and 0 on process 0, "
                r"batch_size is 64 there and 32 on process 0; start all processes with the same",
                process.text,
            ), process.text
            assert "Traceback" not in process.text
        assert not (tmp_path / "run").exists()

    @pytest.mark.slow
    def test_other_versions_on_one_process(self, tmp_path):
        first, second = job(tmp_path / "run")
        before = "import importlib.metadata as m; m.version = lambda name: '0.0.1'"
        with (
            started(tmp_path / "a", first) as (one,),
            started(tmp_path / "b", second, before=before) as (other,),
        ):
            assert one.ends(60) == other.ends(60) == 1
        for process in (one, other):
            assert re.search(
                r"process 1 on \S+ differs: the version of jaxmnist is 0\.0\.1 there and \S+ on "
                r"process 0, the version of jax is 0\.0\.1 there .*; start all processes with the",
                process.text,
            ), process.text
        assert not (tmp_path / "run").exists()

    def test_when_the_others_do_not_come_it_ends_at_the_time_limit(self, tmp_path):
        alone, lost = (job(tmp_path / "run", "--initialization_timeout=2")[i] for i in (0, 1))
        with started(tmp_path, alone, lost) as (first, second):
            assert first.ends(40) == second.ends(40) == 1
        expected = "process 0 of 2 waited 2 s (--initialization_timeout), and not all of the others"
        assert expected in first.text
        assert "start the same command on every host, each with a --process_id of its" in first.text
        assert "process 1 of 2 waited 2 s" in second.text
        assert "nothing answers at 127.0.0.1:" in second.text
        assert "start process 0 there, correct --coordinator_address, or open" in second.text

    @pytest.mark.slow
    def test_two_processes_with_one_id(self, tmp_path):
        commands = job(tmp_path / "run", "--initialization_timeout=20", processes=3)
        with started(tmp_path, commands[0], commands[1], commands[1]) as processes:
            assert [process.ends(60) for process in processes] == [1, 1, 1]
        text = "\n".join(process.text for process in processes)
        assert "process 1 of 3 cannot join the job" in text
        assert "most likely another one has --process_id=1 too" in text

    @pytest.mark.slow
    def test_two_processes_0_on_one_host(self, tmp_path):
        commands = job(tmp_path / "run", "--initialization_timeout=20")
        with started(tmp_path, commands[0], commands[0]) as (first, second):
            while first.popen.poll() is None and second.popen.poll() is None:
                time.sleep(0.1)
            refused = first if first.popen.poll() is not None else second
            assert refused.ends(10) == 1
        assert "process 0 cannot listen on port" in refused.text
        assert "end the other process 0 or program that has it" in refused.text

    @pytest.mark.slow
    def test_a_work_directory_that_is_not_shared(self, tmp_path):
        commands = job("run")
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
        with (
            started(tmp_path / "a", commands[0], cwd=tmp_path / "a") as (first,),
            started(tmp_path / "b", commands[1], cwd=tmp_path / "b") as (second,),
        ):
            assert first.ends(90) == second.ends(90) == 1
        for process in (first, second):
            assert re.search(
                r"process 1 on \S+ does not see what process 0 wrote to work directory run: give a "
                "--workdir on a file system that all hosts share",
                process.text,
            ), process.text

    @pytest.mark.slow
    def test_other_data_on_one_process(self, tmp_path):
        places = {i: {"dataset.dir": write_data(tmp_path / str(i), seed=i)} for i in (0, 1)}
        with started(tmp_path, *job(tmp_path / "run", per_process=places)) as (first, second):
            assert first.ends(60) == second.ends(60) == 1
        for process in (first, second):
            assert "differs: the SHA-256 of" in process.text
            assert "give all processes the same files" in process.text
            assert "train-images-idx3-ubyte" in process.text

    @pytest.mark.slow
    def test_a_batch_that_the_devices_cannot_share(self, tmp_path):
        with started(tmp_path, *job(tmp_path / "run", batch_size=33)) as (first, second):
            assert first.ends(60) == second.ends(60) == 2
        for process in (first, second):
            assert "the nearest valid values are 32 or 34" in process.text

    @pytest.mark.slow
    def test_an_error_of_one_process_is_told_by_the_others(self, tmp_path):
        missing = {1: {"dataset.dir": tmp_path / "nothing"}}
        with started(tmp_path, *job(tmp_path / "run", per_process=missing)) as (first, second):
            begun = time.monotonic()
            assert second.ends(60) == 1 and first.ends(30) == 1
            assert time.monotonic() - begun < 60
        assert re.search(r"process 1 on \S+ has ended: .*nothing", first.text), first.text


class TestPreemption:
    def test_sigterm_on_one_process_stops_all_at_one_step(self, tmp_path):
        data = write_data(tmp_path / "data")
        commands = job(tmp_path / "run", train__steps=MANY, dataset__dir=data)
        with started(tmp_path, *commands) as (first, second):
            first.wait_for("step     20/")
            second.popen.send_signal(signal.SIGTERM)
            assert first.ends(30) == second.ends(30) == 143
        steps = {re.search(r"stopped at step ([\d,]+) of", p.text)[1] for p in (first, second)}
        assert len(steps) == 1
        assert (tmp_path / "run/checkpoints" / steps.pop().replace(",", "")).is_dir()

    @pytest.mark.slow
    def test_in_the_middle_of_an_evaluation(self, tmp_path):
        changes = {"eval.every": 20, "eval.batch_size": 2, "log.every": 20}
        commands = job(tmp_path / "run", **changes)
        with started(tmp_path, *commands) as (first, second):
            first.wait_for("step     20/40")
            first.popen.send_signal(signal.SIGTERM)
            assert first.ends(30) == second.ends(30) == 143
        assert "stopped at step 20 of 40, and saved" in first.text
        assert "test   " not in first.text
        changes["eval.batch_size"] = 1000
        with started(tmp_path, *job(tmp_path / "run", **changes)) as (first, second):
            first.result(tmp_path / "run")
        assert "resumed at step 20 of 40" in first.text

    @pytest.mark.slow
    def test_ctrl_c_on_one_process(self, tmp_path):
        with started(tmp_path, *job(tmp_path / "run", train__steps=MANY)) as (first, second):
            first.wait_for("step     20/")
            first.popen.send_signal(signal.SIGINT)
            assert (first.ends(30), second.ends(30)) == (130, 143)

    @pytest.mark.slow
    def test_a_second_signal_ends_it_at_once(self, tmp_path):
        with started(tmp_path, *job(tmp_path / "run", train__steps=MANY)) as (first, second):
            first.wait_for("step     20/")
            second.popen.send_signal(signal.SIGSTOP)  # so that the first stop cannot be agreed on
            first.popen.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert first.popen.poll() is None
            first.popen.send_signal(signal.SIGTERM)
            assert first.ends(2) == 143
            second.popen.send_signal(signal.SIGCONT)
            assert second.ends(HEARTBEAT_LIMIT_S) == 1


class TestLostProcess:
    @pytest.mark.slow
    @pytest.mark.parametrize("victim", [0, 1])
    def test_a_killed_process_takes_the_other_down_and_the_job_resumes(self, tmp_path, victim):
        with started(tmp_path, *job(tmp_path / "run", train__steps=MANY)) as processes:
            processes[0].wait_for("step     30/")
            processes[victim].popen.kill()
            other = processes[1 - victim]
            assert other.ends(HEARTBEAT_LIMIT_S) == 1
        assert re.search(
            "the connection to another process broke|the job has lost a process", other.text
        ), other.text
        assert "start all processes again: the run goes on from its last checkpoint" in other.text
        commands = job(tmp_path / "run", "--allow_config_change", train__steps=60)
        with started(tmp_path, *commands) as (first, second):
            second.ends(90)
            first.result(tmp_path / "run")
        assert re.search(r"resumed at step \d+ of 60", first.text)

    @pytest.mark.slow
    def test_a_stopped_process_is_given_up(self, tmp_path):
        with started(tmp_path, *job(tmp_path / "run", train__steps=MANY)) as (first, second):
            first.wait_for("step     30/")
            second.popen.send_signal(signal.SIGSTOP)
            assert first.ends(HEARTBEAT_LIMIT_S) == 1
            second.popen.send_signal(signal.SIGCONT)
            assert second.ends(HEARTBEAT_LIMIT_S) == 1
        assert "stopped sending heartbeats" in first.text
        assert "the job has lost a process" in first.text

    @pytest.mark.slow
    @pytest.mark.parametrize("asked", [0, 1])
    def test_a_process_lost_while_they_agree_to_stop(self, tmp_path, asked):
        with started(tmp_path, *job(tmp_path / "run", train__steps=MANY)) as processes:
            processes[0].wait_for("step     30/")
            processes[asked].popen.send_signal(signal.SIGTERM)
            processes[1 - asked].popen.send_signal(signal.SIGSTOP)
            if asked:
                # Heartbeats are counted by process 0, so that it must be gone.
                time.sleep(3)
                processes[0].popen.kill()
            assert processes[asked].ends(HEARTBEAT_LIMIT_S) == 1
        assert "the job has lost a process" in processes[asked].text


@pytest.mark.slow
def test_the_parameters_are_those_of_one_process(tmp_path):
    with started(tmp_path, *job(tmp_path / "two")) as (first, _):
        two = first.result(tmp_path / "two")
    with started(tmp_path, job(tmp_path / "one", processes=1)[0]) as (alone,):
        one = alone.result(tmp_path / "one")
    assert two["test"]["confusion"] == one["test"]["confusion"]
    address = job("", "")[0][2:4]
    commands = [
        ["eval", f"--workdir={tmp_path / 'two'}", "--json", *address, f"--process_id={index}"]
        for index in (0, 1)
    ]
    with started(tmp_path, *commands) as (first, second):
        assert first.ends(60) == second.ends(60) == 0, first.text + second.text
    (line,) = (line for line in first.text.splitlines() if line.startswith("{"))
    assert json.loads(line) == two["test"]
    assert "accuracy" not in second.text
    states = [load_run(tmp_path / name)[1] for name in ("two", "one")]
    assert worst_leaf(states[0].params, states[1].params) < 1e-6
