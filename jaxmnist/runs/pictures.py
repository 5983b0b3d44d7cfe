"""Reads any number of pictures and says what a model that is given as a function sees in them."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxmnist.errors import DataError
from jaxmnist.images import Pixels, read_image, to_example

Picture = str | os.PathLike[str] | Pixels
Pictures = Picture | Iterable[Picture]
# Pictures in one call of the model.
_BATCH_SIZE = 256


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


def to_examples(
    images: Pictures, image_shape: Sequence[int], *, on_black: bool
) -> list[tuple[str, Pixels]]:
    """Makes pictures look like images of a data set.

    Args:
      images: paths of picture files or arrays uint8 [h, w] or [h, w, 3]; one alone will do.
      image_shape: (h, w, c) of the data set.
      on_black: whether the data set's images are light drawings on black.

    Returns:
      Name and example uint8 [h, w, c] of each picture.

    Raises:
      DataError: pictures cannot be used; all of them are listed.
    """
    single = isinstance(images, str | os.PathLike) or getattr(images, "ndim", 0) == 2
    pictures: Any = [images] if single else images
    examples, faults = [], []
    for index, picture in enumerate(pictures):
        is_path = isinstance(picture, str | os.PathLike)
        name = os.fspath(picture) if is_path else f"picture {index}"
        try:
            pixels = read_image(picture) if is_path else picture
            example = to_example(pixels, tuple(image_shape), on_black=on_black, name=name)
            examples.append((name, example))
        except DataError as error:
            faults.append(str(error))
    if faults:
        text = "\n  - ".join([f"{len(faults)} pictures cannot be used:", *faults])
        raise DataError(text if len(faults) > 1 else faults[0])
    return examples


def predict_examples(
    examples: Sequence[tuple[str, Pixels]], probabilities: Callable[[Pixels], Any]
) -> list[Prediction]:
    """Predicts named examples with a function from uint8 [b, h, w, c] to float32 [b, k]."""
    found = []
    for start in range(0, len(examples), _BATCH_SIZE):
        names, batch = zip(*examples[start : start + _BATCH_SIZE], strict=True)
        for name, p in zip(names, np.asarray(probabilities(np.stack(batch))), strict=True):
            found.append(Prediction(name, int(p.argmax()), float(p.max()), tuple(p.tolist())))
    return found
