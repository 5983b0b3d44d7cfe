"""Predicts the classes of pictures with the parameters of a run."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxmnist.errors import DataError
from jaxmnist.images import Pixels, is_on_black, read_image, to_example
from jaxmnist.runs.evaluate import load_run
from jaxmnist.runs.probabilities import log_probabilities
from jaxmnist.runs.setup import Setup
from jaxmnist.state import TrainState

Picture = str | os.PathLike[str] | Pixels
Pictures = Picture | Iterable[Picture]
# Pictures in one call of the model.
_BATCH_SIZE = 256
# Images of the test split that are looked at for how the data set draws.
_SAMPLE = 1000


@dataclass(frozen=True)
class Prediction:
    """What the model sees in a picture.

    Attributes:
      source: the file's path as it was given, or "picture 2" for the array at index 2.
      label: the most probable class.
      probability: of that class.
      probabilities: of all classes, in order; their sum is 1.
    """

    source: str
    label: int
    probability: float
    probabilities: tuple[float, ...]


def predict(
    workdir: str | Path, images: Pictures, *, step: int | None = None, **parts: Any
) -> list[Prediction]:
    """Predicts the classes of pictures with a checkpoint of a run.

    Args:
      workdir: of the run.
      images: paths of picture files or arrays uint8 [h, w] or [h, w, 3], of any sizes; one alone
        will do. `jaxmnist.images` says how they are made to look like the run's data set.
      step: which checkpoint; None for the newest.
      **parts: `dataset` and `model` as they were passed to `train`, if they were.

    Returns:
      One prediction for each picture, in their order.

    Raises:
      WorkdirError: the directory is not that of a run.
      CheckpointError: no such checkpoint, or it is damaged.
      DataError: pictures cannot be used; all of them are listed, and nothing was predicted.
    """
    setup, state, _ = load_run(workdir, step=step, **parts)
    return predict_with(setup, state, images)


def predict_with(setup: Setup, state: TrainState, images: Pictures) -> list[Prediction]:
    """As `predict`, with a run that `jaxmnist.runs.evaluate.load_run` has loaded.

    Raises:
      DataError: pictures cannot be used; all of them are listed, and nothing was predicted.
    """
    run = log_probabilities(setup, state)
    single = isinstance(images, str | os.PathLike) or getattr(images, "ndim", 0) == 2
    pictures: Any = [images] if single else images
    on_black = is_on_black(setup.data.test.images[:_SAMPLE])
    examples, faults = [], []
    for index, picture in enumerate(pictures):
        is_path = isinstance(picture, str | os.PathLike)
        name = os.fspath(picture) if is_path else f"picture {index}"
        try:
            pixels = read_image(picture) if is_path else picture
            example = to_example(pixels, setup.data.image_shape, on_black=on_black, name=name)
            examples.append((name, example))
        except DataError as error:
            faults.append(str(error))
    if faults:
        text = "\n  - ".join([f"{len(faults)} pictures cannot be used:", *faults])
        raise DataError(text if len(faults) > 1 else faults[0])
    found = []
    for start in range(0, len(examples), _BATCH_SIZE):
        names, batch = zip(*examples[start : start + _BATCH_SIZE], strict=True)
        for name, p in zip(names, np.exp(run(np.stack(batch))), strict=True):
            found.append(Prediction(name, int(p.argmax()), float(p.max()), tuple(p.tolist())))
    return found
