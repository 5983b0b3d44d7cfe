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
from jaxmnist.images import Pixels, is_on_black, read_image, to_example
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
    setup, state, _ = load_run(workdir, step=step, dataset=dataset, model=model)
    return predict_with(setup, state, images)


def predict_with(
    setup: Setup, state: TrainState, images: Picture | Iterable[Picture]
) -> list[Prediction]:
    """As `predict`, with a run that `jaxmnist.runs.evaluate.load_run` has loaded.

    Raises:
      DataError: pictures cannot be used; all of them are listed, and nothing was predicted.
    """
    single = isinstance(images, str | os.PathLike) or getattr(images, "ndim", 0) == 2
    pictures: Any = [images] if single else images
    on_black = is_on_black(setup.data.splits["test"].images[:_SAMPLE])
    sources, examples, faults = [], [], []
    for index, picture in enumerate(pictures):
        is_path = isinstance(picture, str | os.PathLike)
        name = os.fspath(picture) if is_path else f"picture {index}"
        try:
            pixels = read_image(picture) if is_path else picture
            example = to_example(pixels, setup.data.image_shape, on_black=on_black, name=name)
        except DataError as error:
            faults.append(str(error))
        else:
            sources.append(name)
            examples.append(example)
    if len(faults) == 1:
        raise DataError(faults[0])
    if faults:
        lines = "".join(f"\n  - {fault}" for fault in faults)
        raise DataError(f"{len(faults)} pictures cannot be used:{lines}")
    if not examples:
        return []
    return [
        Prediction(source, int(p.argmax()), float(p.max()), tuple(p.tolist()))
        for source, p in zip(sources, _probabilities(setup, state, examples), strict=True)
    ]


def _probabilities(setup: Setup, state: TrainState, examples: list[Pixels]) -> Any:
    """Softmax of the logits, float32 [n, k]; the last batch is filled up, and cut again."""
    task = setup.task

    @jax.jit
    def run(params: Any, batch_stats: Any, images: jax.Array) -> jax.Array:
        with jax.default_matmul_precision(task.matmul_precision):
            logits, _ = task.apply(params, batch_stats, images, None)
        return jax.nn.softmax(logits.astype(jnp.float32))

    # One device is enough, and every process of several may predict by itself.
    params, batch_stats = jax.device_put(
        jax.device_get((state.inference_params, state.batch_stats))
    )
    size = min(_BATCH_SIZE, len(examples))
    padded = np.zeros((-(-len(examples) // size) * size, *examples[0].shape), np.uint8)
    padded[: len(examples)] = examples
    batches = np.split(padded, len(padded) // size)
    return np.concatenate([run(params, batch_stats, batch) for batch in batches])[: len(examples)]
