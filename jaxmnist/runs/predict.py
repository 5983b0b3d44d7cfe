"""Predicts the classes of pictures with the parameters of a run."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmnist.errors import DataError
from jaxmnist.images import Pixels, on_black, read_image, to_example
from jaxmnist.runs.evaluate import load_run
from jaxmnist.runs.setup import Setup
from jaxmnist.state import TrainState

Picture = str | os.PathLike[str] | Pixels
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
    workdir: str | Path,
    images: Picture | Iterable[Picture],
    *,
    step: int | None = None,
    dataset: Any = None,
    model: Any = None,
) -> list[Prediction]:
    """Predicts the classes of pictures with a checkpoint of a run.

    Args:
      workdir: of the run.
      images: paths of picture files or arrays uint8 [h, w] or [h, w, 3], of any sizes; one alone
        will do. `jaxmnist.images` says how they are made to look like the run's data set.
      step: which checkpoint; None for the newest.
      dataset: what was passed to `train`, if anything; likewise model.
      model: see dataset.

    Returns:
      One prediction for each picture, in their order.

    Raises:
      WorkdirError: the directory is not that of a run.
      CheckpointError: no such checkpoint, or it is damaged.
      DataError: pictures cannot be used; all of them are listed, and nothing was predicted.
    """
    if isinstance(images, str | os.PathLike) or getattr(images, "ndim", 0) == 2:
        images = [images]
    setup, state, _ = load_run(workdir, step=step, dataset=dataset, model=model)
    black = on_black(setup.data.splits["test"].images[:_SAMPLE])
    sources, examples, faults = [], [], []
    for index, image in enumerate(images):
        is_path = isinstance(image, str | os.PathLike)
        name = os.fspath(image) if is_path else f"picture {index}"
        try:
            pixels = read_image(image) if is_path else image
            examples.append(to_example(pixels, setup.data.image_shape, on_black=black, name=name))
            sources.append(name)
        except DataError as error:
            faults.append(str(error))
    if len(faults) == 1:
        raise DataError(faults[0])
    if faults:
        lines = "".join(f"\n  - {fault}" for fault in faults)
        raise DataError(f"{len(faults)} pictures cannot be used:{lines}")
    return [
        Prediction(source, int(p.argmax()), float(p.max()), tuple(p.tolist()))
        for source, p in zip(sources, _probabilities(setup, state, examples), strict=True)
    ]


def _probabilities(setup: Setup, state: TrainState, examples: list[Pixels]) -> np.ndarray:
    """Softmax of the logits, float32 [n, k]; the last batch is filled up, and cut again."""
    task = setup.task
    params, stats = jax.device_get((state.inference_params, state.batch_stats))

    @jax.jit
    def run(params: Any, stats: Any, images: jax.Array) -> jax.Array:
        with jax.default_matmul_precision(task.matmul_precision):
            logits, _ = task.apply(params, stats, images, None)
        return jax.nn.softmax(logits.astype(jnp.float32))
    ...
