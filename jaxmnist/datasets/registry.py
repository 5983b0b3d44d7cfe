"""Finds a data set by name, by the dotted path of a function, or in a directory."""

from collections.abc import Mapping
from pathlib import Path

from jaxmnist.config import did_you_mean
from jaxmnist.datasets.dataset import Dataset, assemble
from jaxmnist.errors import ConfigError, DataError
from jaxmnist.names import resolve

# Functions `(name, classes) -> Dataset` by name, and the one that reads a directory.
KNOWN: Mapping[str, str] = dict.fromkeys(("mnist", "fashion_mnist"), "jaxmnist.zoo.idx:read_known")
_DIRECTORY = "jaxmnist.zoo.idx:read_directory"


def load(
    name: str = "mnist", *, directory: str | Path | None = None, classes: int | None = None
) -> Dataset:
    """Loads a data set into memory.

    Args:
      name: a key of `KNOWN`, or "package.module:function" for a function without arguments that
        returns a `Dataset` (see `from_arrays`).
      directory: wins over the name; holds the four IDX files of any sizes under their standard
        names (train-images-idx3-ubyte or train-images.idx3-ubyte and so on), with .gz or
        without; where both are there, the one without. Checksums only recognise them.
      classes: the number of classes; None takes the largest train label + 1.

    Returns:
      The data set. A known one is checked by the SHA-256 of each decompressed file, and fetched
      where no good copy is bundled or cached.

    Raises:
      DataError: files are missing, damaged or break a rule of `from_arrays`, or no mirror helps.
      ConfigError: the name is unknown or cannot be imported, or `classes` is not positive.
    """
    if directory is not None:
        source, reader = str(Path(directory).expanduser()), _DIRECTORY
    elif name in KNOWN:
        source, reader = name, KNOWN[name]
    elif ":" in name:
        return _load_custom(name, classes)
    else:
        rule = f"choose one of {', '.join(sorted(KNOWN))}, 'package.module:function' or dataset.dir"
        hint = did_you_mean(name, KNOWN)
        raise ConfigError([f"dataset.name = {name!r} is unknown; {rule}{hint}"])
    return resolve(reader, key="dataset.name")(source, classes)


def _load_custom(name: str, classes: int | None) -> Dataset:
    """What the user's function returns, held to the rules of every data set."""
    function = resolve(name, key="dataset.name")
    made = function() if callable(function) else function
    if not isinstance(made, Dataset):
        rule = "expected a function that makes a Dataset with jaxmnist.datasets.from_arrays"
        raise DataError(f"{name} gives {type(made).__name__}; {rule}")
    arrays = {}
    for part in ("train", "test", "validation"):
        if split := getattr(made, part):
            arrays[f"{name}: {part} images"] = split.images
            arrays[f"{name}: {part} labels"] = split.labels
    classes = made.classes if classes is None else classes
    return assemble(arrays, classes, name=made.name, sha256=made.sha256, source=name)
