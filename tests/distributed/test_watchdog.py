"""The watchdog ends a process that stands still, says where, and leaves all others alone."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from jaxmnist.distributed import watchdog as module
from jaxmnist.distributed.watchdog import Watchdog

PROGRAM = """
import ctypes, time
from jaxmnist.distributed.watchdog import Watchdog

def stand_still_in_native_code():
    ctypes.CDLL(None).sleep(60)

watchdog = Watchdog({timeout}, lambda: "The last step is 7.")
watchdog.start()
print("started", flush=True)
{body}
watchdog.stop()
print("ended by itself", flush=True)
"""


def program(body, timeout=0.5):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(timeout=timeout, body=body)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_process_that_hangs_in_native_code_shows_its_stacks_and_ends():
    with program("stand_still_in_native_code()") as process:
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert f"jaxmnist: process {process.pid} on " in output
    assert (
        "no step and no batch of evaluation was finished for 0.5 s. The last step is 7. " in output
    )
    assert "start the same command again: it goes on from the last checkpoint" in output
    assert "in stand_still_in_native_code" in output
    assert "ended by itself" not in output


def test_an_abort_meanwhile_leaves_it_the_last_word():
    """The other processes end because of this one, and JAX then aborts it."""
    body = """
import os, threading
from jaxmnist.distributed import watchdog as module
from jaxmnist.distributed.ending import Ending
ending = Ending("the job has lost a process")
write = module.sys.stderr.write
def aborted_meanwhile(text):
    threading.Thread(target=os.abort, daemon=True).start()
    time.sleep(0.5)
    return write(text)
module.sys.stderr.write = aborted_meanwhile
stand_still_in_native_code()
"""
    with program(body) as process:
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 1 and "in stand_still_in_native_code" in output
    assert re.findall("^jaxmnist: .*", output, re.M) == [
        line for line in output.splitlines() if "no step and no batch" in line
    ]


@pytest.mark.parametrize("timeout", [3.0, 600.0])
def test_it_leaves_others_time_to_see_the_same_standstill(timeout, monkeypatch, capfd):
    """They look up to a tick later; of a long limit a tick is not a twentieth."""
    waits = []
    watchdog = Watchdog(timeout, lambda: "")
    watchdog._ended = SimpleNamespace(wait=waits.append)
    monkeypatch.setattr(module, "take_last_word", lambda: None)
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit):
        watchdog._watch()
    *ticks, grace = waits
    assert sum(ticks) == pytest.approx(timeout) and 2 * max(ticks) <= grace <= 4


@pytest.mark.parametrize(
    ("body", "timeout"),
    [("for _ in range(12): time.sleep(0.1); watchdog.beat()", 0.5), ("time.sleep(1)", None)],
)
def test_signs_of_life_or_no_limit_keep_it_quiet(body, timeout):
    with program(body, timeout) as process:
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 0 and output == "started\nended by itself\n"


@pytest.mark.slow
def test_a_process_that_was_suspended_is_not_taken_for_a_hang():
    with program("for _ in range(5): time.sleep(0.1); watchdog.beat()") as process:
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        process.send_signal(signal.SIGCONT)
        assert process.stdout.read() == "ended by itself\n"
        assert process.wait(10) == 0


def test_a_clock_that_jumps_does_not_set_it_off(monkeypatch):
    watchdog = Watchdog(60.0, lambda: "")
    watchdog.start()
    monkeypatch.setattr(time, "monotonic", lambda: 1e9)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    time.sleep(0.1)
    watchdog.stop()
