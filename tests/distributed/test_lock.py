"""The lock of a work directory: one run at a time, and a dead one is no obstacle."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jaxmnist.distributed.lock import LOCK, locked
from jaxmnist.errors import WorkdirError

HOLDER = """
import sys, pathlib
from jaxmnist.distributed.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / "run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_run_is_refused_and_told_who_holds_it(holder, tmp_path):
    host = re.escape(socket.gethostname())
    expected = (
        rf"run is in use by process {holder.pid} on {host} since \d{{4}}-\d\d-\d\dT[\d:+-]+: wait "
        "for that run, stop it, or choose another --workdir"
    )
    with pytest.raises(WorkdirError, match=expected), locked(tmp_path / "run"):
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_dead_process_left_is_no_obstacle(holder, tmp_path, number):
    holder.send_signal(number)
    holder.wait()
    assert json.loads((tmp_path / "run" / LOCK).read_text())["pid"] == holder.pid
    with locked(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / LOCK).read_text())["pid"] == os.getpid()


def test_it_is_free_again_after_the_block(tmp_path):
    for _ in range(2):
        with locked(tmp_path / "run"):
            pass


@pytest.mark.parametrize("text", ["", "nonsense", "[]"])
def test_a_holder_that_has_not_written_yet(holder, tmp_path, text):
    (tmp_path / "run" / LOCK).write_text(text)
    with (
        pytest.raises(WorkdirError, match="is in use by another process: wait"),
        locked(tmp_path / "run"),
    ):
        pass


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    expected = "file/run cannot be written: Not a directory; choose another --workdir"
    with pytest.raises(WorkdirError, match=expected), locked(tmp_path / "file" / "run"):
        pass


def test_a_file_system_without_locks_is_used_without(tmp_path, monkeypatch):
    def flock(*arguments):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", flock)
    with locked(tmp_path):
        assert (tmp_path / LOCK).exists()
