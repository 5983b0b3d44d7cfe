"""Every figure in the README's table of results is one that a record or a test says."""

import json
import re

import pages
import pytest

from proofs.test_resume import MOMENTS, VARIANTS

ROWS = {
    label.strip(): value.strip()
    for _, label, value, _ in (
        line.split("|") for line in pages.read("README.md").splitlines() if line.count("|") == 3
    )
}


def row(label):
    """Label and value of the row that has a text in its label."""
    (found,) = [(name, value) for name, value in ROWS.items() if label in name]
    return found


def newest_rows(name, command):
    """The rows of the newest record of a command."""
    lines = (pages.ROOT / "benchmarks" / "records" / f"{name}.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    found = max(
        (r for r in records if r["command"].endswith(command)),
        key=lambda r: r["environment"]["date"],
    )
    return found["rows"]


def newest(name, command):
    """The same by candidate and, where there is one, batch."""
    return {(r["candidate"], r.get("batch")): r for r in newest_rows(name, command)}


@pytest.fixture
def default():
    return newest("time_to_accuracy", "--configs=default --seeds=5")["default", None]


def test_accuracy_and_seconds_are_those_of_the_record(default):
    _, accuracy = row("test accuracy, mean of seeds 0–4")
    assert accuracy == f"{default['accuracy_mean']:.2f} % ± {default['accuracy_std']:.2f}"
    label, seconds = row("training, 5 epochs")
    assert seconds == f"{default['seconds']['median']:.0f} s"
    assert f"compiling, {default['compile_seconds']['median']:.0f} s" in label
    assert "median of five" in label and default["seeds"] == 5


def test_the_time_to_99_percent_is_that_of_the_record(default):
    _, seconds = row("until 99 % of the test images are right, which all five seeds reach")
    reached = default["reached"]
    assert (reached["seeds"], reached["target"]) == (5, 0.99)
    assert seconds == f"{reached['seconds']['median']:.0f} s"


def test_the_images_per_second_are_those_of_the_record():
    label, value = row("images/s of the whole loop, batch 256")
    found = newest("peers", "--batches=64,256,1024 --rounds=5")
    rates = {
        name: row["images_per_second"]["median"] for (name, b), row in found.items() if b == 256
    }
    others = [n for n in rates if n.startswith("PyTorch ") and n != "PyTorch fp32"]
    fastest = max(others, key=rates.__getitem__)
    how = f"({fastest.removeprefix('PyTorch ')})"
    assert label.endswith(f"here, PyTorch, PyTorch at its fastest {how}, a plain `jax.jit` loop")
    names = ("jaxmnist", "PyTorch fp32", fastest, "plain jit")
    assert value == ", ".join(f"{rates[name]:,.0f}" for name in names)


def test_the_speedrun_is_that_of_the_record():
    ours = newest("speedrun", "--config=speedrun --seeds=20 --first_seed=20")["jaxmnist", None]
    label, value = row("--config=speedrun")
    assert value == f"{ours['accuracy_mean']:.2f} %, {ours['seconds']['median']:.1f} s"
    assert "mean of 20 seeds" in label and f"{ours['of_recipe']['median']:.2f} of the Py" in label


def test_the_most_accurate_configuration_is_that_of_the_record():
    (mnist,) = newest_rows("best", "--datasets=mnist --seeds=3")
    one, minutes = mnist["accuracy"]["mean"], mnist["seconds"]["median"] / 60
    _, value = row("--config=best")
    assert value == f"{one:.2%}, {minutes:.0f} min; {mnist['vote']:.2%}".replace("%", " %")


def test_the_worst_difference_is_that_of_the_page_of_proofs():
    proofs = pages.read("docs/proofs.md")
    (line,) = [line for line in proofs.splitlines() if "proofs/test_equivalence.py" in line]
    worst = line.split("|")[-2].strip()
    assert row("1, 2, 4, 8 devices × three strategies")[1] == f"{worst} relative at worst"


def test_the_kills_are_counted():
    slow = 2 * len(VARIANTS) + 2 * len(MOMENTS)  # each moment comes in two variants
    label, _ = row("killed by SIGKILL and resumed")
    assert f"{3 + slow} times ({slow} of them in the slow set)" in label


def test_no_row_is_without_a_test():
    known = (
        "--config=best",
        "mean of seeds",
        "training, 5",
        "until 99 %",
        "images/s",
        "speedrun",
        "1, 2, 4, 8",
    )
    known += ("killed", "`parallel.deterministic`", "`pytest`")
    head = [name for name in ROWS if re.search(r"measured on \d+ CPU cores, JAX", name)]
    measured = list(ROWS)[list(ROWS).index(head[0]) + 2 :]
    measured = measured[: measured.index(row("`pytest`")[0]) + 1]
    assert len(measured) == 10
    assert all(any(text in name for text in known) for name in measured)
