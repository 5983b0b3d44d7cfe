"""Finds a data set by name, by the dotted path of a function, or in a directory."""

from collections.abc import Mapping
from pathlib import Path

from jaxmnist.config import did_you_mean
from jaxmnist.datasets.dataset import Dataset
from jaxmnist.errors import ConfigError
from jaxmnist.names import resolve

# Functions `(name, classes) -> Dataset` by name, and the one that reads a directory.
KNOWN: Mapping[str, str] = dict.fromkeys(("mnist", "fashion_mnist"), "jaxmnist.zoo.idx:read_known")
_DIRECTORY = "jaxmnist.zoo.files:read"


def load(
    name: str = "mnist", *, directory: str | Path | None = None, classes: int | None = None
) -> Dataset:
    """Loads a data set into memory.

    Args:
      name: a key of `KNOWN`, or "package.module:function" for a function without arguments that
        returns a `Dataset` (see `from_arrays`), or for a `Dataset`.
      directory: wins over the name. It holds the four IDX files of any sizes under their standard
        names (train-images-idx3-ubyte or train-images.idx3-ubyte and so on), with .gz or
        without; where both are there, the one without; checksums only recognise them. Or it holds
        class folders of pictures (see `jaxmnist.zoo.files.folders`), or it is an .npz file (see
        `jaxmnist.zoo.files.npz`).
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
        return resolve("jaxmnist.zoo.own.data:load")(name, classes)
    else:
        rule = f"choose one of {', '.join(sorted(KNOWN))}, 'package.module:function' or dataset.dir"
        hint = did_you_mean(name, KNOWN)
        raise ConfigError([f"dataset.name = {name!r} is unknown; {rule}{hint}"])
    return resolve(reader, key="dataset.name")(source, classes)
