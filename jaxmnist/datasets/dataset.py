"""What a data set is: splits of uint8 images and int32 labels, and the rules that they keep."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxmnist.errors import ConfigError, DataError

_MIN_SIDE = 4  # two poolings by 2 must leave a pixel
_MAX_CLASSES = 2**31 - 1  # labels are int32
# The permutations of the epochs are keyed by (seed, epoch); no run reaches this epoch.
_HOLD_OUT_KEY = 2**64 - 1
_T = TypeVar("_T", bound=np.generic)


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Examples, read-only.

    Attributes:
      images: uint8 [n, h, w, c].
      labels: int32 [n], each in 0..classes-1.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.integer]) -> "Split":
        """Returns the examples at `indices`, integer [m], in that order."""
        return Split(_frozen(self.images[indices]), _frozen(self.labels[indices]))


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A data set whose splits agree in image size and classes.

    Attributes:
      name: its name, or that of its directory.
      classes: the number of classes.
      train: the examples to learn from.
      test: the examples that nothing is chosen on.
      validation: examples held out of train, or None.
      sha256: digest by file name, of the decompressed bytes (for arrays: by part, of its bytes).
      known: whether all digests are those of a data set that jaxmnist knows by name.
      source: where the data came from, for people to read.
    """

    name: str
    classes: int
    train: Split
    test: Split
    validation: Split | None = None
    sha256: Mapping[str, str] = dataclasses.field(default_factory=dict)
    known: bool = False
    source: str = "arrays"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        h, w, c = self.train.images.shape[1:]
        return h, w, c

    def hold_out(self, count: int, seed: int) -> "Dataset":
        """Moves `count` examples, chosen by `seed` alone, from train to a validation split.

        Both splits keep the original order. The choice is the same on every machine and with
        every version of NumPy: a stable sort of the raw output of Philox.

        Args:
          count: how many; 0 returns the data set as it is.
          seed: any integer.

        Returns:
          A data set with a smaller `train` and with `validation`.

        Raises:
          ConfigError: `count` leaves no train example, or there is a validation split already.
        """
        total = len(self.train)
        if not 0 <= count < total:
            raise ConfigError(
                [
                    f"dataset.validation = {count}: at least one of the {total} train examples "
                    f"must be left; choose 0 to {total - 1}"
                ]
            )
        if count == 0:
            return self
        if self.validation is not None:
            raise ConfigError(
                [
                    f"dataset.validation = {count}: {self.name} already has a validation split "
                    f"of {len(self.validation)} examples; set dataset.validation = 0"
                ]
            )
        key = np.array([int(seed) % 2**64, _HOLD_OUT_KEY], np.uint64)
        order = np.argsort(np.random.Philox(key=key).random_raw(total), kind="stable")
        return dataclasses.replace(
            self,
            train=self.train.take(np.sort(order[count:])),
            validation=self.train.take(np.sort(order[:count])),
        )


def from_arrays(
    train_images: ArrayLike,
    train_labels: ArrayLike,
    test_images: ArrayLike,
    test_labels: ArrayLike,
    *,
    name: str = "arrays",
    classes: int | None = None,
) -> Dataset:
    """Makes a data set of arrays; uint8 images are kept without a copy.

    Args:
      train_images: uint8 [n, h, w] or [n, h, w, c], at least 4×4 pixels.
      train_labels: any integer type, [n].
      test_images: uint8, of the same height, width and channels.
      test_labels: any integer type, [m].
      name: what the data set is called in panels and results.
      classes: the number of classes; None takes the largest train label + 1.

    Returns:
      The data set; its digests are those of the arrays' bytes as stored.

    Raises:
      DataError: an array breaks one of these rules; the text names it.
      ConfigError: `classes` is not a positive integer.
    """
    arrays = {
        "train_images": train_images,
        "train_labels": train_labels,
        "test_images": test_images,
        "test_labels": test_labels,
    }
    made = assemble(list(arrays.items()), name=name, classes=classes)
    digests = {
        f"{split_name}_{part}": hashlib.sha256(getattr(split, part)).hexdigest()
        for split_name, split in (("train", made.train), ("test", made.test))
        for part in ("images", "labels")
    }
    return dataclasses.replace(made, sha256=digests)


def assemble(
    arrays: Sequence[tuple[str, ArrayLike]], *, name: str, classes: int | None = None
) -> Dataset:
    """Checks arrays against every rule of a data set and joins them.

    Args:
      arrays: (what to call it in an error, array) of train images, train labels, test images
        and test labels; perhaps also validation images and labels.
      name: the data set's name.
      classes: the number of classes; None takes the largest train label + 1.

    Returns:
      The data set, without digests.

    Raises:
      DataError: an array breaks a rule.
      ConfigError: `classes` is not a positive integer.
    """
    if classes is not None and not (type(classes) is int and 1 <= classes <= _MAX_CLASSES):
        raise ConfigError(
            [f"dataset.classes = {classes!r}: must be a positive integer, or None to count them"]
        )
    images, labels = arrays[::2], arrays[1::2]
    splits = [_split(*pair) for pair in zip(images, labels, strict=True)]
    rule = "dataset.classes"
    if classes is None:
        classes = int(splits[0].labels.max()) + 1
        rule = "the largest train label + 1"
    train_shape = splits[0].images.shape[1:]
    for (image_source, _), (label_source, _), split in zip(images, labels, splits, strict=True):
        if split.images.shape[1:] != train_shape:
            raise DataError(
                f"{image_source}: images of {split.images.shape[1:]} (height, width, channels), "
                f"expected {train_shape} as in {images[0][0]}; give all images one size"
            )
        _check_labels(label_source, split.labels, classes, f"there are {classes} classes ({rule})")
    validation = splits[2] if len(splits) > 2 else None
    return Dataset(name, classes, splits[0], splits[1], validation)


def _split(named_images: tuple[str, ArrayLike], named_labels: tuple[str, ArrayLike]) -> Split:
    (image_source, images), (label_source, labels) = named_images, named_labels
    pixels = _checked_images(image_source, np.asarray(images))
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(
            f"{label_source}: labels are {labels.dtype} of shape {labels.shape}, expected "
            "integers of shape [n]; give class numbers from 0, not one-hot rows"
        )
    if len(labels) != len(pixels):
        raise DataError(
            f"{label_source}: {len(labels)} labels, expected {len(pixels)}, one for each image "
            f"of {image_source}; check that the two belong together"
        )
    _check_labels(label_source, labels, _MAX_CLASSES, "classes count from 0")
    return Split(_frozen(pixels), _frozen(labels.astype(np.int32)))


def _checked_images(source: str, images: NDArray[np.generic]) -> NDArray[np.uint8]:
    if images.dtype != np.uint8:
        raise DataError(
            f"{source}: images are {images.dtype}, expected uint8; "
            "scale them to 0..255 and convert with .astype(numpy.uint8)"
        )
    if images.ndim not in (3, 4):
        raise DataError(
            f"{source}: images have the shape {images.shape}, expected [n, h, w] or "
            "[n, h, w, c]; reshape them"
        )
    n, h, w, c = (*images.shape, 1)[:4]
    if n == 0 or c == 0:
        raise DataError(f"{source}: the shape {images.shape} holds no images; give at least one")
    if min(h, w) < _MIN_SIDE:
        raise DataError(
            f"{source}: images of {h}×{w} pixels, expected at least {_MIN_SIDE}×{_MIN_SIDE}; "
            "pad or enlarge them"
        )
    return images.astype(np.uint8, copy=False).reshape(n, h, w, c)


def _check_labels(source: str, labels: NDArray[np.integer], classes: int, rule: str) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise DataError(
            f"{source}: label {labels[wrong[0]]} at index {wrong[0]} ({wrong.size} such in all), "
            f"expected 0 to {classes - 1}, as {rule}; correct the labels or raise dataset.classes"
        )


def _frozen(array: NDArray[_T]) -> NDArray[_T]:
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
