"""A file is fetched once, whole and verified, from the first mirror that has it, or not at all."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxmnist.errors import DataError
from jaxmnist.zoo.idx.download import cache_directory, fetch

GOOD = b"the good content" * 1000


def verify(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(str(error)) from error
    if content != GOOD:
        raise DataError("wrong checksum")
    return content


@pytest.fixture
def target(tmp_path):
    return tmp_path / "cache" / "set" / "file.gz"


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("jaxmnist.zoo.idx.download._TIMEOUT_S", 0.2)


def fetch_all(target, *urls, tried=()):
    return fetch(target, [*urls], verify=verify, max_bytes=len(GOOD), tried=[*tried])


def left_behind(target):
    """What lies in the cache but the file and its lock."""
    return {path.name for path in target.parent.iterdir()} - {"file.gz", "file.gz.lock"}


def test_fetches_from_the_first_mirror_and_then_from_none(mirror, target):
    mirror.answers = {"/a": GOOD, "/b": GOOD}
    for _ in range(2):
        assert fetch_all(target, f"{mirror.url}/a", f"{mirror.url}/b") == GOOD
    assert mirror.requests == ["/a"]
    assert target.read_bytes() == GOOD
    assert not left_behind(target)


def test_goes_on_to_the_next_mirror_after_every_kind_of_failure(mirror, target, impatient):
    mirror.answers = {"/wrong": b"x", "/long": GOOD + b"x", "/cut": GOOD, "/good": GOOD}
    mirror.cut, mirror.silent = {"/cut"}, {"/silent"}
    bad = ["/wrong", "/long", "/cut", "/missing", "/silent"]
    urls = [f"{mirror.url}{path}" for path in [*bad, "/good"]]
    assert fetch_all(target, "http://127.0.0.1:1/", "nonsense", *urls) == GOOD
    assert mirror.requests == [*bad, "/good"]
    assert not left_behind(target)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/wrong", "wrong checksum"),
        ("/long", f"longer than the limit of {len(GOOD)} bytes"),
        ("/cut", "wrong checksum"),
        ("/missing", "HTTP Error 404: Not Found"),
        ("/silent", "timed out"),
    ],
)
def test_the_error_lists_what_was_tried_with_the_reason_and_the_repair(
    mirror, target, impatient, path, reason
):
    mirror.answers = {"/wrong": b"x", "/long": GOOD + b"x", "/cut": GOOD}
    mirror.cut, mirror.silent = {"/cut"}, {"/silent"}
    urls = [f"{mirror.url}{path}", "http://127.0.0.1:1/file.gz"]
    lines = ["file.gz could not be had:", "before", f"{urls[0]}: .*{reason}.*", f"{urls[1]}: .*"]
    text = r"\n  - ".join(lines)
    with pytest.raises(DataError, match=text) as caught:
        fetch_all(target, *urls, tried=["before"])
    assert "--config.dataset.dir=DIRECTORY" in str(caught.value)
    assert not target.exists()
    assert not left_behind(target)


def test_a_mirror_that_drips_is_given_up_at_the_deadline(mirror, target, monkeypatch):
    mirror.answers = {"/a": GOOD}
    monkeypatch.setattr("jaxmnist.zoo.idx.download._DEADLINE_S", 0.0)
    with pytest.raises(DataError, match="not complete after 0 s"):
        fetch_all(target, f"{mirror.url}/a")


def test_a_failed_fetch_leaves_the_old_file_and_a_good_one_replaces_it(mirror, target):
    target.parent.mkdir(parents=True)
    target.write_bytes(b"old and damaged")
    mirror.answers = {"/wrong": b"x", "/good": GOOD}
    with pytest.raises(DataError, match="wrong checksum"):
        fetch_all(target, f"{mirror.url}/wrong")
    assert target.read_bytes() == b"old and damaged"
    assert fetch_all(target, f"{mirror.url}/good") == GOOD
    assert target.read_bytes() == GOOD


def test_a_cache_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "cache").write_bytes(b"a file stands in the way")
    text = f"cannot cache files .*{re.escape(str(tmp_path))}/cache.*: set JAXMNIST_CACHE to another"
    with pytest.raises(DataError, match=text):
        fetch_all(tmp_path / "cache" / "set" / "file.gz", "http://127.0.0.1:1/")


PROGRAM = """
import pathlib, sys
from jaxmnist.zoo.idx.download import fetch
def verify(path):
    if not path.exists():
        from jaxmnist.errors import DataError
        raise DataError("missing")
    return len(path.read_bytes())
print(fetch(pathlib.Path(sys.argv[1]), sys.argv[2:], verify=verify, max_bytes=10**6, tried=[]))
"""


def start(target, url):
    command = [sys.executable, "-c", PROGRAM, str(target), url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)


def test_many_processes_fetch_once(mirror, target):
    mirror.answers, mirror.delay_s = {"/a": GOOD}, 0.8
    processes = [start(target, f"{mirror.url}/a") for _ in range(3)]
    outputs = [process.communicate(timeout=30)[0] for process in processes]
    assert [output.strip() for output in outputs] == [str(len(GOOD))] * 3
    assert mirror.requests == ["/a"]


def test_a_process_killed_in_the_middle_blocks_nobody(mirror, target):
    mirror.answers, mirror.silent = {"/good": GOOD}, {"/silent"}
    process = start(target, f"{mirror.url}/silent")
    end_s = time.monotonic() + 20
    while not mirror.requests and time.monotonic() < end_s:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (target.parent / "file.gz.part").write_bytes(b"half")
    assert fetch_all(target, f"{mirror.url}/good") == GOOD
    assert not left_behind(target)


def test_the_cache_is_where_the_variable_says_or_in_the_users_cache_home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("JAXMNIST_CACHE", raising=False)
    assert cache_directory().name == "jaxmnist"
    if sys.platform == "linux":
        assert cache_directory() == tmp_path / "home" / "jaxmnist"
    monkeypatch.setenv("JAXMNIST_CACHE", str(tmp_path / "variable"))
    assert cache_directory() == tmp_path / "variable"
    assert not any(tmp_path.iterdir())
