"""Predicts the classes of pictures with the parameters of a run."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxmnist.images import is_on_black
from jaxmnist.runs.evaluate import load_run
from jaxmnist.runs.pictures import Pictures, Prediction, predict_examples, to_examples
from jaxmnist.runs.probabilities import log_probabilities
from jaxmnist.runs.setup import Setup
from jaxmnist.state import TrainState

# Images of the test split that are looked at for how the data set draws.
SAMPLE = 1000


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
    on_black = is_on_black(setup.data.test.images[:SAMPLE])
    examples = to_examples(images, setup.data.image_shape, on_black=on_black)
    return predict_examples(examples, lambda batch: np.exp(run(batch)))
