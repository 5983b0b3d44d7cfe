"""A data set of the user's own: by dotted path, or given in Python as arrays or Grain examples."""

import dataclasses
import inspect
import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import grain
import numpy as np

from jaxmnist.datasets.dataset import Dataset, Split, assemble, from_arrays
from jaxmnist.errors import ConfigError, DataError, JaxmnistError
from jaxmnist.names import in_line, resolve
from jaxmnist.zoo.own.arrays import as_array

_MAKES = "expected a function that makes a Dataset with jaxmnist.datasets.from_arrays"


def load(name: str, classes: int | None) -> Dataset:
    """The data set at a dotted path, held to the rules of every data set.

    Args:
      name: "package.module:name" of a `Dataset`, or of a function that makes one of no arguments.
      classes: the number of classes; None for what it says itself.

    Raises:
      ConfigError: it cannot be imported, or is something that must not be called.
      DataError: the function fails, gives something else, or the data break a rule.
    """
    function = made = resolve(name, key="dataset.name")
    if callable(function):
        # A class or a built-in function is not what a data set is made with: it is not called.
        if inspect.isclass(function) or inspect.isbuiltin(function) or _needs(function):
            fault = f"dataset.name={name!r} is {in_line(repr(function)):.80}; {_MAKES}"
            raise ConfigError([f"{fault} and takes no argument"])
        try:
            made = function()
        except JaxmnistError:
            raise
        except (Exception, SystemExit) as error:  # the user's function may raise anything
            fault = f"{name} fails: {type(error).__name__}: {in_line(error)}"
            raise DataError(f"{fault}; correct the function") from error
    if not isinstance(made, Dataset):
        raise DataError(f"{name} gives {type(made).__name__}; {_MAKES}")
    return _checked(made, classes, prefix=f"{name}: ", source=name)


def as_dataset(given: Any, configured: Callable[[], Dataset]) -> Dataset:
    """What was given in Python as a data set, held to the rules of every data set.

    Args:
      given: a `Dataset`; or, in place of the training split of the configured one, a
        `grain.MapDataset` of examples or a pair (images, labels); or ((images, labels), (images,
        labels)) of training and test.
      configured: loads the configured one.

    Raises:
      DataError: it is none of these, or the data break a rule.
    """
    if isinstance(given, Dataset):
        return _checked(given, given.classes, prefix="", source=given.source)
    if isinstance(given, tuple | list) and len(given) == 2:
        if all(isinstance(part, tuple | list) and len(part) == 2 for part in given):
            return from_arrays(*given[0], *given[1])
        test = configured()
        images, labels = given
        tests = test.test.images, test.test.labels
        return from_arrays(images, labels, *tests, name=test.name, classes=test.classes)
    if not isinstance(given, grain.MapDataset):
        rule = "give jaxmnist.datasets.from_arrays(...), a pair of arrays (images, labels) or a"
        fault = f"a data set of type {type(given).__name__} cannot be read"
        raise DataError(f"{fault}: {rule} grain.MapDataset of examples")
    dataset = dataclasses.replace(configured(), train=given, sha256={})
    return _checked(dataset, dataset.classes, prefix="", source=dataset.source)


def _needs(function: Any) -> bool:
    """Whether a function cannot be called without arguments."""
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):
        return True
    return False


def _checked(made: Dataset, classes: int | None, *, prefix: str, source: str) -> Dataset:
    """A data set whose arrays and examples keep the rules."""
    classes = made.classes if classes is None else classes
    grained: Any = made.train if isinstance(made.train, grain.MapDataset) else None
    # Grain's examples are looked at one by one as they come; the test split stands in for them.
    first = {"test split's": made.test} if grained is not None else {"train": made.train}
    parts = first | {"test": made.test, "validation": made.validation}
    arrays: dict[str, Any] = {}
    for part, split in parts.items():
        if not isinstance(split, Split | None):
            rule = (
                "give arrays (see jaxmnist.datasets.from_arrays); train may be a grain.MapDataset"
            )
            fault = f"{prefix}a data set whose {part} is a {type(split).__name__} cannot be read"
            raise DataError(f"{fault}: {rule}")
        if split is not None:
            arrays[f"{prefix}{part} images"] = split.images
            arrays[f"{prefix}{part} labels"] = split.labels
    arrays = {what: as_array(what, values) for what, values in arrays.items()}
    whole = assemble(arrays, classes, name=made.name, sha256=made.sha256, source=source)
    if grained is None:
        return whole
    check = partial(_example, classes=whole.classes, shape=whole.image_shape)
    return dataclasses.replace(whole, train=_Examples(grained, check))


class _Examples(grain.MapDataset[Any]):
    """Examples of the user's own, checked as they come; `check` is given each."""

    def __init__(self, parent: grain.MapDataset[Any], check: Callable[[Any], dict[str, Any]]):
        super().__init__(parent)
        self._own, self._check = parent, check

    def __len__(self) -> int:
        return len(self._own)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        try:
            element = self._own[index]
        except Exception as error:  # the user's transformations may raise anything
            fault = f"the grain.MapDataset fails at place {index}: {type(error).__name__}"
            repair = "correct its source or transformations"
            raise DataError(f"{fault}: {in_line(error)}; {repair}") from error
        if element is None:
            repair = "a filter leaves such gaps: choose the examples in the source instead"
            raise DataError(f"the grain.MapDataset has no example at place {index}; {repair}")
        return self._check(element)


def _example(element: Any, *, classes: int, shape: tuple[int, ...]) -> dict[str, Any]:
    """An element of a user's Grain data set with the types that a batch has."""
    rule = "'image', uint8 or finite float32 of shape [h, w] or [h, w, c], and an integer 'label'"
    try:
        image, label = np.asarray(element["image"]), operator.index(element["label"])
        if image.ndim not in (2, 3) or image.dtype not in (np.uint8, np.float32):
            raise TypeError(f"an 'image' that is {image.dtype} of shape {image.shape}")
        if not np.isfinite(image).all():
            raise ValueError("an 'image' that holds NaN or infinite values")
        if (image := image if image.ndim == 3 else image[..., None]).shape != shape:
            raise ValueError(f"an 'image' of {image.shape}, those of the test split are {shape}")
        if not 0 <= label < classes:
            raise ValueError(f"the label {label}, which is not in 0..{classes - 1}")
    except (TypeError, KeyError, ValueError, IndexError) as error:
        fault = f"an element of the grain.MapDataset must be a dictionary with {rule}"
        raise DataError(f"{fault}, but this one gave {error!r}") from error
    return {"image": image, "label": label}
