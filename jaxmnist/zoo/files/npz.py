"""Reads a data set from an .npz file of arrays; nothing in it is unpickled."""

import hashlib
from pathlib import Path

import numpy as np

from jaxmnist.datasets.dataset import Dataset, assemble
from jaxmnist.errors import DataError

#: What each array is called, and what Keras calls it.
NAMES = {
    "train_images": "x_train",
    "train_labels": "y_train",
    "test_images": "x_test",
    "test_labels": "y_test",
}
#: There may be these, too.
VALIDATION = {"validation_images": "x_val", "validation_labels": "y_val"}


def read_npz(path: Path, classes: int | None) -> Dataset:
    """The data set in an .npz file.

    Args:
      path: of the file; images are uint8 [n, h, w] or [n, h, w, c], labels integers [n], under
        `NAMES` and, for a validation split, `VALIDATION`. Other arrays are not looked at.
      classes: the number of classes; None takes the largest train label + 1.

    Raises:
      DataError: the file is missing or damaged, lacks an array, holds pickled objects, or an array
        breaks a rule of `jaxmnist.datasets.from_arrays`.
    """
    again = "write it with numpy.savez_compressed"
    try:
        # Opened here: of a damaged archive NumPy leaves the file open.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            spelled = {n: n if n in file else k for n, k in (NAMES | VALIDATION).items()}
            missing = [n for n in NAMES if spelled[n] not in file]
            there = {n: file[k] for n, k in spelled.items() if k in file}
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file; correct dataset.dir") from error
    except Exception as error:  # what is damaged makes the reader raise anything
        objects = " without objects" if "pickle" in str(error) else ""
        fault = f"is no .npz file of arrays that can be read: {error}"
        raise DataError(f"{path} {fault}; {again} of plain arrays{objects}") from error
    missing += [n for n in VALIDATION if n not in there and {*VALIDATION} & {*there}]
    if missing:
        fault = f"{path} lacks {', '.join(missing)}; it holds {', '.join(there) or 'none of them'}"
        raise DataError(f"{fault}: {again}, the arrays called {', '.join(NAMES)}")
    digests = {n: hashlib.sha256(array.tobytes()).hexdigest() for n, array in there.items()}
    arrays = {f"{path}/{name}": array for name, array in there.items()}
    return assemble(arrays, classes, name=path.stem, sha256=digests, source=str(path))
