"""A seed gives the same parameters alone, in a sweep and beside others, be the sweep killed."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from jaxmnist.writers import read_records

pytestmark = pytest.mark.slow

JAXMNIST = [sys.executable, "-m", "jaxmnist"]
DEBUG = ["--config=debug", "--config.train.steps=30"]


def hashes(place):
    return [run["params"]["sha256"] for run in read_records(place / "runs.jsonl")]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A sweep of two seeds that is killed within the second, and goes on."""
    place = tmp_path_factory.mktemp("killed") / "sweep"
    line = [*JAXMNIST, "sweep", *DEBUG, "--seeds=2:4", "--json", f"--workdir={place}"]
    first = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    middle = place / "seed-3/checkpoints/10"
    while not middle.exists():
        assert first.poll() is None
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert [run["status"] for run in read_records(place / "runs.jsonl")] == ["done", "open"]
    return place, json.loads(subprocess.run(line, stdout=subprocess.PIPE, check=True).stdout)


def test_a_killed_sweep_goes_on_where_it_was(killed):
    place, found = killed
    assert [run["status"] for run in found["runs"]] == ["done"] * 2
    (point,) = found["points"]
    assert 0.7 < point["test"]["mean"] < 0.95 and 0 < point["test"]["std"] < 0.1
    history = read_records(place / "seed-3/metrics.jsonl")
    assert [r["step"] for r in history if r["split"] == "train"] == [*range(1, 31)]


def test_seed_3_alone_is_seed_3_of_the_sweep(killed, tmp_path):
    options = [
        *DEBUG,
        "--config.seed=3",
        "--quiet",
        "--noreport",
        f"--workdir={tmp_path / 'alone'}",
    ]
    subprocess.run([*JAXMNIST, "train", *options], check=True)
    found = json.loads((tmp_path / "alone/result.json").read_text("utf-8"))["params"]
    assert found["sha256"] == hashes(killed[0])[1]


def test_runs_side_by_side_are_the_runs_one_after_the_other(killed, tmp_path):
    options = [*DEBUG, "--seeds=2:4", "--quiet", "--at_once=2", f"--workdir={tmp_path / 'two'}"]
    subprocess.run([*JAXMNIST, "sweep", *options], check=True)
    one, two = hashes(killed[0]), hashes(tmp_path / "two")
    assert one == two and len({*one}) == 2
