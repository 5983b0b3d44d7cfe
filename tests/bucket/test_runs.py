"""Runs in a bucket: nothing is lost, whichever machine goes on, and two never write at once."""

import json
import os
import re
import signal
import time

import jax
import pytest

import jaxmnist
from bucket.server import BUCKET
from distributed.data import write_data
from distributed.jobs import config, job, started
from jaxmnist.bucket import mirror as mirrors
from jaxmnist.checkpoint import MANIFEST
from jaxmnist.cli.main import main
from jaxmnist.errors import WorkdirError
from jaxmnist.testing import run_processes
from support import Tiny, small_config, small_data

ADDRESS, PATH = f"gs://{BUCKET}/runs/one", "runs/one"
# A killed run is waited for on another machine: made short.
SOON = "import jaxmnist.bucket.lease as lease; lease.LEASE_S = 1.0"
# Right after its first checkpoint was uploaded, and before anything else is.
KILLED = """
import os
from jaxmnist.bucket.sync import Sync
push = Sync._push_checkpoint
def push_one(self, step):
    push(self, step)
    if int(step) in self.steps:
        os.kill(os.getpid(), 9)
Sync._push_checkpoint = push_one
"""
MANY = 100_000


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "digits")


@pytest.fixture(scope="module")
def run(data):
    """The command of a run of one process."""
    return lambda *extra, **changes: [
        "train",
        f"--workdir={ADDRESS}",
        "--noreport",
        *config(dataset__dir=data, **changes),
        *extra,
    ]


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    """The result of the same run in a directory of this machine."""
    folder = tmp_path_factory.mktemp("unbroken")
    settings = config(dataset__dir=data, train__steps=60)
    command = ["train", f"--workdir={folder}/run", "--noreport", *settings]
    with started(folder, command) as (process,):
        return process.result(folder / "run")


def result(store):
    return json.loads(store.files(PATH)["result.json"])


def records(store):
    lines = [json.loads(line) for line in store.files(PATH)["metrics.jsonl"].splitlines()]
    return [(line["split"], line["step"]) for line in lines]


def steps(store):
    """Steps of the checkpoints that are whole in the bucket."""
    names = list(store.files(PATH))
    return {int(name.split("/")[1]) for name in names if name.endswith(f"/{MANIFEST}")}


def await_that(condition, *, timeout_s=60):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"{condition} did not come"
        time.sleep(0.02)


def train(callbacks=(), **changes):
    parts = {"dataset": small_data(), "model": Tiny(), "callbacks": callbacks}
    return jaxmnist.train(small_config(**changes), ADDRESS, quiet=True, **parts)


class OnStep(jaxmnist.callbacks.Callback):
    """Does something after a step."""

    def __init__(self, step, action):
        self._step, self._action = step, action

    def on_step(self, step, state):
        if step == self._step:
            jax.block_until_ready(state)
            self._action()


@pytest.fixture
def in_a_hurry(monkeypatch):
    """All that is waited for, made short."""
    monkeypatch.setattr(mirrors, "LAST_UPLOAD_WITHIN_S", 0.5)
    monkeypatch.setattr(mirrors, "UPLOAD_EVERY_S", 0.2)
    monkeypatch.setattr("jaxmnist.bucket.lease.LEASE_S", 1.0)
    monkeypatch.setattr("jaxmnist.bucket.store.RETRY_S", 0.1)


@pytest.fixture
def another_machine(monkeypatch, tmp_path):
    """What makes the mirrors of this one unknown."""
    return lambda: monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))


class TestAtTheStart:
    """Before data are read and anything is compiled; each in a sentence with its repair."""

    def test_no_such_bucket(self, store, capfd):
        assert main(["train", "--workdir=gs://absent/run", "--config=debug"]) == 1
        says = "there is no bucket absent: create it .*buckets create gs://absent.*or correct"
        assert re.search(
            f"jaxmnist: work directory gs://absent/run: {says}", capfd.readouterr().err
        )

    def test_no_right_to_write(self, store, capfd):
        store.forbidden = True
        assert main(["train", f"--workdir={ADDRESS}", "--config=debug"]) == 1
        says = f"is forbidden to these credentials .*role Storage Object User on gs://{BUCKET}"
        assert re.search(f"jaxmnist: work directory {ADDRESS} {says}", capfd.readouterr().err)

    def test_no_credentials(self, monkeypatch, tmp_path, capfd):
        monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
        assert main(["eval", f"--workdir={ADDRESS}"]) == 1
        says = "there are no Google credentials .* run `gcloud auth application-default login`"
        assert re.search(f"jaxmnist: work directory {ADDRESS}: {says}", capfd.readouterr().err)

    def test_nothing_answers(self, monkeypatch, capfd, in_a_hurry):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
        assert main(["checkpoints", f"--workdir={ADDRESS}"]) == 1
        assert re.search(
            f"{ADDRESS} cannot be reached .*look at the network", capfd.readouterr().err
        )

    def test_something_else_lies_there_and_is_left_alone(self, store, capfd):
        store.write(f"{PATH}/thesis.txt", b"dear", {})
        store.writes.clear()
        assert main(["train", f"--workdir={ADDRESS}", "--config=debug"]) == 1
        assert "is not empty and holds no config.json" in capfd.readouterr().err
        assert store.writes == []


class TestOneProcess:
    def test_everything_is_there_at_the_end_and_is_read_elsewhere(
        self, store, another_machine, capfd
    ):
        found = train(log__writers="tensorboard")
        files = store.files(PATH)
        assert {"config.json", "metrics.jsonl", "result.json"} <= {*files}
        assert any(name.startswith("tensorboard/events") for name in files)
        assert 20 in steps(store) and result(store)["params"]["sha256"] == found.params_sha256
        assert f"workdir='{ADDRESS}'" in result(store)["command"]
        another_machine()
        parts = {"dataset": small_data(), "model": Tiny()}
        assert jaxmnist.evaluate(ADDRESS, **parts).to_dict() == found.test.to_dict()
        assert main(["checkpoints", f"--workdir={ADDRESS}"]) == 0
        assert "20" in capfd.readouterr().out
        assert train().params_sha256 == found.params_sha256

    def test_another_configuration_is_refused_by_the_name_of_the_bucket(self, store):
        train(train__steps=2)
        before = store.files(PATH)
        with pytest.raises(WorkdirError, match=f"(?s)directory {ADDRESS} holds a run.*seed"):
            train(train__steps=2, seed=1)
        assert store.files(PATH) == before

    def test_a_connection_that_comes_back_has_cost_nothing(self, store, in_a_hurry, capfd):
        def lost_for_a_while():
            store.down = True
            await_that(lambda: told.append(capfd.readouterr().err) or "cannot be" in "".join(told))
            store.down = False

        told = []
        train(callbacks=[OnStep(10, lost_for_a_while)])
        said = "".join([*told, capfd.readouterr().err])
        assert (
            len(re.findall("cannot be reached .* the run goes on, and what it writes is", said))
            == 1
        )
        assert said.count(f"{ADDRESS} is reached again, and up to date") == 1
        assert 20 in steps(store) and "result.json" in store.files(PATH)

    def test_one_that_does_not_is_told_and_the_same_command_uploads_the_rest(
        self, store, in_a_hurry, tmp_path
    ):
        def lost():
            store.down = True

        kept = "what was not uploaded is kept in .*, and the same command on this machine uploads"
        with pytest.raises(WorkdirError, match=f"{ADDRESS} cannot be reached.*{kept}"):
            train(callbacks=[OnStep(10, lost)])
        assert "result.json" not in store.files(PATH)
        store.down = False
        found = train()
        assert 20 in steps(store) and result(store)["params"]["sha256"] == found.params_sha256

    def test_a_second_run_is_refused_while_the_first_lives(
        self, store, in_a_hurry, another_machine
    ):
        def second():
            another_machine()
            with pytest.raises(
                WorkdirError, match=rf"is in use by process {os.getpid()} on .*wait"
            ):
                train()
            tried.append(True)

        tried = []
        train(callbacks=[OnStep(10, second)])
        assert tried and "result.json" in store.files(PATH)

    def test_a_run_that_was_not_heard_of_ends_when_another_has_taken_over(
        self, store, in_a_hurry, capfd
    ):
        def taken_over():
            lock = f"{PATH}/.config.json.lock"
            holder = json.loads(store.objects[lock].data) | {"token": "x", "pid": 4711}
            store.write(lock, json.dumps(holder).encode(), {})
            time.sleep(1.0)  # a file may be under way
            seen.update(store.files(PATH))

        seen = {}
        with pytest.raises(WorkdirError, match=r"in use by process 4711 .*has taken it over from"):
            train(callbacks=[OnStep(10, taken_over)])
        assert store.files(PATH) == seen

    @pytest.mark.slow
    def test_the_commands(self, store, data, run, another_machine, capfd):
        assert main([*run(train__steps=20), "--report"]) == 0
        out = capfd.readouterr().out
        assert re.search(rf"work directory\S* +{ADDRESS}\n", out)
        assert re.search(rf"to resume: +jaxmnist train .* --workdir={ADDRESS}\n", out)
        assert f"report: {ADDRESS}/report.html" in out and f"{ADDRESS}/result.json" in out
        assert "report.html" in store.files(PATH)
        another_machine()
        commands = {"eval": ["--json"], "checkpoints": [], "report": [], "export": []}
        for command, flags in commands.items():
            assert main([command, f"--workdir={ADDRESS}", *flags]) == 0, command
        out = capfd.readouterr().out
        assert f'"accuracy": {result(store)["test"]["accuracy"]}' in out
        assert f"{ADDRESS}/model.stablehlo" in out and f"{ADDRESS}/report.html" in out
        assert "model.stablehlo" in store.files(PATH)


class TestKilled:
    @pytest.mark.slow
    def test_begun_again_on_another_machine_it_ends_as_if_unbroken(
        self, store, run, unbroken, tmp_path
    ):
        command, cache = run(train__steps=60), {"XDG_CACHE_HOME": str(tmp_path / "a")}
        with started(tmp_path, command, before=KILLED, **cache) as (process,):
            assert process.ends(90) == -signal.SIGKILL
        (first,) = steps(store)
        assert first < 60
        cache = {"XDG_CACHE_HOME": str(tmp_path / "b")}
        with started(tmp_path, command, before=SOON, **cache) as (process,):
            assert process.ends(90) == 0, process.text
        assert f"resumed at step {first} of 60" in process.text
        assert "waiting 1 s for a sign of life" in process.text
        assert_as_unbroken(store, unbroken)

    @pytest.mark.slow
    def test_begun_again_here_it_does_not_wait(self, store, run, unbroken, tmp_path):
        command = run(train__steps=60)
        with started(tmp_path, command, before=KILLED) as (process,):
            assert process.ends(90) == -signal.SIGKILL
        with started(tmp_path, command) as (process,):
            assert process.ends(90) == 0, process.text
        assert "waiting" not in process.text and "resumed at step" in process.text
        assert_as_unbroken(store, unbroken)

    @pytest.mark.slow
    def test_sigterm_saves_into_the_bucket(self, store, run, tmp_path):
        with started(tmp_path, run(train__steps=MANY)) as (process,):
            process.wait_for("step     20/")
            process.popen.send_signal(signal.SIGTERM)
            assert process.ends(30) == 143
        step = int(re.search(r"stopped at step ([\d,]+)", process.text)[1].replace(",", ""))
        assert step in steps(store) and f"--workdir={ADDRESS}" in process.text


def assert_as_unbroken(store, unbroken):
    assert result(store)["params"] == unbroken["params"]
    assert result(store)["test"] == unbroken["test"]
    assert len(records(store)) == len({*records(store)})


def train_here(folder, settings):
    """What each process of a job runs; each has a machine of its own."""
    os.environ["XDG_CACHE_HOME"] = f"{folder}/{jax.process_index()}"
    found = train(**settings)
    return {"params": found.params_sha256, "best": found.best and found.best.step}


class TestJobs:
    @pytest.mark.slow
    def test_two_processes_that_share_nothing_train_into_one_bucket(self, store, tmp_path):
        settings = {"dataset.validation": 100, "eval.every": 4, "checkpoint.keep": 2}
        both = run_processes(train_here, devices=1, args=[str(tmp_path), settings])
        assert both[0] == both[1] and result(store)["params"]["sha256"] == both[0]["params"]
        assert both[0]["best"] in steps(store)
        # They read of each other by way of the bucket alone.
        assert not list((tmp_path / "1").rglob("*.json"))
        again = run_processes(train_here, devices=1, args=[str(tmp_path / "new"), settings])
        assert again[0] == again[1] == both[0]

    @pytest.mark.slow
    def test_a_job_that_was_killed_resumes_elsewhere(self, store, data, unbroken, tmp_path):
        def commands():
            return job(ADDRESS, "--noreport", dataset__dir=data, train__steps=60)

        cache = {"XDG_CACHE_HOME": str(tmp_path / "a")}
        with started(tmp_path, *commands(), before=KILLED, **cache) as (first, second):
            assert first.ends(90) == -signal.SIGKILL
            second.ends(30)
        cache = {"XDG_CACHE_HOME": str(tmp_path / "b")}
        with started(tmp_path, *commands(), before=SOON, **cache) as (first, second):
            assert (first.ends(120), second.ends(10)) == (0, 0), first.text + second.text
        assert "resumed at step" in first.text
        assert result(store)["test"]["accuracy"] == unbroken["test"]["accuracy"]
        assert len(records(store)) == len({*records(store)})

    @pytest.mark.slow
    def test_processes_of_different_buckets_end_with_the_reason(self, store, data, tmp_path):
        first, second = job(ADDRESS, dataset__dir=data)
        second[1] = f"--workdir={ADDRESS}-other"
        with started(tmp_path, first, second) as processes:
            assert [process.ends(60) for process in processes] == [1, 1]
        assert all("the bucket of --workdir is" in process.text for process in processes)
        assert store.objects == {}

    @pytest.mark.slow
    def test_a_bucket_that_does_not_exist_ends_all_with_the_reason(self, store, data, tmp_path):
        with started(tmp_path, *job("gs://absent/run", dataset__dir=data)) as processes:
            assert [process.ends(60) for process in processes] == [1, 1]
        assert all("there is no bucket absent: create it" in p.text for p in processes)


@pytest.mark.slow
def test_the_launcher_takes_a_bucket(store, data, tmp_path):
    settings = config(dataset__dir=data, train__steps=20)
    with started(tmp_path, ["launch", "local", f"--workdir={ADDRESS}", *settings]) as (process,):
        assert process.ends(90) == 0, process.text
    assert {"result.json", "report.html"} <= {*store.files(PATH)}
    assert f"report: {ADDRESS}/report.html" in process.text
