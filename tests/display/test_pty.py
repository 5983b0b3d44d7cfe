"""On a real terminal, in a log and when the window changes its size, a run can be read."""

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

SCRIPT = """
import sys, time
from pathlib import Path
from jaxmnist.display.terminal import Terminal
from jaxmnist.workdir import Workdir
from test_terminal import RESULT, ROWS, TEST, TRAIN

with Terminal() as shows:
    shows.start(ROWS, total_steps=1172)
    for step in range(100, 1172, 100):
        shows.record(TRAIN | {"step": step}, seconds_left=75.4)
        if step in (200, 600):
            print("size", file=sys.__stderr__, flush=True)  # Rich takes the other
            sys.stdin.readline()
    shows.record(TEST)
    shows.finish(RESULT, Workdir(Path("runs") / "one"))
"""
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")


def resize(terminal, columns):
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


def environment(**changes):
    """That of a person's shell, whatever this process runs in."""
    unwanted = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "CI")
    kept = {k: v for k, v in os.environ.items() if k not in unwanted}
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return kept | {"TERM": "xterm-256color", "PYTHONPATH": path} | changes


def read(terminal):
    """All that is written until the other side closes."""
    written = b""
    with contextlib.suppress(OSError):  # so Linux says that it did
        while part := os.read(terminal, 65536):
            written += part
    return written.decode()


def shown(*, sizes=(80, 80), **variables):
    """All that the script writes on a terminal of 80 columns that is then resized twice."""
    ours, theirs = pty.openpty()
    resize(theirs, 80)
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env=environment(**variables),
        text=True,
    )
    with child, ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read, ours)
        for columns in sizes:
            assert child.stderr.readline() == "size\n", child.stderr.read()
            resize(theirs, columns)
            child.send_signal(signal.SIGWINCH)
            child.stdin.write("\n")
            child.stdin.flush()
        os.close(theirs)
        written = reading.result(timeout=60)
        assert child.wait(timeout=60) == 0, child.stderr.read()
    os.close(ours)
    return written


def lines(text):
    """What was written without escapes; a line that is drawn anew counts each time."""
    return re.split(r"[\r\n]+", ESCAPES.sub("", text))


def test_eighty_columns_hold_every_line_and_the_cursor_comes_back():
    text = shown()
    assert max(map(len, lines(text))) <= 80
    assert COLOUR.search(text)
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert any(line.startswith("╭─ jaxmnist ─") and len(line) == 80 for line in lines(text))
    assert re.search(r"training ━.* 1100/1172 loss 0.1235", ESCAPES.sub("", text))
    assert "75.00% of 12 (3 wrong)" in text


@pytest.mark.parametrize("sizes", [(40, 120), (1, 200)])
def test_a_window_that_changes_its_size_does_no_harm(sizes):
    text = shown(sizes=sizes)
    assert "75.00% of 12 (3 wrong)" in text
    assert max(map(len, lines(text))) <= max(80, *sizes)
    assert "Traceback" not in text


def test_without_colour_there_is_none_and_the_bar_stays():
    text = shown(NO_COLOR="1")
    assert not COLOUR.search(text)
    assert "━" in text


def test_a_terminal_that_can_only_print_gets_lines():
    text = shown(TERM="dumb")
    assert "\x1b" not in text
    train = [line for line in lines(text) if re.match(r"step +\S+/1,172 .* train ", line)]
    assert len(train) == 11


@pytest.mark.parametrize("variables", [{}, {"CI": "true"}, {"FORCE_COLOR": "1"}])
def test_a_log_gets_lines_without_escapes(variables):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input="\n\n",
        capture_output=True,
        text=True,
        env=environment(**variables),
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout and "\r" not in done.stdout
    train = [line for line in lines(done.stdout) if re.match(r"step +\S+/1,172 .* train ", line)]
    assert len(train) == 11
