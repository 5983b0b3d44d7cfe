"""What a data set is: splits of uint8 images and int32 labels, their rules and their order."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxmnist.errors import ConfigError, DataError

_MIN_SIDE = 4  # two poolings by 2 must leave a pixel
_MAX_CLASSES = 2**31 - 1  # labels are int32
# The permutations of the epochs are keyed by (seed, epoch); no run reaches this epoch.
_HOLD_OUT_EPOCH = 2**64 - 1


@functools.lru_cache(maxsize=4)
def epoch_permutation(seed: int, epoch: int, examples: int) -> NDArray[np.int64]:
    """The order of the examples in an epoch: int64 [examples], read-only.

    A stable sort of raw Philox output keyed by (seed, epoch); NumPy may change its higher-level
    draws from version to version, but not that.
    """
    key = np.array([seed % 2**64, epoch], np.uint64)
    return _frozen(np.argsort(np.random.Philox(key=key).random_raw(examples), kind="stable"))


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
            rule = f"at least one of {total} train examples must be left; choose 0 to {total - 1}"
            raise ConfigError([f"dataset.validation = {count}: {rule}"])
        if count == 0:
            return self
        if self.validation is not None:
            rule = f"{self.name} already holds out {len(self.validation)} examples; set it to 0"
            raise ConfigError([f"dataset.validation = {count}: {rule}"])
        order = epoch_permutation(int(seed), _HOLD_OUT_EPOCH, total)
        train = self.train.take(np.sort(order[count:]))
        validation = self.train.take(np.sort(order[:count]))
        return dataclasses.replace(self, train=train, validation=validation)


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
    arrays = {"train_images": train_images, "train_labels": train_labels}
    arrays |= {"test_images": test_images, "test_labels": test_labels}
    made = assemble(arrays, name=name, classes=classes)
    digests = {
        f"{split}_{part}": hashlib.sha256(getattr(getattr(made, split), part)).hexdigest()
        for split in ("train", "test")
        for part in ("images", "labels")
    }
    return dataclasses.replace(made, sha256=digests)


def assemble(
    arrays: Mapping[str, ArrayLike], *, name: str, classes: int | None, **facts: Any
) -> Dataset:
    """Checks arrays against every rule of a data set and joins them.

    Args:
      arrays: by what to call them in an error: train images, train labels, test images and test
        labels, in this order; perhaps also validation images and labels.
      name: the data set's name.
      classes: the number of classes; None takes the largest train label + 1.
      **facts: further attributes of the data set.

    Raises:
      DataError: an array breaks a rule.
      ConfigError: `classes` is not a positive integer.
    """
    if classes is not None and not (type(classes) is int and 1 <= classes <= _MAX_CLASSES):
        rule = "must be a positive integer, or None to count them"
        raise ConfigError([f"dataset.classes = {classes!r}: {rule}"])
    named = [(source, np.asarray(array)) for source, array in arrays.items()]
    splits: list[Any] = []
    classes = classes or 0
    for (source, images), (label_source, labels) in zip(named[::2], named[1::2], strict=True):
        if images.dtype != np.uint8 or images.ndim not in (3, 4):
            found = f"images are {images.dtype} of shape {images.shape}, expected uint8 [n, h, w]"
            raise DataError(f"{source}: {found} or [n, h, w, c]; scale to 0..255 and reshape them")
        if images.size == 0 or min(images.shape[1:3]) < _MIN_SIDE:
            rule = f"expected one or more of at least {_MIN_SIDE}×{_MIN_SIDE} pixels; enlarge them"
            raise DataError(f"{source}: images have the shape {images.shape}, {rule}")
        shape = (*images.shape, 1)[1:4]
        expected = splits[0].images.shape[1:] if splits else shape
        if shape != expected:
            rule = f"expected {expected} as in {named[0][0]}; give all images one size"
            raise DataError(f"{source}: images of {shape} (height, width, channels), {rule}")
        if labels.dtype.kind not in "iu" or labels.ndim != 1:
            found = f"labels are {labels.dtype} of shape {labels.shape}, expected integers [n]"
            raise DataError(f"{label_source}: {found}; give class numbers from 0, not one-hot rows")
        if len(labels) != len(images):
            rule = f"expected {len(images)}, one for each image of {source}; do they belong to it?"
            raise DataError(f"{label_source}: {len(labels)} labels, {rule}")
        classes = classes or min(max(1, int(labels.max()) + 1), _MAX_CLASSES)
        if (wrong := np.flatnonzero((labels < 0) | (labels >= classes))).size:
            found = f"label {labels[wrong[0]]} at index {wrong[0]} ({wrong.size} such in all)"
            rule = "correct the labels or set dataset.classes (default: largest train label + 1)"
            raise DataError(f"{label_source}: {found}, expected 0 to {classes - 1}; {rule}")
        pixels = images.reshape(len(images), *shape)
        splits.append(Split(_frozen(pixels), _frozen(labels.astype(np.int32))))
    return Dataset(name, classes, *splits, **facts)


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
