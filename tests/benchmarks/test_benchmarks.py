"""The benchmark programs: they explain themselves, their arithmetic is right, stale pages fail."""

import dataclasses
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from jaxmnist.config.default import KEYS
from support import small_data

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PROGRAMS = sorted(path.stem for path in BENCHMARKS.glob("*.py") if path.stem != "pictures")


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def program():
    return importlib.import_module


def spread(median):
    return {"median": median, "min": 0.9 * median, "max": 1.1 * median, "iqr": 0.1 * median}


def record(name, rows, **facts):
    environment = {
        "date": "2026-01-31T10:00:00+00:00",
        "commit": "0123456789ab",
        "system": "Linux x86_64",
        "processor": "a processor",
        "cores": 2,
        "versions": {"python": "3.11.7", "jax": "0.10.2", "torch": "not installed"},
        "devices": {"platform": "cpu", "kind": "cpu", "count": 2},
    }
    command = f"python benchmarks/{name}.py"
    head = {"benchmark": name, "command": command, "environment": environment}
    return head | {"rows": rows} | facts


PIPELINE = {"pipeline": "numpy", "batch": 64, "cores": 1.0}
STARTUP = {"process": "import jax", "seconds": {"all": spread(2.0)}}


def write_records(directory, **records):
    for name, lines in records.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (directory / f"{name}.jsonl").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_program_explains_itself_without_importing_jax(name):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['{name}.py', '--help']\n"
        f"sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "try:\n"
        f"    runpy.run_path({str(BENCHMARKS / (name + '.py'))!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert not end.code and 'jax' not in sys.modules, (end.code, 'jax' in sys.modules)\n"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert f"python benchmarks/{name}.py" in run.stdout
    assert "--records" in run.stdout


def test_gpu_script_names_only_programs_that_there_are():
    script = (BENCHMARKS / "gpu.sh").read_text(encoding="utf-8")
    named = re.findall(r"^ *measure (\w+)", script, re.MULTILINE)
    assert set(named) <= set(PROGRAMS)
    assert {"throughput", "roofline", "time_to_accuracy"} <= set(named)
    assert subprocess.run(["bash", "-n", str(BENCHMARKS / "gpu.sh")], check=False).returncode == 0


def test_spread_is_that_of_all_rounds(program):
    found = program("measure").spread([5.0, 1.0, 2.0, 3.0, 4.0])
    assert found == {"median": 3.0, "min": 1.0, "max": 5.0, "iqr": 2.0}
    assert program("measure").spread([7.0]) == {"median": 7.0, "min": 7.0, "max": 7.0, "iqr": 0.0}


def test_ratios_are_taken_round_by_round(program):
    # The machine halves its speed in the second round; the ratio does not notice.
    assert program("measure").ratios([20.0, 10.0], [10.0, 5.0])["iqr"] == 0.0
    with pytest.raises(ValueError, match="zip"):
        program("measure").ratios([1.0], [1.0, 2.0])


def test_every_second_round_goes_the_other_way(program):
    order = []
    candidates = {name: lambda name=name: order.append(name) or len(order) for name in "abc"}
    found = program("measure").interleave(candidates, rounds=3)
    assert "".join(order) == "abccbaabc"
    assert found == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}


def test_a_sample_tells_rate_and_cores(program):
    sample = program("measure").Sample(images=600, seconds=2.0, cpu_seconds=3.0)
    assert (sample.rate, sample.cores) == (300.0, 1.5)
    row = program("measure").row({"batch": 64}, [sample, dataclasses.replace(sample, images=400)])
    assert row["batch"] == 64
    assert row["images_per_second"]["median"] == 250.0
    assert row["rounds"] == [300.0, 200.0]


def test_the_command_of_a_record_leaves_out_where_it_went(program):
    line = program("measure.records").command_line
    argv = ["/x/benchmarks/peers.py", "--rounds=5", "--records=/tmp/a", "--only", "blog post"]
    assert line(argv) == "python benchmarks/peers.py --rounds=5 --only 'blog post'"
    assert line(["peers.py", "--records", "/tmp/a", "--rounds=5"]).endswith("peers.py --rounds=5")


def test_the_newest_run_of_a_command_on_a_machine_counts(program):
    old, new, other = (record("startup", [number]) for number in range(3))
    other["environment"] = other["environment"] | {"processor": "another"}
    assert program("measure").latest([old, other, new]) == [other, new]


def test_the_digest_tells_every_change_of_the_records(program, tmp_path):
    digest = program("measure").digest
    write_records(tmp_path, startup=[record("startup", [STARTUP])])
    first = digest(tmp_path)
    (tmp_path / "startup.jsonl").rename(tmp_path / "peers.jsonl")
    second = digest(tmp_path)
    with (tmp_path / "peers.jsonl").open("a") as file:
        file.write("\n")
    assert len({first, second, digest(tmp_path)}) == 3
    assert digest(tmp_path) == digest(tmp_path)


def test_an_impossible_utilization_is_refused(program):
    utilization = program("roofline").utilization
    assert utilization(50e9, seconds=1.0, peak=100e9) == 0.5
    with pytest.raises(ValueError, match=r"1\.50 of a ceiling of 1e\+11 FLOP/s.* impossible"):
        utilization(150e9, seconds=1.0, peak=100e9)
    with pytest.raises(ValueError, match="impossible"):
        utilization(0.0, seconds=1.0, peak=100e9)


@pytest.mark.parametrize(("batch", "steps"), [(64, 20), (256, 20), (1024, 5)])
def test_among_the_peers_the_library_makes_the_steps_a_call_that_it_chooses(program, batch, steps):
    ours, line = program("rivals.ours"), program("measure.steps").LINE
    keys = program("measure.steps").JUST_TRAIN | {"batch_size": batch, "model.conv": "winograd"}
    assert ours.steps_per_call(keys, small_data(side=28)) == steps
    # Steps are asked for in multiples of a line's: a call must end there.
    assert line % steps == 0 and line == KEYS["log.every"].default


def test_peers_that_compute_something_else_are_refused(program):
    agreement = program("peers").agreement
    losses = {"one": [2.0, 1.0], "two": [2.0, 1.0005], "bf16": [2.1, 1.2]}
    assert agreement(losses, of_float32=["one", "two"]) == pytest.approx(5e-4)
    with pytest.raises(ValueError, match=r"losses differ by 0\.2, more than 0\.001"):
        agreement(losses, of_float32=["one", "bf16"])


def test_time_to_a_target_takes_the_last_window_in_part(program):
    train = {"examples": 1000, "steps": 100, "compile_seconds": 7.0}
    metrics = [
        {"split": "train", "step": 40, "images_per_second": 100.0, "accuracy": 1.0},
        {"split": "test", "step": 30, "accuracy": 0.98},
        {"split": "test", "step": 60, "accuracy": 0.99},
        {"split": "train", "step": 80, "images_per_second": 50.0, "accuracy": 1.0},
    ]
    evaluated, reached = (getattr(program("time_to_accuracy"), n) for n in ("evaluated", "reached"))
    curve = evaluated(metrics, train)
    # 30 steps of 10 images at 100 a second.
    assert curve[0] == {"images": 300, "seconds": pytest.approx(3.0), "accuracy": 0.98}
    found = reached(curve, train, target=0.99)
    assert found["images"] == 600
    # 40 steps of 10 images at 100 a second, then 20 of the next 40 at 50 a second.
    assert found["seconds"] == pytest.approx(4.0 + 4.0)
    assert found["seconds_with_compile"] == pytest.approx(15.0)
    assert reached(curve, train, target=0.995) is None


def test_the_runs_of_the_best_are_asked_alone_and_together(program, tmp_path):
    import jaxmnist

    keys = {"dataset.name": "support:small_data", "model.name": "support:Tiny", "batch_size": "32"}
    keys |= {"train.steps": "5", "parallel.devices": "1"}
    places, results = [tmp_path / "0", tmp_path / "1"], []
    for place in places:
        config = jaxmnist.config.apply_overrides(
            jaxmnist.get_config(), {**keys, "seed": place.name}
        )
        results.append(jaxmnist.train(config, place, quiet=True).test.accuracy)
    alone, accuracies = program("best").together(places)
    assert alone == pytest.approx(results)
    assert accuracies == {
        "vote": jaxmnist.evaluate(places, vote="majority").accuracy,
        "mean_of_probabilities": jaxmnist.evaluate(places, vote="mean").accuracy,
    }


def test_the_table_of_the_best_tells_one_seed_from_many(program):
    row = {"dataset": "mnist", "seeds": 3, "parameters": 1000, "images": 60000}
    row |= {"accuracy": {"mean": 0.9965, "std": 0.0003, "ci95": 0.00075}, "vote": 0.997}
    row |= {"mean_of_probabilities": 0.9971, "seconds": spread(600), "total_seconds": spread(640)}
    one = row | {"seeds": 1, "accuracy": {"mean": 0.9965, "std": None, "ci95": None}}
    text = program("best").show([row, one])
    assert "99.650 ± 0.030 (95 %: ± 0.075)" in text and " 99.70 |" in text
    assert "99.650 ± – (95 %: ± –)" in text


def test_a_stale_report_fails_its_check(program, tmp_path):
    records, docs = tmp_path / "records", tmp_path / "docs"
    records.mkdir()
    docs.mkdir()
    report = program("report")
    rows = [PIPELINE | {"images_per_second": spread(1234.0), "rounds": [1234.0]}]
    write_records(records, pipeline=[record("pipeline", rows)])

    def check():
        command = [sys.executable, str(BENCHMARKS / "report.py"), "--check"]
        command += [f"--records={records}", f"--docs={docs}"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert check().returncode == 1, "there is no page yet"
    page = report.document(records)
    (docs / "performance.md").write_text(page, encoding="utf-8")
    assert check().returncode == 0
    assert "1,234 (1,111–1,357)" in page
    assert "`python benchmarks/pipeline.py`" in page
    assert program("measure").digest(records) in page
    write_records(records, pipeline=[record("pipeline", rows)] * 2)
    stale = check()
    assert stale.returncode == 1
    assert "performance.md is not what the records say" in stale.stderr


def test_a_picture_of_other_records_is_stale(program, tmp_path):
    report, digest = program("report"), program("measure").digest
    rows = [
        {"scaling": "strong", "size": 64, "batch": 64, "devices": n, "cores": 1.0}
        | {"images_per_second": spread(n), "speedup": spread(n), "efficiency": spread(1)}
        for n in (1, 2)
    ]
    write_records(tmp_path, scaling=[record("scaling", rows)])
    (tmp_path / "performance.md").write_text(report.document(tmp_path), encoding="utf-8")
    (tmp_path / "pictures").mkdir()
    picture = tmp_path / "pictures" / "scaling-cpu.svg"
    for text, faults in (("<svg/>", 1), (f"<svg>{digest(tmp_path)}</svg>", 0)):
        picture.write_text(text)
        found = report.stale(tmp_path, tmp_path)
        assert len(found) == faults
        assert all("scaling-cpu.svg was drawn from other records" in fault for fault in found)


def accuracy_row(curve, *, seeds=2):
    """A row of time_to_accuracy, one run of which has a curve."""
    end = {"accuracy": 0.9931, "seconds": 37.0}
    return {
        "candidate": "default",
        "seeds": seeds,
        "accuracy_mean": 99.31,
        "accuracy_std": 0.032 if seeds > 1 else 0.0,
        "images": 300032,
        "seconds": spread(37.0),
        "compile_seconds": spread(5.0),
        "reached": None,
        "runs": [end | {"curve": curve}, end][:seeds],
    }


def test_the_spread_of_one_seed_is_not_zero_but_unknown(program):
    show = program("time_to_accuracy").show
    assert "99.310 ± 0.032" in show([accuracy_row([])])
    assert "99.310 ± – " in show([accuracy_row([], seeds=1)])


def test_accuracy_is_drawn_as_a_line_a_seed_and_a_point_where_only_the_end_is_known(program):
    curve = [
        {"images": 100, "seconds": 7.0, "accuracy": 0.97},
        {"images": 200, "seconds": 15.0, "accuracy": 0.985},
    ]
    axes = Figure().subplots()
    program("pictures").draw_accuracy(axes, [accuracy_row(curve)])
    line, point = axes.lines
    assert line.get_xydata().tolist() == [[7.0, pytest.approx(3.0)], [15.0, pytest.approx(1.5)]]
    assert point.get_xydata().tolist() == [[37.0, pytest.approx(0.69)]]
    assert axes.get_legend_handles_labels()[1] == ["default (2 seeds)"]


def test_each_picture_stands_under_the_table_of_its_own_record_the_newest_first(program, tmp_path):
    older = record("time_to_accuracy", [accuracy_row([])])
    newer = record("time_to_accuracy", [accuracy_row([])])
    newer["environment"]["processor"] = "another processor"
    write_records(tmp_path, time_to_accuracy=[older, newer])
    page = program("report").document(tmp_path)
    places = [
        page.index(text)
        for text in (
            "2 cores of another processor",
            "another processor](pictures/time_to_accuracy-cpu-1.svg)",
            "2 cores of a processor",
            ", a processor](pictures/time_to_accuracy-cpu.svg)",
        )
    ]
    assert places == sorted(places)


def test_pictures_are_drawn_the_same_twice(program, tmp_path):
    rows = [
        {"candidate": name, "batch": batch, "images_per_second": spread(batch)}
        for name in ("jaxmnist", "PyTorch fp32")
        for batch in (64, 256)
    ]
    drawn = program("pictures").pictures({"peers": [record("peers", rows)]})
    ((name, (_, _, draw)),) = drawn.items()
    assert name == "peers-cpu.svg"
    texts = []
    for path in (tmp_path / "one.svg", tmp_path / "two.svg"):
        draw(path, "the digest")
        texts.append(path.read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    assert "the digest" in texts[0]


def test_a_worker_that_fails_says_why(program, tmp_path, monkeypatch):
    (tmp_path / "echo.py").write_text(
        "from measure.workers import serve\n"
        "def answer(request):\n"
        "    print('not a reply')\n"
        "    return {'half': request['value'] / 2, 'inverse': 1 / request['value']}\n"
        "serve(answer)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    workers = program("measure.workers")
    worker = workers.Worker("echo")
    try:
        assert worker.ask(value=4) == {"half": 2.0, "inverse": 0.25}
        with pytest.raises(workers.WorkerError, match="ZeroDivisionError: division by zero"):
            worker.ask(value=0)
        with pytest.raises(workers.WorkerError, match="echo ended with code 0"):
            worker.ask(value=1)
    finally:
        worker.close()


def test_turns_alternate_and_each_turn_counts_its_calls(program, monkeypatch):
    import numpy as np

    steps = program("measure.steps")
    made = []

    class Watched:
        mesh = None

        @staticmethod
        def step(state, batch):
            made.append("bare")
            return state, batch

    turn = steps.Alternation(calls=3, warm_up=2)

    def beside(watch, state, batch):
        return steps.BareStep(watch.step, state, batch, 0, 1, 0.0)

    monkeypatch.setattr(steps.BareStep, "beside", beside)
    for _ in range(2 + 3 * 2 + 1):
        turn.before(Watched, np.zeros(1), np.zeros(1))
        made.append("loop")
    bare = ["bare"] * 3
    assert made == ["loop"] * 2 + bare + ["loop"] * 3 + bare + ["loop"] * 3 + bare + ["loop"]
    assert (len(turn.bare), len(turn.loop)) == (3, 2)
