"""Pictures are predicted as evaluation would, in one call, or all faults are told at once."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jaxmnist
from jaxmnist import datasets
from jaxmnist.errors import DataError
from jaxmnist.runs.evaluate import load_run
from jaxmnist.runs.predict import Prediction, predict_with
from jaxmnist.runs.setup import Setup
from jaxmnist.state import TrainState

PICTURES = 200


@pytest.fixture(scope="module")
def data(mnist) -> datasets.Dataset:
    """A part of MNIST: 2,560 train and 211 test images."""
    train, test = mnist.train, mnist.test
    return datasets.from_arrays(
        train.images[:2560], train.labels[:2560], test.images[:211], test.labels[:211]
    )


@pytest.fixture(scope="module")
def workdir(data, tmp_path_factory) -> Path:
    """A run of a few seconds that knows most digits, with a checkpoint halfway."""
    config = jaxmnist.get_config("debug")
    config.train.steps = 40
    config.parallel.devices = 1
    config.parallel.cpu_devices = None
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.kwargs = {}
    config.checkpoint.every = 20
    config.model.conv = "xla"
    config.eval.every = 40
    path = tmp_path_factory.mktemp("run")
    jaxmnist.train(config, path, dataset=data)
    return path


@pytest.fixture(scope="module")
def run(workdir, data) -> tuple[Setup, TrainState]:
    """Setup and last state of the run."""
    return load_run(workdir, dataset=data)[:2]


@pytest.fixture(scope="module")
def pictures(data, tmp_path_factory) -> list[Path]:
    """The first images of the test split as PNG files."""
    directory = tmp_path_factory.mktemp("pictures")
    paths = [directory / f"{i}.png" for i in range(PICTURES)]
    for path, image in zip(paths, data.test.images, strict=False):
        Image.fromarray(image[..., 0]).save(path)
    return paths


@pytest.fixture(scope="module")
def predictions(run, pictures) -> list[Prediction]:
    return predict_with(*run, pictures)


@pytest.fixture(scope="module")
def labels(data) -> np.ndarray:
    return data.test.labels[:PICTURES]


def share_right(predictions: list[Prediction], labels: np.ndarray) -> float:
    return float(np.mean([p.label == y for p, y in zip(predictions, labels, strict=True)]))


class TestPredict:
    def test_files_of_the_data_sets_own_images_are_predicted_as_in_evaluation(
        self, run, data, predictions
    ):
        setup, state = run
        images = data.test.images[:PICTURES]
        logits, _ = setup.task.apply(state.inference_params, state.batch_stats, images, None)
        assert [p.label for p in predictions] == np.asarray(logits).argmax(-1).tolist()
        shifted = np.exp(np.asarray(logits, np.float64))
        expected = shifted / shifted.sum(-1, keepdims=True)
        np.testing.assert_allclose([p.probabilities for p in predictions], expected, atol=1e-5)

    def test_the_run_has_learnt_enough_for_these_tests(self, predictions, labels):
        assert share_right(predictions, labels) > 0.8

    def test_probabilities_belong_to_the_label_and_add_up(self, predictions, pictures):
        assert [p.source for p in predictions] == [str(path) for path in pictures]
        for p in predictions:
            assert len(p.probabilities) == 10
            assert sum(p.probabilities) == pytest.approx(1, abs=1e-5)
            assert p.probability == max(p.probabilities) == p.probabilities[p.label]

    def test_large_dark_drawings_on_light_are_predicted_nearly_as_well(
        self, run, data, predictions, labels
    ):
        drawings = []
        for image in data.test.images[:PICTURES, ..., 0]:
            big = np.asarray(Image.fromarray(image).resize((90, 90), Image.Resampling.BICUBIC))
            drawings.append(np.pad(220 - big // 2, ((31, 7), (5, 60)), constant_values=220))
        found = predict_with(*run, drawings)
        assert share_right(found, labels) > share_right(predictions, labels) - 0.04
        assert found[7].source == "picture 7"

    @pytest.mark.parametrize("count", [3, 257])
    def test_a_prediction_does_not_depend_on_its_company(self, run, pictures, predictions, count):
        paths = [pictures[i % PICTURES] for i in range(count)]
        found = predict_with(*run, paths)
        assert len(found) == count
        for i, p in enumerate(found):
            expected = predictions[i % PICTURES]
            assert (p.source, p.label) == (expected.source, expected.label)
            assert p.probability == pytest.approx(expected.probability, abs=1e-5)

    def test_one_picture_alone_needs_no_list(self, run, pictures, predictions):
        for picture in (str(pictures[0]), np.asarray(Image.open(pictures[0]))):
            (found,) = predict_with(*run, picture)
            assert found.label == predictions[0].label

    def test_no_picture_gives_no_prediction(self, run):
        assert predict_with(*run, []) == []

    def test_the_checkpoint_asked_for_answers(self, workdir, data, pictures, predictions):
        earlier = jaxmnist.predict(workdir, pictures[:3], dataset=data, step=20)
        newest = [p.probability for p in predictions[:3]]
        assert [p.source for p in earlier] == [p.source for p in predictions[:3]]
        assert [p.probability for p in earlier] != pytest.approx(newest, abs=1e-5)


class TestErrors:
    def test_every_picture_that_cannot_be_used_is_told_at_once(self, run, pictures, tmp_path):
        text = tmp_path / "text.png"
        text.write_text("not a picture")
        bad = [pictures[0], text, tmp_path / "none.png", np.zeros((9, 9), np.uint8)]
        with pytest.raises(DataError) as caught:
            predict_with(*run, bad)
        first, *lines = str(caught.value).splitlines()
        assert first == "3 pictures cannot be used:"
        assert lines[0].startswith(f"  - {text} (cannot identify image file")
        assert lines[1].startswith(f"  - {tmp_path / 'none.png'} cannot be opened")
        assert lines[2].startswith("  - picture 3 shows no digit")
        assert len(lines) == 3

    def test_a_single_one_is_one_sentence(self, run, tmp_path):
        with pytest.raises(DataError, match=r"^\S+none\.png cannot be opened .*: check the path$"):
            predict_with(*run, tmp_path / "none.png")
