"""The first signal stops a run that can be resumed, with its exit code; the second ends it."""

import contextlib
import json
import os
import re
import shlex
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from jaxmnist.signals import StopRequest, stop_requests
from jaxmnist.testing.processes import device_environment
from support import small_data

STEPS = 60


@pytest.fixture
def interruptible():
    """A job in the background starts with SIGINT ignored; here it interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class TestStopRequests:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_the_first_signal_is_noted_and_nothing_else_happens(self, number):
        with stop_requests() as stop:
            assert not stop and stop.signal_number is None
            signal.raise_signal(number)
            assert stop and stop.signal_number == number

    def test_afterwards_signals_are_handled_as_before(self, interruptible):
        before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
        threads = threading.active_count()
        with stop_requests():
            assert signal.getsignal(signal.SIGTERM) is not before[1]
            assert threading.active_count() == threads + 1
        assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
        assert threading.active_count() == threads
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    def test_a_handler_in_c_is_put_back(self):
        code = (
            "import ctypes, signal\n"
            "from jaxmnist.signals import stop_requests\n"
            "library = ctypes.CDLL(None)\n"
            "library.signal(signal.SIGTERM, library.getpid)\n"
            "with stop_requests() as stop:\n"
            "    signal.raise_signal(signal.SIGTERM)\n"
            "    assert stop\n"
            "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
            "signal.raise_signal(signal.SIGTERM)\n"
            "print('lives')\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout == "lives\n", done.stderr

    def test_an_error_within_passes_and_gives_the_signals_back(self):
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(ZeroDivisionError), stop_requests():
            print(1 / 0)
        assert signal.getsignal(signal.SIGTERM) is before

    def test_in_another_thread_signals_are_left_alone(self):
        seen = []

        def work():
            with stop_requests() as stop:
                seen.append((signal.getsignal(signal.SIGINT), bool(stop)))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert seen == [(signal.getsignal(signal.SIGINT), False)]

    def test_a_request_without_a_signal_is_false(self):
        assert not StopRequest()
        assert StopRequest(signal.SIGINT)

    @pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
    def test_a_second_signal_ends_the_process_while_the_main_thread_is_in_native_code(self, second):
        # A wait that returns only at its end, as a compilation does; a handler would run after it.
        program = (
            "import ctypes, sys\n"
            "from jaxmnist.signals import stop_requests\n"
            "with stop_requests():\n"
            "    print('ready', flush=True)\n"
            "    while True: ctypes.CDLL(None).pthread_join(ctypes.c_ulong(THREAD), None)\n"
        )
        program = program.replace(
            "import ctypes, sys\n",
            "import ctypes, sys, threading, time\n"
            "thread = threading.Thread(target=time.sleep, args=(60,), daemon=True)\n"
            "thread.start()\n"
            "THREAD = thread.ident\n",
        )
        with subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout.readline() == "ready\n"
                process.send_signal(signal.SIGTERM)
                time.sleep(0.1)
                assert process.poll() is None
                process.send_signal(second)
                assert process.wait(5) == 128 + second
            finally:
                process.kill()


@pytest.fixture(scope="module")
def idx_files(tmp_path_factory):
    """The small data as IDX files, with enough test images to be in the middle of for a while."""
    folder, data = tmp_path_factory.mktemp("rows"), small_data(test=1009)
    for name, array in {
        "train-images-idx3-ubyte": data.train.images[..., 0],
        "train-labels-idx1-ubyte": data.train.labels.astype(np.uint8),
        "t10k-images-idx3-ubyte": data.test.images[..., 0],
        "t10k-labels-idx1-ubyte": data.test.labels.astype(np.uint8),
    }.items():
        header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        (folder / name).write_bytes(header + array.tobytes())
    return folder


@pytest.fixture(scope="module")
def command(idx_files):
    """The command line of a run in a work directory."""
    settings = {
        "dataset.dir": idx_files,
        "batch_size": 32,
        "train.steps": STEPS,
        "model.conv": "xla",
        "log.every": 10,
        "eval.every": 40,
        "eval.batch_size": 2,  # an evaluation takes long, so that a signal can come in its middle
        "checkpoint.every": 1000,
    }
    config = [f"--config.{name}={value}" for name, value in settings.items()]
    return [sys.executable, "-m", "jaxmnist", "train", "--noreport", *config]


@contextlib.contextmanager
def started(command, workdir):
    """The command as a process on 2 CPU devices; it is gone at the end of the block."""
    with subprocess.Popen(
        [*command, f"--workdir={workdir}"],
        env=os.environ | device_environment(2, {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process, pattern):
    """Reads lines up to one that matches."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(pattern, line):
            return "".join(lines)
    raise AssertionError(f"{pattern!r} was never printed:\n{''.join(lines)}")


def stop_at(command, workdir, pattern, number):
    """Sends a signal when a line matches; returns what was printed and the exit code."""
    with started(command, workdir) as process:
        output = read_until(process, pattern)
        process.send_signal(number)
        return output + process.communicate(timeout=60)[0], process.returncode


def finish(command, workdir):
    with started(command, workdir) as process:
        output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    return output, json.loads((workdir / "result.json").read_text())


def evaluated_steps(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [r["step"] for r in map(json.loads, lines) if r["split"] == "test"]


def stopped_step(output):
    """The step that the message names, which must also say how to go on."""
    message = re.search(r"stopped at step (\d+) of 60, and saved\. To go on:\n  (.+)\n", output)
    assert message, output
    assert shlex.split(message[2])[:2] == ["jaxmnist", "train"]
    assert "Traceback" not in output
    return int(message[1])


class TestCommandLine:
    def test_stopped_and_resumed_it_ends_as_if_never_stopped(self, command, tmp_path):
        workdir = tmp_path / "stopped"
        with started(command, tmp_path / "unbroken") as unbroken:
            # While it compiles: the panel is there and the first step is not.
            output, code = stop_at(command, workdir, "^to resume:", signal.SIGTERM)
            assert code == 143 and stopped_step(output) == 1
            # While it evaluates: the line of that step's training is there.
            output, code = stop_at(command, workdir, "^step +40/60 .* train ", signal.SIGINT)
            assert code == 130 and stopped_step(output) == 40
            assert evaluated_steps(workdir) == []
            assert f"--workdir={workdir}" in output
            assert unbroken.wait(60) == 0
        output, result = finish(command, workdir)
        expected = json.loads((tmp_path / "unbroken" / "result.json").read_text())
        assert "resumed at step 40 of 60" in output
        assert evaluated_steps(workdir) == [40, 60]
        assert result["params"] == expected["params"]
        assert result["test"] == expected["test"]

    @pytest.mark.slow
    def test_a_stop_between_steps_and_in_the_last_evaluation(self, command, tmp_path):
        workdir = tmp_path / "stopped"
        _, expected = finish(command, tmp_path / "unbroken")
        output, code = stop_at(command, workdir, "^step +20/60 .* train ", signal.SIGINT)
        assert code == 130 and 20 <= stopped_step(output) <= 40
        output, code = stop_at(command, workdir, "^step +60/60 .* train ", signal.SIGTERM)
        assert code == 143 and stopped_step(output) == 60
        assert evaluated_steps(workdir) == [40] and not (workdir / "result.json").exists()
        # Stopped once more in the evaluation that is made up for.
        output, code = stop_at(command, workdir, "^resumed at step 60", signal.SIGTERM)
        assert code == 143 and stopped_step(output) == 60
        _, result = finish(command, workdir)
        assert evaluated_steps(workdir) == [40, 60]
        assert result["params"] == expected["params"] and result["test"] == expected["test"]

    def test_a_second_signal_ends_it_at_once_while_it_compiles(self, command, tmp_path):
        with started(command, tmp_path / "run") as process:
            read_until(process, "^to resume:")
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            begin = time.monotonic()
            output = process.communicate(timeout=60)[0]
            assert time.monotonic() - begin < 2
        assert process.returncode == 143
        assert "stopped at step" not in output and not Path(tmp_path / "run/result.json").exists()
