"""Commands run in this process, a made-up data set of awkward size, and a finished run on it."""

import dataclasses
import hashlib
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxmnist.cli.main import main

TRAIN, TEST, CLASSES = 997, 61, 7


@dataclasses.dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(capfd) -> Callable[..., Finished]:
    """Runs a command line and gives its exit code and what it printed."""

    def run(*arguments: object) -> Finished:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        return Finished(code, *capfd.readouterr())

    return run


def idx(array: np.ndarray) -> bytes:
    """The bytes of an IDX file."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_set(directory: Path) -> Path:
    """Writes 997 train and 61 test images of 20×24 pixels in 7 classes; a row shows the class."""
    rng = np.random.default_rng(0)
    directory.mkdir()
    for name, count in (("train", TRAIN), ("t10k", TEST)):
        labels = (np.arange(count) % CLASSES).astype(np.uint8)
        images = rng.integers(0, 96, (count, 20, 24), dtype=np.uint8)
        images[np.arange(count), 2 * labels + 3] += np.uint8(120)
        (directory / f"{name}-images-idx3-ubyte").write_bytes(idx(images))
        (directory / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels))
    return directory


def digest(*places: Path) -> dict[str, str]:
    """SHA-256 of each file under the places, by path; directories, too, count as there."""
    files = [p for place in places for p in [place, *place.rglob("*")]]
    return {
        str(p): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "" for p in files
    }


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("data") / "digits")


@pytest.fixture(scope="session")
def flags(data) -> list[str]:
    """The configuration of a run of a few seconds."""
    settings = {
        "dataset.dir": data,
        "model.name": "support:Tiny",
        "parallel.devices": 2,
        "batch_size": 64,
        "train.steps": 20,
        "optimizer.learning_rate": 0.02,
        "log.every": 5,
        "eval.every": 10,
        "eval.batch_size": 50,
        "checkpoint.every": 10,
    }
    return [f"--config.{key}={value}" for key, value in settings.items()]


@pytest.fixture(scope="session")
def finished(flags, tmp_path_factory) -> Path:
    """The work directory of a finished run, not to be changed."""
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    assert main(["train", *flags, "--quiet", f"--workdir={workdir}"]) == 0
    return workdir


@pytest.fixture
def workdir(finished, tmp_path) -> Path:
    """A copy of the finished run's work directory."""
    return Path(shutil.copytree(finished, tmp_path / "run"))
