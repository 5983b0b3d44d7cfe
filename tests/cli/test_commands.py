"""The commands from end to end, on a data set of 997 train and 61 test images in 7 classes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import jaxmnist
from jaxmnist.config import from_dict, get_config, to_dict
from jaxmnist.writers import read_records

from .conftest import CLASSES, TEST, TRAIN, digest

BATCH = 64


def result_of(workdir: Path) -> dict:
    return json.loads((workdir / "result.json").read_text())


class TestTrain:
    def test_a_directory_of_idx_files_trains_without_code(self, run, data, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        done = run("train", f"--config.dataset.dir={data}", "--config.train.steps=3")
        assert (done.code, done.err) == (0, "")
        (workdir,) = Path("runs").iterdir()
        assert workdir.name.endswith("-digits")
        result = result_of(workdir)
        assert result["test"]["count"] == TEST
        assert result["params"]["count"] == 320 + 18496 + (5 * 6 * 64 + 1) * 256 + 257 * CLASSES
        lines = done.out.splitlines()
        assert "data set:        digits: 997 train, 61 test; 20×24×1, 7 classes" in lines
        resume = f"jaxmnist train --config.dataset.dir={data} --config.train.steps=3 --workdir="
        assert f"to resume:       {resume}{workdir}" in lines
        assert any(line.startswith("step      3/3") and "test" in line for line in lines)
        assert result["params"]["sha256"] in done.out
        assert str(workdir / "result.json") in done.out

    def test_the_result_has_every_part_that_the_table_shows(self, finished):
        result = result_of(finished)
        parts = {"test", "train", "params", "devices", "versions", "memory", "command"}
        assert set(result) == parts
        test, train = result["test"], result["train"]
        confusion = np.array(test["confusion"])
        assert confusion.shape == (CLASSES, CLASSES)
        assert confusion.sum() == test["count"] == TEST
        assert test["accuracy"] == np.trace(confusion) / TEST > 0.5
        assert test["per_class"] == (np.diag(confusion) / confusion.sum(1)).tolist()
        assert 0 < test["loss"] < np.log(CLASSES)
        assert train["steps"] == 20
        assert train["examples"] == 20 * BATCH
        assert train["epochs"] == 20 * BATCH / TRAIN
        assert train["images_per_second"] == pytest.approx(train["examples"] / train["seconds"])
        parts = ["seconds", *(f"{p}_seconds" for p in ("compile", "eval", "checkpoint"))]
        assert all(train[part] > 0 for part in parts)
        assert train["total_seconds"] == pytest.approx(sum(train[part] for part in parts))
        assert set(result["params"]) == {"count", "sha256", "ema_sha256"}
        assert len(result["params"]["sha256"]) == 64
        assert result["params"]["ema_sha256"] is None
        assert result["devices"] == {
            "platform": "cpu",
            "kind": "cpu",
            "count": 2,
            "processes": 1,
        }
        assert result["versions"]["jaxmnist"] == jaxmnist.__version__
        assert {"python", "system", "jax", "flax", "optax", "grain"} <= set(result["versions"])
        assert result["memory"]["host_peak_bytes"] > 1e8
        assert result["command"].startswith("jaxmnist train --quiet --config.dataset.dir=")
        assert result["command"].endswith(f" --workdir={finished}")

    def test_the_metrics_have_a_line_for_each_thing_that_was_due(self, finished):
        records = read_records(finished / "metrics.jsonl")
        # The first step has a line of its own, so that a run soon shows that it goes.
        due = [
            ("train", 1),
            ("train", 5),
            ("train", 10),
            ("test", 10),
            ("train", 15),
            ("train", 20),
            ("test", 20),
        ]
        assert [(r["split"], r["step"]) for r in records] == due
        common = {"split", "step", "epoch", "loss", "accuracy"}
        for record in records:
            extra = {"learning_rate", "images_per_second"} if record["split"] == "train" else set()
            assert set(record) == common | extra
            assert record["epoch"] == record["step"] * BATCH / TRAIN
            assert 0 <= record["accuracy"] <= 1
        losses = [r["loss"] for r in records if r["split"] == "train"]
        assert losses[-1] < losses[0]
        test = result_of(finished)["test"]
        assert [records[-1][k] for k in ("loss", "accuracy")] == [test["loss"], test["accuracy"]]

    def test_the_configuration_is_kept_as_the_command_config_prints_it(self, run, finished, flags):
        printed = json.loads(run("config", "--json", *flags).out)
        assert json.loads((finished / "config.json").read_text()) == printed

    def test_a_finished_work_directory_prints_its_table_and_computes_nothing(
        self, run, flags, workdir
    ):
        kept = [workdir / name for name in ("result.json", "metrics.jsonl", "checkpoints")]
        before = digest(*kept)
        done = run("train", *flags, f"--workdir={workdir}")
        assert (done.code, done.err) == (0, "")
        assert result_of(workdir)["params"]["sha256"] in done.out
        assert not any(line.startswith("step ") for line in done.out.splitlines())
        assert digest(*kept) == before

    @pytest.mark.parametrize("content", [None, '{"test": {"accu'])
    def test_a_result_that_is_missing_or_cut_off_is_made_again(self, run, flags, workdir, content):
        expected = result_of(workdir)
        place = workdir / "result.json"
        place.unlink() if content is None else place.write_text(content)
        assert run("train", *flags, f"--workdir={workdir}").code == 0
        for part in ("test", "params", "devices", "versions"):
            assert result_of(workdir)[part] == expected[part]
        assert result_of(workdir)["train"]["steps"] == 20

    def test_what_does_not_decide_the_result_may_change(self, run, flags, workdir):
        changed = ["--config.parallel.devices=1", "--config.log.every=7"]
        assert run("train", *flags, *changed, f"--workdir={workdir}").code == 0

    def test_any_key_may_change_where_that_is_asked_for(self, run, flags, workdir):
        changed = ["--config.optimizer.learning_rate=0.5", "--allow_config_change"]
        assert run("train", *flags, *changed, f"--workdir={workdir}").code == 0
        config = from_dict(json.loads((workdir / "config.json").read_text()))
        assert config.optimizer.learning_rate == 0.5

    def test_quiet_prints_nothing(self, run, flags, workdir):
        done = run("train", *flags, "--quiet", f"--workdir={workdir}")
        assert (done.code, done.out, done.err) == (0, "", "")


class TestReportAfterTraining:
    def test_a_run_leaves_a_report_and_says_where(self, run, flags, tmp_path):
        workdir = tmp_path / "run"
        done = run("train", *flags, f"--workdir={workdir}")
        assert (done.code, done.err) == (0, "")
        assert done.out.splitlines()[-1] == f"report: {workdir / 'report.html'}"
        page = (workdir / "report.html").read_text()
        assert "peak of the process on the host" in page
        assert f"--workdir={workdir}" in page

    def test_a_finished_work_directory_gets_a_report_that_is_missing_and_keeps_one(
        self, run, flags, workdir
    ):
        page = workdir / "report.html"
        page.unlink()
        assert run("train", *flags, f"--workdir={workdir}").code == 0
        page.write_text("mine")
        assert run("train", *flags, f"--workdir={workdir}").code == 0
        assert page.read_text() == "mine"

    def test_a_report_that_fails_does_not_fail_the_run(self, run, flags, workdir):
        (workdir / "report.html").unlink()
        (workdir / "report.html").mkdir()
        done = run("train", *flags, "--quiet", f"--workdir={workdir}")
        assert (done.code, done.out) == (0, "")
        assert done.err.startswith("jaxmnist: the report could not be written: WorkdirError: ")
        again = f"to try again: jaxmnist report --workdir={workdir}\n"
        assert done.err.endswith(again) and "Traceback" not in done.err

    def test_noreport_leaves_none(self, run, flags, workdir):
        (workdir / "report.html").unlink()
        assert run("train", *flags, "--noreport", f"--workdir={workdir}").code == 0
        assert not (workdir / "report.html").exists()

    def test_the_command_writes_it_where_it_is_told(self, run, finished, tmp_path):
        out = tmp_path / "page.html"
        done = run("report", f"--workdir={finished}", f"--out={out}", "--compare", finished / ".")
        assert (done.code, done.out, done.err) == (0, f"{out}\n", "")
        assert "Results side by side" in out.read_text()


class TestEval:
    def test_the_newest_checkpoint_gives_the_result_again(self, run, finished):
        done = run("eval", f"--workdir={finished}", "--json")
        found, expected = json.loads(done.out), result_of(finished)["test"]
        # On all eight devices and not on two, so that the sum of the losses may round otherwise.
        assert found.pop("loss") == pytest.approx(expected.pop("loss"), rel=1e-6)
        assert found == expected

    def test_an_earlier_checkpoint_gives_what_its_line_says(self, run, finished):
        found = json.loads(run("eval", f"--workdir={finished}", "--json", "--step=10").out)
        (line,) = (
            r
            for r in read_records(finished / "metrics.jsonl")
            if (r["split"], r["step"]) == ("test", 10)
        )
        assert found["accuracy"] == line["accuracy"]
        assert found["loss"] == pytest.approx(line["loss"], rel=1e-6)
        assert found != result_of(finished)["test"]

    def test_the_train_split_is_evaluated_whole(self, run, finished):
        found = json.loads(run("eval", f"--workdir={finished}", "--json", "--split=train").out)
        assert found["count"] == TRAIN
        assert [sum(row) for row in found["confusion"]] == [143, 143, 143, 142, 142, 142, 142]

    def test_people_get_a_table_and_nothing_is_written(self, run, finished):
        before = digest(finished)
        lines = run("eval", f"--workdir={finished}").out.splitlines()
        test = result_of(finished)["test"]
        assert lines[0] == f"accuracy {test['accuracy']:.2%} of 61, loss {test['loss']:.4f}"
        # A long path is broken over lines.
        assert f"testof{finished}" in "".join("".join(lines).split())
        assert sum(f"│ {label}     │" in line for label in range(CLASSES) for line in lines) == 7
        assert digest(finished) == before


class TestCheckpoints:
    def test_each_is_listed_with_its_digest_and_metrics(self, run, finished):
        rows = json.loads(run("checkpoints", f"--workdir={finished}", "--json").out)
        assert [row["step"] for row in rows] == [10, 20]
        result = result_of(finished)
        assert rows[-1]["params_sha256"] == result["params"]["sha256"]
        assert rows[0]["params_sha256"] != rows[1]["params_sha256"]
        assert rows[-1]["metrics"]["accuracy"] == result["test"]["accuracy"]
        assert all(row["size_bytes"] > 1000 and row["time"] for row in rows)

    def test_people_get_a_table_with_whole_digests(self, run, finished):
        out = run("checkpoints", f"--workdir={finished}").out
        result = result_of(finished)
        assert result["params"]["sha256"] in out
        assert f"test accuracy {result['test']['accuracy']:.2%}" in out

    def test_a_damaged_one_is_listed_as_such(self, run, workdir):
        manifest = workdir / "checkpoints" / "20" / "manifest.json"
        manifest.write_text(manifest.read_text().replace("params_sha256", "params_sha257"))
        rows = json.loads(run("checkpoints", f"--workdir={workdir}", "--json").out)
        assert "damaged" not in rows[0]
        assert "manifest.json does not match its own digest" in rows[1]["damaged"]
        assert "does not match" in run("checkpoints", f"--workdir={workdir}").out


class TestPredict:
    def test_each_picture_gets_a_line(self, run, finished, tmp_path):
        for label in range(3):
            image = np.full((20, 24), 48, np.uint8)
            image[2 * label + 3] = 168
            Image.fromarray(image).save(tmp_path / f"{label}.png")
        paths = [tmp_path / f"{label}.png" for label in range(3)]
        found = run("predict", f"--workdir={finished}", *paths, "--json").out.splitlines()
        predictions = [json.loads(line) for line in found]
        assert [p["source"] for p in predictions] == [str(path) for path in paths]
        for p in predictions:
            assert len(p["probabilities"]) == CLASSES
            assert p["probability"] == p["probabilities"][p["label"]]
        first = predictions[0]
        line = run("predict", f"--workdir={finished}", paths[0]).out
        assert line == f"{paths[0]}: {first['label']} ({first['probability']:.1%})\n"


class TestExport:
    def test_the_exported_file_predicts_what_the_run_predicts(self, run, finished, tmp_path):
        image = np.full((20, 24), 48, np.uint8)
        image[5] = 168
        Image.fromarray(image).save(tmp_path / "1.png")
        out = tmp_path / "model.stablehlo"
        done = run("export", f"--workdir={finished}", f"--out={out}")
        assert (done.code, done.out, done.err) == (0, f"{out}\n", "")
        lines = [
            run("predict", source, tmp_path / "1.png").out
            for source in (f"--model={out}", f"--workdir={finished}")
        ]
        assert lines[0] == lines[1] != ""

    def test_the_parameters_alone_are_a_safetensors_file(self, run, finished, tmp_path):
        out = tmp_path / "parameters"
        done = run("export", f"--workdir={finished}", "--format=safetensors", f"--out={out}")
        assert done.code == 0
        count = sum(array.size for array in load_file(out).values())
        assert count == result_of(finished)["params"]["count"]


@pytest.fixture(scope="module")
def validated(flags, tmp_path_factory) -> Path:
    """A run with validation examples that keeps one checkpoint beside the best."""
    from jaxmnist.cli.main import main

    workdir = tmp_path_factory.mktemp("runs") / "validated"
    more = [
        "--config.dataset.validation=103",
        "--config.checkpoint.keep=1",
        # So fast that it comes to grief after a while: an early state is the best.
        "--config.schedule.name=piecewise",
        "--config.schedule.kwargs={'at': [10], 'factors': [300.0]}",
    ]
    assert main(["train", *flags, *more, "--quiet", f"--workdir={workdir}"]) == 0
    return workdir


class TestValidation:
    def test_the_best_is_chosen_on_validation_and_looked_at_on_test(self, run, validated):
        records = read_records(validated / "metrics.jsonl")
        assert {r["split"] for r in records} == {"train", "validation"}
        scores = [r for r in records if r["split"] == "validation"]
        assert [r["step"] for r in scores] == [10, 20]
        result = result_of(validated)
        best = result["best"]
        assert best["step"] == 10
        assert best["validation"] == {k: scores[0][k] for k in ("accuracy", "loss")}
        assert best["test"]["count"] == result["test"]["count"] == TEST
        assert best["test"]["accuracy"] > result["test"]["accuracy"]

    def test_the_best_checkpoint_is_kept_beside_the_newest(self, run, validated):
        rows = json.loads(run("checkpoints", f"--workdir={validated}", "--json").out)
        assert [row["step"] for row in rows] == [10, 20]

    def test_the_examples_held_out_can_be_evaluated_again(self, run, validated):
        arguments = [f"--workdir={validated}", "--split=validation", "--step=10", "--json"]
        found = json.loads(run("eval", *arguments).out)
        assert found["count"] == 103
        assert found["accuracy"] == result_of(validated)["best"]["validation"]["accuracy"]

    def test_the_table_shows_the_best(self, run, validated, flags, tmp_path):
        copy = shutil.copytree(validated, tmp_path / "copy")
        config = json.loads((copy / "config.json").read_text())
        more = [f"--config.schedule.{k}={v}" for k, v in config["schedule"].items()]
        more += ["--config.dataset.validation=103"]
        out = run("train", *flags, *more, f"--workdir={copy}").out
        assert "best by validation" in out


class TestConfigAndInfo:
    def test_the_printed_configuration_is_python(self, run):
        given = ["--config=seed", "--config.optimizer.kwargs.b1=0.8", "--config.dataset.dir=it's"]
        text = run("config", *given).out
        config = get_config()
        exec(text, {"config": config})
        assert config.optimizer.kwargs.b1 == 0.8
        assert to_dict(config) == json.loads(run("config", *given, "--json").out)
        assert "config.batch_size = 64  # changed; the default is 256" in text.splitlines()

    def test_info_tells_versions_devices_and_memory(self, run):
        found = json.loads(run("info", "--json").out)
        assert found["version"]["jaxmnist"] == jaxmnist.__version__
        assert list(found["device"]) == [str(i) for i in range(8)]
        assert found["host"]["usable cores"] >= 1
        assert "host memory" in run("info").out

    def test_the_module_is_the_command(self):
        command = [sys.executable, "-m", "jaxmnist", "--version"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == f"jaxmnist {jaxmnist.__version__}\n"
