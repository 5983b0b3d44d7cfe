"""What is wrong with arrays that were to be a data set, each in a sentence with its repair."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxmnist.errors import DataError

_EXPECTED = "expected uint8 [n, h, w] or [n, h, w, c] of at least 4×4 pixels"


def as_array(source: str, values: ArrayLike) -> NDArray[Any]:
    """The array that values make.

    Args:
      source: what to call them in an error.
      values: anything that NumPy takes.

    Raises:
      DataError: their sizes differ.
    """
    try:
        return np.asarray(values)
    except ValueError as error:
        repair = "give all images one size, and each image one label"
        raise DataError(f"{source}: no array can be made of these: {error}; {repair}") from error


def wrong_images(source: str, images: NDArray[Any]) -> str:
    """What to say of an array that cannot be the images of a split.

    Args:
      source: what to call it.
      images: of another type or shape than images have, or empty.
    """
    fault = f"{source}: images are {images.dtype} of shape {images.shape}, {_EXPECTED}"
    if not images.size:
        return f"{fault}; give at least one"
    if images.dtype == np.uint8:
        return f"{fault}; reshape or enlarge them"
    if images.dtype.kind not in "fiu":
        return f"{fault}; convert them to uint8"
    if wrong := np.count_nonzero(~np.isfinite(images)):
        return f"{fault}; {wrong} values are NaN or infinite: correct these and convert them"
    low, high = images.min(), images.max()
    if not 0 <= low <= high <= 255:
        return f"{fault}; their values, {low:g} to {high:g}, must be 0 to 255: convert them"
    scale = " * 255" if high <= 1 and images.dtype.kind == "f" else ""
    return f"{fault}; convert them with numpy.round(images{scale}).astype('uint8')"


def wrong_labels(source: str, labels: NDArray[Any], *, images: str, count: int) -> str:
    """What to say of an array that cannot be the labels of a split.

    Args:
      source: what to call it.
      labels: not integers, or not as many as there are images.
      images: what the images are called.
      count: how many images there are.
    """
    if labels.ndim != 1:
        fault = f"{labels.dtype} of shape {labels.shape}, found {labels.ndim} dimensions"
        repair = "give class numbers, no one-hot rows, such as labels.argmax(-1) or labels.ravel()"
        return f"{source}: labels are {fault}, expected 1; {repair}"
    if len(labels) != count:
        rule = "give each image one label"
        return f"{source}: {len(labels)} labels, expected {count}, as {images} has images; {rule}"
    rule = "expected integers, class numbers from 0 on; convert them with labels.astype('int32')"
    return f"{source}: labels are {labels.dtype}, {rule}"
