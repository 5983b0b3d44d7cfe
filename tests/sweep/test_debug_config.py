"""A seed gives the same parameters alone and in a sweep, be the sweep killed in between."""

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


def test_seed_3_of_the_debug_configuration(tmp_path):
    place = tmp_path / "sweep"
    line = [*JAXMNIST, "sweep", "--config=debug", "--seeds=2:5", "--json", f"--workdir={place}"]
    first = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    middle = place / "seed-3/checkpoints/20"
    while not middle.exists():
        assert first.poll() is None
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert [run["status"] for run in read_records(place / "runs.jsonl")] == ["done", "open", "open"]

    second = json.loads(subprocess.run(line, stdout=subprocess.PIPE, check=True).stdout)
    assert [run["status"] for run in second["runs"]] == ["done"] * 3
    (point,) = second["points"]
    assert 0.8 < point["test"]["mean"] < 0.95 and 0 < point["test"]["std"] < 0.05
    history = read_records(place / "seed-3/metrics.jsonl")
    assert [r["step"] for r in history if r["split"] == "train"] == [*range(1, 61)]

    alone = tmp_path / "alone"
    options = ["--config=debug", "--config.seed=3", "--quiet", f"--workdir={alone}"]
    subprocess.run([*JAXMNIST, "train", *options], check=True)
    found = json.loads((alone / "result.json").read_text("utf-8"))["params"]
    assert found["sha256"] == second["runs"][1]["params"]["sha256"]


def test_runs_side_by_side_are_the_runs_one_after_the_other(tmp_path):
    def hashes(name, *more):
        options = ["--config=debug", "--config.train.steps=3", "--seeds=0:2", "--quiet"]
        subprocess.run(
            [*JAXMNIST, "sweep", *options, *more, f"--workdir={tmp_path / name}"], check=True
        )
        return [run["params"]["sha256"] for run in read_records(tmp_path / name / "runs.jsonl")]

    one, two = hashes("one"), hashes("two", "--at_once=2")
    assert one == two and len({*one}) == 2
