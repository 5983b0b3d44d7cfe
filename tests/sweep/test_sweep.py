"""A sweep keeps its books whatever happens to its runs and to itself; the runs are stood in for."""

import csv
import json
import signal
import subprocess
import threading
import time

import pytest
from filelock import FileLock

import jaxmnist
from jaxmnist.errors import ConfigError, UsageError, WorkdirError
from jaxmnist.sweep import processes
from jaxmnist.sweep.processes import find_places
from jaxmnist.writers import read_records

RATE = "optimizer.learning_rate"


def starts(path, run="seed-0"):
    """How often a run was started."""
    return len((path / "sweep" / run / "starts").read_text().splitlines())


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


class TestBooks:
    def test_every_run_is_recorded_and_every_point_estimated(self, sweep, tmp_path):
        found = sweep([0, 2], grid={RATE: [0.1, 0.2]})
        assert found.workdir == tmp_path / "sweep"
        assert [p.test.mean for p in found.points] == pytest.approx([0.61, 0.71])
        assert (found.best, found.chosen_by) == (found.points[1], "test")
        records = read_records(tmp_path / "sweep/runs.jsonl")
        assert records == [*found.runs]
        assert [(r["seed"], r["point"][RATE], r["status"]) for r in records] == [
            (0, "0.1", "done"),
            (0, "0.2", "done"),
            (2, "0.1", "done"),
            (2, "0.2", "done"),
        ]
        assert records[3]["params"]["sha256"] == f"{2:064x}"
        with (tmp_path / "sweep/table.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [float(row["test_mean"]) for row in rows] == pytest.approx([0.61, 0.71])
        assert (tmp_path / "sweep/picture.svg").read_text().startswith("<?xml")
        assert not found.failed

    def test_with_validation_examples_they_decide(self, sweep):
        found = sweep(grid={RATE: [0.1, 0.2]}, keys={"dataset.validation": "100"})
        assert (found.best.values, found.chosen_by) == ({RATE: "0.1"}, "validation")
        assert found.best.validation.mean == pytest.approx(0.4)

    def test_a_finished_run_is_not_repeated(self, sweep, tmp_path):
        first = sweep()
        assert sweep().to_dict() == first.to_dict()
        assert starts(tmp_path) == 1

    def test_a_sweep_may_get_further_seeds(self, sweep, tmp_path):
        sweep([0, 1])
        assert [line["seed"] for line in sweep([0, 1, 2]).runs] == [0, 1, 2]
        assert starts(tmp_path) == 1

    def test_at_once_runs_go_on_at_the_same_time(self, sweep, tmp_path):
        # Each of them waits until both have begun.
        (tmp_path / "sweep").mkdir()

        def go():
            wait_for(lambda: len([*(tmp_path / "sweep").glob("*/seed-7/starts")]) == 2)
            for point in (tmp_path / "sweep").glob("*/"):
                (point / "go").touch()

        threading.Thread(target=go).start()
        assert not sweep([7], grid={RATE: [0.1, 0.2]}, at_once=2).failed


class TestFailures:
    def test_a_run_that_fails_is_recorded_and_the_others_go_on(self, command, tmp_path):
        code, out, err = command("--seeds=0:2", f"--grid={RATE}:0.1,2")
        assert code == 1
        assert "2 of 4 runs failed:" in err
        assert "\n  - 1-learning_rate=2/seed-0: the loss was not finite\nat step 3" in err
        assert "the same command with this --workdir tries them again" in err
        assert "Traceback" not in err
        records = read_records(tmp_path / "sweep/runs.jsonl")
        assert [r["status"] for r in records] == ["done", "failed", "done", "failed"]
        assert records[1]["reason"] == "the loss was not finite\nat step 3"
        assert "0 of 2" in out and "60.50" in out

    @pytest.mark.parametrize(
        ("seed", "reason"),
        [
            (9, "the process was killed by signal 9: without a word"),
            (8, "the process ended with code 1: ValueError: an error of the user's own"),
        ],
    )
    def test_a_process_that_dies_says_how(self, sweep, seed, reason):
        found = sweep([0, seed])
        assert [line["status"] for line in found.runs] == ["done", "failed"]
        assert found.failed[0]["reason"] == reason

    def test_what_failed_is_tried_again(self, sweep, tmp_path):
        sweep([0, 8])
        sweep([0, 8])
        assert (starts(tmp_path, "seed-0"), starts(tmp_path, "seed-8")) == (1, 2)

    def test_what_no_device_can_run_is_found_before_anything_is_trained(self, command, tmp_path):
        code, out, err = command("--seeds=0:2", f"--grid={RATE}:0.1,0.75")
        assert (code, out) == (2, "")
        assert err == (
            "jaxmnist: configuration: learning_rate=0.75: 0.75 cannot be on these devices\n"
        )
        assert not (tmp_path / "sweep").exists()


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            ([], "jaxmnist sweep needs --seeds, such as --seeds=0:8"),
            (["--seeds=4:4"], "the range 4:4 holds no seed"),
            (["--seeds=x"], "'x' is not a seed or a range of seeds"),
            (["--seeds=0:2", "--grid=batch_sizes:1"], "no key 'batch_sizes'; did you mean"),
            (["--seeds=0:2", "--grid=batch_size:1.5"], "batch_size = 1.5 must be an integer"),
            (["--seeds=0:2", "--grid=batch_size"], "a key or a value is missing"),
            (["--seeds=0:2", "--at_once=0"], "flag --at_once=0"),
            (["--seeds=0:2", "--config=nope"], "none is named 'nope'"),
            (["--seeds=0:2", "more"], "takes no argument 'more'"),
        ],
    )
    def test_bad_input_is_one_sentence(self, command, tmp_path, arguments, sentence):
        code, out, err = command(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("jaxmnist: ") and sentence in err and err.count("\n") == 1
        assert not (tmp_path / "sweep").exists()

    @pytest.mark.parametrize(
        ("again", "sentence"),
        [
            ({"grid": {RATE: [0.1]}}, "the grid: {} there, {'optimizer.learning_rate': ['0.1']}"),
            ({"keys": {"batch_size": "64"}}, "batch_size: 256 there, 64 now"),
            ({"seeds": [0]}, "the seeds 1 are there and left out now"),
        ],
    )
    def test_another_sweep_is_refused(self, sweep, again, sentence):
        sweep([0, 1])
        with pytest.raises(WorkdirError) as raised:
            sweep(**{"seeds": [0, 1], **again})
        assert "holds another sweep:" in str(raised.value) and sentence in str(raised.value)
        assert "or choose another --workdir" in str(raised.value)

    def test_keys_that_decide_nothing_may_differ(self, sweep):
        sweep([0, 1])
        assert not sweep([0, 1], keys={"log.every": "7", "seed": "5"}).failed

    def test_a_directory_of_something_else_is_refused(self, sweep, tmp_path):
        (tmp_path / "sweep").mkdir()
        (tmp_path / "sweep/thesis.tex").touch()
        with pytest.raises(WorkdirError, match=r"is not empty and holds no sweep\.json"):
            sweep()

    def test_a_file_is_refused(self, sweep, tmp_path):
        (tmp_path / "sweep").touch()
        with pytest.raises(WorkdirError, match="is a file: choose another --workdir"):
            sweep()

    @pytest.mark.parametrize("text", ["", "{}", "[1]", '{"config": {"sead": 1}}'])
    def test_a_damaged_file_is_named(self, sweep, tmp_path, text):
        sweep()
        (tmp_path / "sweep/sweep.json").write_text(text)
        with pytest.raises(WorkdirError, match=r"sweep\.json cannot be read: .*; start anew"):
            sweep()

    def test_two_sweeps_at_once_are_refused(self, sweep, tmp_path):
        sweep()
        with (
            FileLock(tmp_path / "sweep/.sweep.json.lock"),
            pytest.raises(WorkdirError, match=r"another sweep is under way in .*: wait until"),
        ):
            sweep()


class TestBrokenOff:
    """Seed 7 waits for a file, so that the sweep can be broken off there."""

    def begin(self, line, tmp_path):
        place = tmp_path / "sweep"
        arguments = [f"--workdir={place}", "--seeds=0,7,1", f"--config.{RATE}=0.1"]
        process = subprocess.Popen(
            [*line, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        waits = place / "seed-7/starts"
        wait_for(lambda: waits.exists() and waits.read_text().endswith("\n"))
        return process, int(waits.read_text().split()[0])

    def test_a_killed_sweep_takes_its_runs_along_and_goes_on(self, line, sweep, tmp_path):
        process, run = self.begin(line, tmp_path)
        process.kill()
        process.communicate()
        wait_for(lambda: is_gone(run))
        assert [r["status"] for r in read_records(tmp_path / "sweep/runs.jsonl")] == [
            "done",
            "open",
            "open",
        ]
        (tmp_path / "sweep/go").touch()
        found = sweep([0, 7, 1], keys={RATE: "0.1"})
        assert [run["status"] for run in found.runs] == ["done"] * 3
        assert (starts(tmp_path, "seed-0"), starts(tmp_path, "seed-7")) == (1, 2)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_saves_the_runs_and_tells_how_to_go_on(self, line, tmp_path, number):
        process, run = self.begin(line, tmp_path)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 128 + number
        assert is_gone(run) and (tmp_path / "sweep/seed-7/saved").exists()
        assert not (tmp_path / "sweep/seed-1").exists()
        again = f"jaxmnist sweep --config.{RATE}=0.1 --seeds=0,7,1 --workdir={tmp_path / 'sweep'}"
        assert "stopped, and saved: 1 of 3 runs are done. To go on:" in err
        told = {*err.splitlines()[-1].split()}
        assert told == {*again.split()}
        assert "seed 0  test 60.00%" in out


def is_gone(pid):
    """Whether a process has ended, be it that nobody has asked how."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


class TestPlaces:
    @pytest.fixture
    def devices(self, monkeypatch):
        def devices(words):
            monkeypatch.setattr(processes, "_ASK_DEVICES", f"print({words!r})")

        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        return devices

    def test_one_after_the_other_uses_what_there_is(self, devices):
        assert find_places(jaxmnist.get_config(), 1) == [{}]

    def test_on_cpus_a_run_has_the_devices_that_it_has_alone(self, devices):
        devices("cpu 1")
        assert find_places(jaxmnist.get_config(), 3) == [{}, {}, {}]
        devices("gpu 1")
        assert find_places(jaxmnist.get_config("debug"), 3) == [{}, {}, {}]

    def test_each_run_sees_one_gpu(self, devices, monkeypatch):
        devices("gpu 4")
        seen = [place["CUDA_VISIBLE_DEVICES"] for place in find_places(jaxmnist.get_config(), 3)]
        assert seen == ["0", "1", "2"]
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-3a,7,1")
        seen = [place["CUDA_VISIBLE_DEVICES"] for place in find_places(jaxmnist.get_config(), 2)]
        assert seen == ["5", "GPU-3a"]

    def test_the_runs_are_told_their_gpu(self, sweep, devices, tmp_path):
        devices("gpu 2")
        sweep([0, 1, 2, 3], at_once=2)
        told = [
            (tmp_path / f"sweep/seed-{seed}/starts").read_text().split()[1] for seed in range(4)
        ]
        assert {*told} == {"0", "1"}

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            ("gpu 2", "--at_once=3, but JAX finds 2 GPU"),
            ("tpu 8", "processes of one host do not share TPUs here: leave it at 1"),
        ],
    )
    def test_devices_that_are_not_there_are_refused(self, devices, words, sentence):
        devices(words)
        with pytest.raises(UsageError, match=sentence):
            find_places(jaxmnist.get_config(), 3)

    def test_less_than_one_at_once_is_refused(self):
        with pytest.raises(UsageError, match="--at_once=0 must be at least 1"):
            find_places(jaxmnist.get_config(), 0)

    def test_jax_without_a_device_is_told(self, monkeypatch):
        monkeypatch.setattr(processes, "_ASK_DEVICES", "raise RuntimeError('no such platform')")
        with pytest.raises(UsageError, match=r"JAX can use no device: .*no such platform; correct"):
            find_places(jaxmnist.get_config(), 2)


class TestOutput:
    def test_json_is_all_that_is_printed(self, command):
        code, out, err = command("--seeds=0:2", "--json")
        assert (code, err) == (0, "")
        found = json.loads(out)
        assert found["points"][0]["test"]["mean"] == pytest.approx(0.509)
        assert [run["seed"] for run in found["runs"]] == [0, 1]
        assert found["best"] is None

    def test_quiet_prints_nothing(self, command):
        assert command("--seeds=0:2", "--quiet") == (0, "", "")

    def test_a_table_and_the_files_are_shown(self, command, tmp_path):
        code, out, _ = command("--seeds=0:2", f"--grid={RATE}:0.1,0.2", "--config.seed=4")
        assert code == 0
        assert "to resume:       jaxmnist sweep" in out and "--config.seed=4" in out
        assert "seed 1, learning_rate=0.2  test 71.00%" in out
        assert "best by test accuracy: learning_rate=0.2; chosen on the test examples" in out
        assert f"{tmp_path / 'sweep/table.csv'}" in out


def test_an_own_error_of_the_configuration_names_its_point(sweep):
    with pytest.raises(ConfigError, match=r"^configuration: learning_rate=0\.75: 0\.75 cannot be"):
        sweep(grid={RATE: [0.75, 0.1]})


def test_without_a_workdir_a_fresh_one_is_made(stand_in, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = jaxmnist.sweep(jaxmnist.get_config(), seeds=[0], quiet=True)
    assert found.workdir.parent.name == "runs" and found.workdir.name.endswith("-sweep")
    assert (tmp_path / found.workdir / "runs.jsonl").exists()


def test_python_is_told_how_to_go_on(stand_in, tmp_path, capfd):
    grid = {RATE: [0.1, 0.2]}
    jaxmnist.sweep(jaxmnist.get_config(), tmp_path / "sweep", seeds=range(2), grid=grid)
    text = f"jaxmnist.sweep(config, {str(tmp_path / 'sweep')!r}, seeds=[0, 1], grid="
    assert text + "{'optimizer.learning_rate': ['0.1', '0.2']})" in capfd.readouterr().out
