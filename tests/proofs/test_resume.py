"""Proves that nothing is lost: killed at any instant and resumed, a run ends as if unbroken."""

import contextlib
import json
import os
import random
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import jaxmnist
from jaxmnist.checkpoint import newest_good, read_info, steps_in
from jaxmnist.errors import CheckpointError
from jaxmnist.runs.evaluate import load_run
from jaxmnist.testing.processes import device_environment
from proofs.resuming import ended, metrics
from support import Tiny, small_config, small_data

PROGRAM = Path(__file__).with_name("killed_run.py")

# Everything that a state can hold: moving average, running statistics, a window of metrics that
# log lines and checkpoints cut at different steps, and a best step. 60 held out leave an epoch of
# 449 / 32 = 14.03 steps.
CONFIG = {
    "train.steps": 100,
    "train.ema_decay": 0.9,
    "augment.shift": 1,
    "dataset.validation": 60,
    "log.every": 5,
    "checkpoint.every": 7,
    "eval.every": "1 epochs",
    "eval.batch_size": 7,
}
MODEL = {"dropout": 0.5, "groups": 8}
VARIANTS = {
    "shard_map": {},
    "shard_map accumulating": {"train.accumulate": 2},
    "pmap": {"parallel.strategy": "pmap"},
    "jit accumulating": {"parallel.strategy": "jit", "train.accumulate": 2},
    "deterministic accumulating": {"parallel.deterministic": True, "train.accumulate": 2},
}
# The n-th call of a function, and on which side of it the process kills itself.
MOMENTS = {
    "a step is under way": ("jaxmnist.step.body:Step.__call__", 17, "after"),
    "an evaluation is under way": ("jaxmnist.runs.evaluate:place_batch", 15, "before"),
    "an epoch is over": ("jaxmnist.runs.recorder:Recorder.evaluate", 2, "before"),
    "an epoch is evaluated": ("jaxmnist.runs.recorder:Recorder.evaluate", 2, "after"),
    "a save has begun": ("jaxmnist.checkpoint:CheckpointWriter.save", 3, "after"),
    "a save is not sealed": ("jaxmnist.checkpoint:CheckpointWriter._seal", 2, "before"),
    "a save is not committed": ("jaxmnist.checkpoint:CheckpointWriter._seal", 3, "after"),
    "an old checkpoint is removed": ("shutil:rmtree", 1, "before"),
    "a line is written": ("jaxmnist.writers:JsonlWriter.write", 4, "after"),
    "the lines are to be cut back": ("jaxmnist.runs.recorder:drop_after", 1, "before"),
    "the lines are half cut back": ("pathlib:Path.replace", 2, "before"),
    "the configuration is half written": ("pathlib:Path.replace", 1, "before"),
    "the result is not written": ("jaxmnist.runs.train:write_atomically", 1, "before"),
}


@pytest.fixture(scope="module")
def start():
    """Starts the program on 2 devices."""

    @contextlib.contextmanager
    def run(workdir, variant, moment=None):
        die = (
            dict(zip(("function", "call", "when"), MOMENTS[moment], strict=True)) if moment else {}
        )
        job = {"workdir": str(workdir), "config": CONFIG | VARIANTS[variant], "model": MODEL}
        with subprocess.Popen(
            [sys.executable, str(PROGRAM), json.dumps(job | {"die": die})],
            env=os.environ | device_environment(2, {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    return run


@pytest.fixture(scope="module")
def unbroken(start, tmp_path_factory):
    """What the unbroken run of a variant says; each is made once."""
    made = {}

    def get(variant):
        if variant not in made:
            workdir = tmp_path_factory.mktemp("unbroken") / "run"
            finish(start, workdir, variant)
            made[variant] = ended(workdir)
        return made[variant]

    return get


def finish(start, workdir, variant):
    """Runs to the end and returns what was printed."""
    with start(workdir, variant) as process:
        output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    return output


def die_when(start, workdir, variant, moment):
    """Runs until the process kills itself at a moment."""
    with start(workdir, variant, moment) as process:
        output = process.communicate(timeout=120)[0]
    assert process.returncode == -9, f"{moment} never came:\n{output}"


def kill_when(start, workdir, variant, condition, delay_s=0.0):
    """Runs until a condition on the output so far holds, waits, and kills."""
    with start(workdir, variant) as process:
        output = ""
        while not condition(output):
            # A line may hide a second one in the buffer of a text file, so the pipe is read raw.
            if select.select([process.stdout], [], [], 0.002)[0]:
                data = os.read(process.stdout.fileno(), 65536).decode(errors="replace")
                assert data, f"it ended before it was killed:\n{output}"
                output += data
        time.sleep(delay_s)
        assert process.poll() is None, f"it ended before it was killed:\n{output}"
        process.kill()
    assert process.returncode == -9


def saving(workdir):
    """A condition: Orbax is writing a checkpoint."""
    return lambda output: any(Path(workdir).glob("checkpoints/*.orbax-checkpoint-tmp*"))


def training(output):
    """A condition: the first line of metrics was printed."""
    return "  train  " in output


class TestKilledRunsEndAsUnbrokenOnes:
    def test_during_a_step_a_save_and_at_a_random_instant(self, start, unbroken, tmp_path):
        workdir, variant = tmp_path / "run", "shard_map"
        expected = unbroken(variant)
        die_when(start, workdir, variant, "a step is under way")
        kill_when(start, workdir, variant, saving(workdir))
        kill_when(start, workdir, variant, training, random.Random(1).uniform(0, 0.4))
        output = finish(start, workdir, variant)
        assert "resumed at step" in output
        assert ended(workdir) == expected
        assert not list(workdir.glob("checkpoints/*tmp*"))

    @pytest.mark.slow
    @pytest.mark.timeout(600)
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_at_directed_moments_and_random_instants(self, start, unbroken, tmp_path, variant):
        # Every moment comes in two variants at least; the last ones need a run that is further on.
        number = list(VARIANTS).index(variant)
        moments = [m for i, m in enumerate(MOMENTS) if (i - number) % len(VARIANTS) in (0, 2)]
        expected, workdir = unbroken(variant), tmp_path / "run"
        instants = random.Random(number)
        kill_when(start, workdir, variant, lambda output: "starts" in output, instants.random())
        kill_when(start, workdir, variant, training, instants.uniform(0, 0.3))
        for moment in moments:
            die_when(start, workdir, variant, moment)
        finish(start, workdir, variant)
        assert ended(workdir) == expected

    def test_the_unbroken_run_itself_is_whole(self, unbroken):
        seen = unbroken("shard_map")
        lines = [(r["split"], r["step"]) for r in seen["metrics"]]
        logged = [1, *range(5, 101, 5)]
        epochs = [15, 29, 43, 57, 71, 85, 99, 100]  # ceil(e * 449 / 32), and the end
        assert [step for split, step in lines if split == "train"] == logged
        assert [step for split, step in lines if split == "validation"] == epochs
        assert [step for step, _ in seen["scalars"]["train/loss"]] == logged
        assert [step for step, _ in seen["scalars"]["validation/accuracy"]] == epochs
        assert seen["state"][0] == 100


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run of 20 steps with checkpoints at 8, 16 and 20."""
    workdir = tmp_path_factory.mktemp("damage") / "run"
    train_small(workdir)
    return workdir


def train_small(workdir):
    return jaxmnist.train(
        small_config(parallel__devices=2, train__ema_decay=0.9),
        workdir,
        dataset=small_data(),
        model=Tiny(dropout=0.5),
    )


@pytest.fixture
def run(whole, tmp_path):
    """A copy of the finished run that may be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def files_of(run, step):
    place = run / "checkpoints" / str(step)
    return sorted(p for p in place.rglob("*") if p.is_file())


def content(directory):
    return {p.relative_to(directory): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


class TestDamagedCheckpoints:
    def test_a_flipped_bit_in_any_file_is_noticed(self, run):
        bits, places = random.Random(0), run / "checkpoints"
        after_seal = {"_CHECKPOINT_METADATA", "commit_success.txt"}
        noticed = {}
        for path in files_of(run, 20):
            before = path.read_bytes()
            for _ in range(5 if before and path.name not in after_seal else 0):
                flip(path, bits.randrange(8 * len(before)))
                info, faults = newest_good(places)
                path.write_bytes(before)
                assert info.step == 16 and len(faults) == 1, path
                assert str(places / "20") in faults[0] and "is damaged" in faults[0]
                noticed[path.name] = faults[0]
        assert len(noticed) > 5 and "manifest.json" in noticed
        assert newest_good(places)[0].step == 20

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "commit_success.txt"])
    def test_only_the_time_of_commit_may_hold_a_bit_that_is_not_noticed(self, run, name):
        places = run / "checkpoints"
        paths = [p for p in files_of(run, 20) if p.name == name and p.parent == places / "20"]
        for path in paths:
            before = path.read_bytes()
            unnoticed = []
            for bit in range(8 * len(before)):
                flip(path, bit)
                if newest_good(places)[0].step == 20:
                    unnoticed.append(bit)
                path.write_bytes(before)
            digits = {bit for bit in unnoticed if chr(before[bit // 8]) not in "0123456789"}
            assert not digits or name == "commit_success.txt"
            if unnoticed:
                flip(path, unnoticed[len(unnoticed) // 2])
                info = read_info(places, 20)
                _, state, _ = load_run(run, dataset=small_data(), model=Tiny(dropout=0.5))
                assert int(state.step) == info.step == 20  # restoring has compared the digest

    def test_a_deleted_file_is_noticed(self, run):
        places = run / "checkpoints"
        for path in files_of(run, 20):
            before = path.read_bytes()
            path.unlink()
            info, faults = newest_good(places)
            path.write_bytes(before)
            if path.name != "commit_success.txt":
                assert info.step == 16 and "is damaged" in faults[0], path

    def test_a_truncated_file_is_noticed(self, run):
        places = run / "checkpoints"
        for path in files_of(run, 20):
            before = path.read_bytes()
            path.write_bytes(before[: len(before) // 2])
            info, faults = newest_good(places)
            path.write_bytes(before)
            if before and path.name != "commit_success.txt":
                assert info.step == 16 and "is damaged" in faults[0], path

    def test_the_one_before_is_used_and_nothing_is_deleted(self, run, whole, capsys):
        largest = max(files_of(run, 20), key=lambda p: p.stat().st_size)
        largest.write_bytes(largest.read_bytes()[:-7])
        flip(max(files_of(run, 16), key=lambda p: p.stat().st_size), 12345 % 800)
        damaged = {step: content(run / "checkpoints" / str(step)) for step in (16, 20)}
        train_small(run)
        output = capsys.readouterr().out
        for step in (16, 20):
            name = run / "checkpoints" / str(step)
            assert f"checkpoint {name} is damaged" in output
            assert content(run / "checkpoints" / f"damaged-{step}-0") == damaged[step]
        assert "it is set aside" in output and "resumed at step 8 of 20" in output
        assert ended(run) == ended(whole)

    def test_without_a_sound_one_the_run_starts_anew_and_says_so(self, run, whole, capsys):
        for step in steps_in(run / "checkpoints"):
            (run / "checkpoints" / str(step) / "manifest.json").unlink()
        train_small(run)
        output = capsys.readouterr().out
        assert output.count("is damaged") == 3
        assert "no checkpoint is sound: the run starts anew" in output
        assert len(list(run.glob("checkpoints/damaged-*"))) == 3
        assert ended(run) == ended(whole)

    def test_evaluating_a_damaged_checkpoint_by_its_step_is_refused(self, run):
        (run / "checkpoints" / "16" / "manifest.json").write_text("{}")
        with pytest.raises(CheckpointError, match=r"checkpoints/16 is damaged"):
            jaxmnist.evaluate(run, step=16, dataset=small_data(), model=Tiny(dropout=0.5))


class TestFinishedRuns:
    def test_a_missing_result_is_made_again(self, run, whole):
        (run / "result.json").unlink()
        train_small(run)
        assert ended(run) == ended(whole)

    def test_a_last_line_that_was_cut_off_is_made_again(self, run, whole):
        shutil.rmtree(run / "checkpoints" / "20")
        path = run / "metrics.jsonl"
        path.write_bytes(path.read_bytes()[:-9])
        train_small(run)
        assert metrics(run) == metrics(whole)
