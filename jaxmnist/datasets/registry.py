"""Finds a data set by name, by the dotted path of a function, or in a directory of IDX files."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxmnist.config import did_you_mean
from jaxmnist.datasets.dataset import Dataset, assemble
from jaxmnist.datasets.fetch import cache_directory, fetch
from jaxmnist.datasets.idx import HashedArray, read_idx_hashed
from jaxmnist.errors import ConfigError, DataError
from jaxmnist.names import resolve

# The largest file of a known set has 47 MB; no mirror may send, or unpack to, more than this.
_MAX_BYTES = 1 << 26


@dataclasses.dataclass(frozen=True)
class KnownDataset:
    """Four files that can be recognised and fetched.

    Attributes:
      mirrors: URLs of directories that hold the gzipped files, in order of preference.
      sha256: digest of each decompressed file by its name: train images, train labels, test
        images, test labels.
    """

    mirrors: Sequence[str]
    sha256: Mapping[str, str]


KNOWN: Mapping[str, KnownDataset] = {
    name: KnownDataset(**known)
    for name, known in json.loads(Path(__file__).with_name("known.json").read_text()).items()
}
_FILES = tuple(KNOWN["mnist"].sha256)


def load(
    name: str = "mnist",
    *,
    directory: str | os.PathLike[str] | None = None,
    classes: int | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    mirrors: Sequence[str] | None = None,
) -> Dataset:
    """Loads a data set into memory.

    Args:
      name: a key of `KNOWN`, or "package.module:function" for a function without arguments that
        returns a `Dataset` (see `from_arrays`).
      directory: wins over the name; holds the four IDX files of any sizes under their standard
        names (train-images-idx3-ubyte or train-images.idx3-ubyte and so on), with .gz or
        without; where both are there, the one without. Checksums only recognise them.
      classes: the number of classes; None takes the largest train label + 1.
      cache_dir: where fetched files are kept; see `fetch.cache_directory`.
      mirrors: URLs to fetch from instead of the known ones.

    Returns:
      The data set. A known one is checked by the SHA-256 of each decompressed file, and fetched
      where no good copy is bundled or cached.

    Raises:
      DataError: files are missing, damaged or break a rule of `from_arrays`, or no mirror helps.
      ConfigError: the name is unknown or cannot be imported, or `classes` is not positive.
    """
    source = name if directory is None else str(Path(directory).expanduser())
    if directory is not None:
        contents = _read_directory(Path(source))
    elif name in KNOWN:
        cache = cache_directory(cache_dir) / name
        contents = {
            f"{name}/{file}": _read_known(name, file, cache=cache, mirrors=mirrors)
            for file in _FILES
        }
    elif ":" in name:
        return _load_custom(name, classes)
    else:
        rule = f"choose one of {', '.join(sorted(KNOWN))}, name a function of yours"
        hint = f"'package.module:function', or set dataset.dir{did_you_mean(name, KNOWN)}"
        raise ConfigError([f"dataset.name = {name!r} is unknown; {rule} {hint}"])
    arrays = {source: array for source, (array, _) in contents.items()}
    digests = dict(zip(_FILES, (digest for _, digest in contents.values()), strict=True))
    recognised = next((key for key, known in KNOWN.items() if known.sha256 == digests), None)
    name = recognised or Path(source).resolve().name
    facts = {"sha256": digests, "known": recognised is not None, "source": source}
    return assemble(arrays, name=name, classes=classes, **facts)


def _read_known(name: str, file: str, *, cache: Path, mirrors: Sequence[str] | None) -> HashedArray:
    """A file that is as it should be: bundled, in the cache, or fetched into it."""
    known, zipped = KNOWN[name], f"{file}.gz"

    def read(path: Path) -> HashedArray:
        array, digest = read_idx_hashed(path, max_bytes=_MAX_BYTES)
        if digest != known.sha256[file]:
            fault = f"SHA-256 of the decompressed file is {digest}, expected {known.sha256[file]}"
            raise DataError(f"{path}: {fault}")
        return array, digest

    faults = []
    for path in (Path(__file__).parent / f"{name}_files" / zipped, cache / zipped):
        try:
            return read(path)
        except DataError as error:
            if path.exists():
                faults.append(str(error))
    urls = [f"{mirror.rstrip('/')}/{zipped}" for mirror in mirrors or known.mirrors]
    return fetch(cache / zipped, urls, verify=read, max_bytes=_MAX_BYTES, tried=faults)


def _read_directory(directory: Path) -> dict[str, HashedArray]:
    """The four files of a directory, by path."""
    paths: dict[str, Path] = {}
    for file in _FILES:
        spellings = file.replace("-idx", "[-.]idx")
        for path in sorted(directory.glob(f"{spellings}.gz")) + sorted(directory.glob(spellings)):
            paths[file] = path
    if missing := [file for file in _FILES if file not in paths]:
        readable = os.access(directory, os.R_OK | os.X_OK)
        fault = "files are missing" if readable else "not a directory that can be read"
        rule = "put them there (.idx and .gz are fine too) or correct dataset.dir"
        raise DataError(f"{directory}: {fault}: {', '.join(missing)}; {rule}")
    return {
        str(path): read_idx_hashed(path, ndim=3 if "images" in file else 1)
        for file, path in paths.items()
    }


def _load_custom(name: str, classes: int | None) -> Dataset:
    """What the user's function returns, held to the rules of every data set."""
    function = resolve(name, key="dataset.name")
    made = function() if callable(function) else function
    if not isinstance(made, Dataset):
        rule = "expected a function that makes a Dataset with jaxmnist.datasets.from_arrays"
        raise DataError(f"{name} gives {type(made).__name__}; {rule}")
    arrays = {
        f"{name}: {split} {part}": getattr(getattr(made, split), part)
        for split in ("train", "test", "validation")
        for part in ("images", "labels")
        if getattr(made, split) is not None
    }
    classes = made.classes if classes is None else classes
    facts = {"sha256": made.sha256, "known": made.known, "source": name}
    return assemble(arrays, name=made.name, classes=classes, **facts)
