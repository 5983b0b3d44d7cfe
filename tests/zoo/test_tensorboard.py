"""What TensorBoard shows of a run: nothing is lost by a kill, nothing is there twice."""

import dataclasses
import io

import grain
import jax
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

import jaxmnist
from jaxmnist.errors import ConfigError
from jaxmnist.metrics import Evaluation
from jaxmnist.runs.setup import prepare
from jaxmnist.workdir import Workdir
from jaxmnist.zoo.tensorboard import TensorBoardWriter, write_mistakes
from proofs.resuming import CrashError, crash_at, scalars
from support import Tiny, small_config, small_data

KEYS = {"train__steps": 12, "eval__every": 4, "checkpoint__every": 4, "parallel__devices": 2}


def record(step, split="train", **values):
    return {"split": split, "step": step, "epoch": step / 7, "loss": 1 / step} | values


def train(path, **keys):
    config = small_config(**KEYS | keys)
    return jaxmnist.train(config, path, dataset=small_data(), model=Tiny(), quiet=True)


def shown(workdir):
    """Everything that TensorBoard has read of a run."""
    guidance = {"images": 0, "scalars": 0}
    events = EventAccumulator(str(workdir / "tensorboard"), size_guidance=guidance)
    return events.Reload()


def pictures(workdir):
    """Steps of the images by name."""
    events = shown(workdir)
    return {tag: [e.step for e in events.Images(tag)] for tag in events.Tags()["images"]}


@pytest.fixture(scope="module")
def setup():
    return prepare(small_config(**KEYS), dataset=small_data(), model=Tiny())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    train(path, augment__shift=2, optimizer__weight_decay=0.125)
    return path


class TestScalars:
    def test_events_are_there_for_others_once_written(self, setup, tmp_path):
        writer = TensorBoardWriter(setup, Workdir(tmp_path), first_step=1)
        for step in range(1, 40):
            writer.write(record(step))
            assert [s for s, _ in scalars(tmp_path)["train/loss"]] == list(range(1, step + 1))
        assert scalars(tmp_path).keys() == {"train/loss", "train/epoch"}
        writer.close()

    def test_a_resumed_run_replaces_the_steps_after_its_checkpoint(self, setup, tmp_path):
        for first, last in ((1, 8), (4, 6), (6, 9)):
            writer = TensorBoardWriter(setup, Workdir(tmp_path), first_step=first)
            for step in range(first, last + 1):
                writer.write({"split": "train", "step": step, "loss": first + step / 16})
            writer.close()
        started = [1, 1, 1, 4, 4, 6, 6, 6, 6]
        expected = [(step, first + step / 16) for step, first in enumerate(started, start=1)]
        assert scalars(tmp_path)["train/loss"] == expected
        assert len(list((tmp_path / "tensorboard").iterdir())) == 3

    def test_an_event_that_was_cut_off_hides_nothing_else(self, setup, tmp_path):
        writer = TensorBoardWriter(setup, Workdir(tmp_path), first_step=1)
        for step in (1, 2, 3):
            writer.write({"split": "test", "step": step, "loss": float(step)})
        writer.close()
        (path,) = (tmp_path / "tensorboard").iterdir()
        path.write_bytes(path.read_bytes()[:-5])
        writer = TensorBoardWriter(setup, Workdir(tmp_path), first_step=3)
        writer.write({"split": "test", "step": 3, "loss": 30.0})
        writer.close()
        assert scalars(tmp_path)["test/loss"] == [(1, 1.0), (2, 2.0), (3, 30.0)]


class TestImages:
    def test_each_evaluation_has_a_confusion_matrix(self, finished):
        found = pictures(finished)
        assert found == {"augmentation": [0], "test/confusion": [4, 8, 12]}

    def test_what_augmentation_does_is_shown_beside_the_examples(self, finished):
        (event,) = shown(finished).Images("augmentation")
        sheet = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
        assert sheet.shape[0] == 8 * (8 * 10 + 2)
        first = sheet[: 8 * 10 : 10, : 8 * 10 : 10, 0]
        assert (first == small_data().train.images[0, ..., 0]).all()
        others = [sheet[:80:10, x : x + 80 : 10, 0] for x in range(86, sheet.shape[1], 86)]
        assert len(others) == 5
        assert any((other != first).any() for other in others)

    def test_a_run_that_broke_off_repeats_none_and_has_those_of_an_unbroken_one(self, tmp_path):
        train(tmp_path / "whole")
        for step in (5, 8, 11):
            with crash_at(step), pytest.raises(CrashError):
                train(tmp_path / "broken", log__every=1)
        train(tmp_path / "broken", log__every=1)
        assert pictures(tmp_path / "broken") == pictures(tmp_path / "whole")
        assert [s for s, _ in scalars(tmp_path / "broken")["train/loss"]] == list(range(1, 13))

    def test_a_result_that_is_made_again_repeats_none(self, tmp_path):
        train(tmp_path)
        before = pictures(tmp_path)
        (tmp_path / "result.json").unlink()
        train(tmp_path)
        assert pictures(tmp_path) == before

    def test_with_validation_the_test_split_has_one_matrix_at_the_end(self, tmp_path):
        result = train(tmp_path, dataset__validation=101)
        found = pictures(tmp_path)
        assert found == {"validation/confusion": [4, 8, 12], "test/confusion": [12]}
        assert result.best is not None

    def test_a_finished_run_that_is_looked_at_again_gets_no_file(self, tmp_path):
        train(tmp_path)
        before = sorted(p.name for p in (tmp_path / "tensorboard").iterdir())
        train(tmp_path)
        assert sorted(p.name for p in (tmp_path / "tensorboard").iterdir()) == before

    def test_mistakes_are_shown_where_there_are_event_files(self, tmp_path):
        images = small_data().test.images[:3]
        write_mistakes(tmp_path, 9, images, ["a", "b", "c"])
        assert not (tmp_path / "tensorboard").exists()
        (tmp_path / "tensorboard").mkdir()
        for _ in range(2):
            write_mistakes(tmp_path, 9, images, ["a", "b", "c"])
        write_mistakes(tmp_path, 10, images[:0], [])
        assert pictures(tmp_path) == {"mistakes": [9]}


class TestHyperParameters:
    def test_they_name_the_configuration_and_where_the_results_are(self, finished):
        content = shown(finished).PluginTagToContent("hparams")
        parse = plugin_data_pb2.HParamsPluginData.FromString
        start = parse(content["_hparams_/session_start_info"]).session_start_info.hparams
        assert start["optimizer.weight_decay"].number_value == 0.125
        assert start["optimizer.kwargs.momentum"].number_value == 0.9
        assert start["optimizer.name"].string_value == "sgd"
        assert start["parallel.deterministic"].bool_value is False
        assert start["train.epochs"].string_value == "None"
        experiment = parse(content["_hparams_/experiment"]).experiment
        tags = {info.name.tag for info in experiment.metric_infos}
        assert tags == {f"{s}/{n}" for s in ("train", "test") for n in ("loss", "accuracy")}
        assert tags <= scalars(finished).keys()


class TestTheConfiguration:
    def test_no_writer_leaves_the_metrics_alone(self, tmp_path):
        train(tmp_path, log__writers=None)
        assert not (tmp_path / "tensorboard").exists()
        assert (tmp_path / "metrics.jsonl").read_text()

    def test_a_writer_of_ones_own_gets_every_record_and_its_moments(self, tmp_path, monkeypatch):
        (tmp_path / "own.py").write_text(OWN)
        monkeypatch.syspath_prepend(tmp_path)
        result = train(tmp_path / "run", log__writers="own:Mine")
        assert (tmp_path / "run" / "mine.txt").read_text().split() == [
            *(f"{r['split']}-{r['step']}" for r in result.history[:2]),
            "evaluated-4",
            *(f"{r['split']}-{r['step']}" for r in result.history[2:4]),
            "evaluated-8",
            *(f"{r['split']}-{r['step']}" for r in result.history[4:6]),
            "evaluated-12",
            f"{result.history[6]['split']}-12",
            "closed",
        ]
        assert not (tmp_path / "run" / "tensorboard").exists()

    def test_a_writer_that_cannot_be_is_told_before_anything_is_made(self, tmp_path):
        with pytest.raises(
            ConfigError, match=r"log.writers='wandb' is not one of tensorboard: choose one"
        ):
            train(tmp_path / "run", log__writers="wandb")
        assert not (tmp_path / "run").exists()


OWN = """
from jaxmnist.callbacks import Callback

class Mine(Callback):
    def __init__(self, setup, place, *, first_step):
        assert first_step == 1
        self.file = open(place.path / "mine.txt", "w")

    def write(self, record):
        print(f"{record['split']}-{record['step']}", file=self.file)

    def on_evaluation(self, step, split, result, state):
        print(f"evaluated-{step}", file=self.file)

    def close(self):
        print("closed", file=self.file)
        self.file.close()
"""


def test_the_augmentation_of_float_images_is_shown_too(tmp_path):
    split = small_data().train
    source = grain.MapDataset.range(40).map(
        lambda i: {"image": split.images[i].astype(np.float32) / 255, "label": int(split.labels[i])}
    )
    test = Evaluation(0.5, 0.5, 2, [0.5, None], [[1, 1], [0, 0]])
    setup = prepare(small_config(augment__shift=1), dataset=small_data(), model=Tiny())
    setup = dataclasses.replace(setup, data=dataclasses.replace(setup.data, train=source))
    writer = TensorBoardWriter(setup, Workdir(tmp_path), first_step=1)
    writer.on_start(tmp_path, 0, 20)
    writer.on_evaluation(1, "test", test, jax.numpy.zeros(()))
    writer.close()
    assert pictures(tmp_path) == {"augmentation": [0], "test/confusion": [1]}
