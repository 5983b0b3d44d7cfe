"""What a data set is: splits of uint8 images and int32 labels, their rules and their order."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxmnist.errors import ConfigError, DataError
from jaxmnist.names import resolve

_MAX_CLASSES = 2**31 - 1  # labels are int32
# Makes arrays of what is given, or says in a sentence why it is no data set.
_OWN = "jaxmnist.zoo.own.arrays"
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
      train: the examples to learn from; in a run also a `grain.MapDataset` of examples.
      test: the examples that nothing is chosen on.
      validation: examples held out of train, or None.
      sha256: digest by file name, of the decompressed bytes (for arrays: by part, of its bytes).
      source: where the data came from, for people to read.
    """

    name: str
    classes: int
    train: Split
    test: Split
    validation: Split | None = None
    sha256: Mapping[str, str] = dataclasses.field(default_factory=dict)
    source: str = "arrays"

    @property
    def splits(self) -> dict[str, Any]:
        """What to read, by the name of the split; "validation" only where there is one."""
        given = {"train": self.train, "test": self.test, "validation": self.validation}
        return {name: split for name, split in given.items() if split is not None}

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Height, width and channels of every image."""
        return self.test.images.shape[1:]

    @property
    def digest(self) -> str:
        """All digests in one text, the same for the same data; empty where there are none."""
        return ",".join(f"{name}={digest}" for name, digest in sorted(self.sha256.items()))

    def hold_out(self, count: int, seed: int) -> "Dataset":
        """Moves `count` examples, chosen by `seed` alone, from train to a validation split.

        Both splits keep the original order. The choice is the same on every machine and with
        every version of NumPy: a stable sort of the raw output of Philox.

        Args:
          count: how many, at least 1.
          seed: any integer.

        Returns:
          A data set with a smaller `train` and with `validation`.

        Raises:
          ConfigError: `count` leaves no train example, or there is a validation split already.
        """
        most = len(self.train) - 1 if self.validation is None else 0
        if not 1 <= count <= most:
            rule = "must leave a train example, and be 0 beside a validation split of the data"
            raise ConfigError([f"dataset.validation = {count}: {rule}; choose 0 to {most}"])
        order = epoch_permutation(seed, _HOLD_OUT_EPOCH, len(self.train))
        train, validation = (self.train.take(np.sort(p)) for p in (order[count:], order[:count]))
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
      The data set; its digests are those of the arrays' bytes as given.

    Raises:
      DataError: an array breaks one of these rules; the text names it.
      ConfigError: `classes` is not a positive integer.
    """
    arrays: dict[str, Any] = {"train_images": train_images, "train_labels": train_labels}
    arrays |= {"test_images": test_images, "test_labels": test_labels}
    arrays = {source: resolve(f"{_OWN}:as_array")(source, x) for source, x in arrays.items()}
    digests = {k: hashlib.sha256(x.tobytes()).hexdigest() for k, x in arrays.items()}
    return assemble(arrays, classes, name=name, sha256=digests)


def assemble(arrays: Mapping[str, ArrayLike], classes: int | None, **facts: Any) -> Dataset:
    """Checks arrays against every rule of a data set and joins them.

    Args:
      arrays: by what to call them in an error: train images, train labels, test images and test
        labels, in this order; perhaps also validation images and labels.
      classes: the number of classes; None takes the largest train label + 1.
      **facts: further attributes of the data set, its name among them.

    Raises:
      DataError: an array breaks a rule.
      ConfigError: `classes` is not a positive integer.
    """
    if classes is not None and not (type(classes) is int and 1 <= classes <= _MAX_CLASSES):
        raise ConfigError([f"dataset.classes = {classes!r}: must be a positive integer, or None"])
    named = [(source, np.asarray(array)) for source, array in arrays.items()]
    splits: list[Any] = []
    for (source, images), (label_source, labels) in zip(named[::2], named[1::2], strict=True):
        # Two poolings by 2 must leave a pixel.
        fits = images.ndim in (3, 4) and images.size and min(images.shape[1:3]) >= 4
        if images.dtype != np.uint8 or not fits:
            raise DataError(resolve(f"{_OWN}:wrong_images")(source, images))
        pixels = _frozen(images.reshape(*images.shape[:3], -1))
        shape, expected = pixels.shape[1:], (splits[0].images if splits else pixels).shape[1:]
        if shape != expected:
            rule = f"expected {expected} as in {named[0][0]}; give all images one size"
            raise DataError(f"{source}: images of {shape} (height, width, channels), {rule}")
        if labels.dtype.kind not in "iu" or labels.shape != (len(images),):
            say = functools.partial(resolve(f"{_OWN}:wrong_labels"), label_source, labels)
            raise DataError(say(images=source, count=len(images)))
        classes = classes or min(max(1, int(labels.max()) + 1), _MAX_CLASSES)
        if (wrong := np.flatnonzero((labels < 0) | (labels >= classes))).size:
            fault = f"label {labels[wrong[0]]} at index {wrong[0]} ({wrong.size} such in all)"
            rule = "correct the labels or set dataset.classes (default: largest train label + 1)"
            raise DataError(f"{label_source}: {fault}, expected 0 to {classes - 1}; {rule}")
        splits.append(Split(pixels, _frozen(labels.astype(np.int32))))
    return Dataset(facts.pop("name"), classes or 0, *splits, **facts)


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
