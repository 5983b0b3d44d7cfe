"""Data sets that are four IDX files: those known by name, and those in a directory."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxmnist.datasets.dataset import Dataset, assemble
from jaxmnist.errors import DataError
from jaxmnist.zoo.idx.download import cache_directory, fetch
from jaxmnist.zoo.idx.reader import HashedArray, read_idx

# The largest file of a known set has 47 MB; no mirror may send, or unpack to, more than this.
_MAX_BYTES = 1 << 26
# By name: "mirrors", URLs of directories that hold the gzipped files, in order of preference, and
# "sha256", the digests of the decompressed train images, train labels, test images, test labels.
FILES: Mapping[str, Any] = json.loads(Path(__file__).with_name("known.json").read_text())
_NAMES = tuple(FILES["mnist"]["sha256"])


def read_known(name: str, classes: int | None) -> Dataset:
    """A set of `FILES`, checked by the digests of its files.

    Raises:
      DataError: no good copy is bundled or cached, and no mirror helps.
    """
    contents = {f"{name}/{file}": _read_known(name, file) for file in _NAMES}
    return _assembled(contents, classes, source=name)


def read_directory(source: str, classes: int | None) -> Dataset:
    """The four files of a directory, of any sizes; digests only recognise a known set.

    Raises:
      DataError: files are missing, damaged or break a rule of `from_arrays`.
    """
    directory = Path(source)
    # Of the spellings of a name the plain one comes last, and wins.
    there = sorted(directory.glob("*-ubyte*"), reverse=True)
    paths = {path.name.removesuffix(".gz").replace(".idx", "-idx"): path for path in there}
    if missing := [file for file in _NAMES if file not in paths]:
        fault = "files are missing" if directory.is_dir() else "not a directory that can be read"
        rule = "put them there (.idx and .gz are fine too) or correct dataset.dir"
        raise DataError(f"{directory}: {fault}: {', '.join(missing)}; {rule}")
    contents = {str(paths[file]): read_idx(paths[file]) for file in _NAMES}
    return _assembled(contents, classes, source=source)


def _assembled(contents: Mapping[str, HashedArray], classes: int | None, *, source: str) -> Dataset:
    arrays = {path: array for path, (array, _) in contents.items()}
    digests = dict(zip(_NAMES, (digest for _, digest in contents.values()), strict=True))
    recognised = (key for key, known in FILES.items() if known["sha256"] == digests)
    name = next(recognised, Path(source).resolve().name)
    return assemble(arrays, classes, name=name, sha256=digests, source=source)


def _read_known(name: str, file: str) -> HashedArray:
    """A file that is as it should be: bundled, in the cache, or fetched into it."""
    known, zipped, faults = FILES[name], f"{file}.gz", []
    verify = functools.partial(read_idx, max_bytes=_MAX_BYTES, sha256=known["sha256"][file])
    bundled = Path(__file__).parent / f"{name}_files" / zipped
    cached = cache_directory() / name / zipped
    for path in filter(Path.exists, (bundled, cached)):
        try:
            return verify(path)
        except DataError as error:
            faults.append(str(error))
    urls = [f"{mirror}{zipped}" for mirror in known["mirrors"]]
    return fetch(cached, urls, verify=verify, max_bytes=_MAX_BYTES, tried=faults)
