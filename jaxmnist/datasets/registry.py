"""Finds a data set by name, by the dotted path of a function, or in a directory of IDX files."""

import dataclasses
import difflib
import functools
import importlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from jaxmnist.datasets.dataset import Dataset, assemble
from jaxmnist.datasets.fetch import cache_directory, fetch
from jaxmnist.datasets.idx import read_idx_hashed
from jaxmnist.errors import ConfigError, DataError

_Idx = tuple[NDArray[np.uint8], str]

# The sizes are the same for both sets, since one is made to replace the other.
_SIZES_BYTES = MappingProxyType(
    {
        "train-images-idx3-ubyte": 47_040_016,
        "train-labels-idx1-ubyte": 60_008,
        "t10k-images-idx3-ubyte": 7_840_016,
        "t10k-labels-idx1-ubyte": 10_008,
    }
)
_FILES = tuple(_SIZES_BYTES)
# Room for what gzip adds to data that it cannot compress.
_GZIP_MARGIN_BYTES = 1 << 16


@dataclasses.dataclass(frozen=True)
class KnownDataset:
    """Four files that can be recognised and fetched.

    Attributes:
      mirrors: URLs of directories that hold the gzipped files, in order of preference.
      sha256: digest of each decompressed file, in the order train images, train labels, test
        images, test labels.
    """

    mirrors: tuple[str, ...]
    sha256: tuple[str, str, str, str]


KNOWN: Mapping[str, KnownDataset] = MappingProxyType(
    {
        "fashion_mnist": KnownDataset(
            mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
            sha256=(
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
        ),
        "mnist": KnownDataset(
            mirrors=(
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
            ),
            sha256=(
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        ),
    }
)


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
    if directory is not None:
        return _load_directory(Path(directory).expanduser(), classes)
    if name in KNOWN:
        return _load_known(name, classes, cache=cache_directory(cache_dir), mirrors=mirrors)
    if ":" in name:
        return _load_custom(name, classes)
    close = difflib.get_close_matches(name, KNOWN, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    raise ConfigError(
        [
            f"dataset.name = {name!r} is unknown{hint} choose one of {', '.join(sorted(KNOWN))}, "
            "name your function as 'package.module:function', or set dataset.dir to a directory "
            "of IDX files"
        ]
    )


def _load_known(
    name: str, classes: int | None, *, cache: Path, mirrors: Sequence[str] | None
) -> Dataset:
    known = KNOWN[name]
    bundled = Path(__file__).parent / f"{name}_files"

    def find(file: str) -> _Idx | list[str]:
        """Returns the first good local copy, or what is wrong with each that is there."""
        faults = []
        for directory in (bundled, cache / name):
            try:
                return _read_known(known, file, directory / f"{file}.gz")
            except DataError as error:
                if not isinstance(error.__cause__, FileNotFoundError):
                    faults.append(str(error))
        return faults

    with ThreadPoolExecutor(len(_FILES)) as pool:
        found = dict(zip(_FILES, pool.map(find, _FILES), strict=True))
    contents = []
    for file, content in found.items():
        if isinstance(content, list):
            content = fetch(
                cache / name / f"{file}.gz",
                [f"{mirror.rstrip('/')}/{file}.gz" for mirror in mirrors or known.mirrors],
                verify=functools.partial(_read_known, known, file),
                max_bytes=_SIZES_BYTES[file] + _GZIP_MARGIN_BYTES,
                tried=content,
            )
        contents.append(content)
    return _from_files(contents, [f"{name}/{file}" for file in _FILES], name, name, classes)


def _read_known(known: KnownDataset, file: str, path: Path) -> _Idx:
    array, digest = read_idx_hashed(path, max_bytes=_SIZES_BYTES[file])
    expected = known.sha256[_FILES.index(file)]
    if digest != expected:
        raise DataError(
            f"{path}: SHA-256 of the decompressed file is {digest}, expected {expected}"
        )
    return array, digest


def _load_directory(directory: Path, classes: int | None) -> Dataset:
    looked_for = {
        file: [stem + end for stem in (file, file.replace("-idx", ".idx")) for end in ("", ".gz")]
        for file in _FILES
    }
    try:
        there = {path.name for path in directory.iterdir()}
    except OSError as error:
        raise DataError(
            f"{directory}: not a directory that can be read: {error.strerror}; "
            f"dataset.dir must be one that holds {', '.join(_FILES)}, each gzipped or not"
        ) from error
    chosen = {
        file: next((name for name in names if name in there), None)
        for file, names in looked_for.items()
    }
    missing = [" or ".join(looked_for[file]) for file, name in chosen.items() if name is None]
    if missing:
        raise DataError(
            f"{directory}: files are missing; put them there or correct dataset.dir:"
            + "".join(f"\n  - {names}" for names in missing)
        )
    paths = [directory / name for name in chosen.values() if name is not None]
    with ThreadPoolExecutor(len(_FILES)) as pool:
        contents = list(pool.map(_read, _FILES, paths))
    sources = [str(path) for path in paths]
    return _from_files(contents, sources, directory.resolve().name, str(directory), classes)


def _read(file: str, path: Path) -> _Idx:
    return read_idx_hashed(path, ndim=3 if "images" in file else 1)


def _from_files(
    contents: Sequence[_Idx], sources: Sequence[str], name: str, origin: str, classes: int | None
) -> Dataset:
    digests = tuple(digest for _, digest in contents)
    recognised = next((key for key, known in KNOWN.items() if known.sha256 == digests), None)
    arrays = [(source, array) for source, (array, _) in zip(sources, contents, strict=True)]
    return dataclasses.replace(
        assemble(arrays, name=recognised or name, classes=classes),
        sha256=dict(zip(_FILES, digests, strict=True)),
        known=recognised is not None,
        source=origin,
    )


def _load_custom(name: str, classes: int | None) -> Dataset:
    """Calls the user's function and holds what it returns to the rules of every data set."""
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
        if not callable(function):
            raise TypeError(f"{function_name} is a {type(function).__name__}, not a function")
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            [
                f"dataset.name = {name!r} cannot be imported: {error}; "
                "it must be 'package.module:function' of an installed module or one on PYTHONPATH"
            ]
        ) from error
    made = function()
    if not isinstance(made, Dataset):
        raise DataError(
            f"{name} returned {type(made).__name__}, expected a jaxmnist.datasets.Dataset; "
            "make one with jaxmnist.datasets.from_arrays"
        )
    splits = {"train": made.train, "test": made.test, "validation": made.validation}
    arrays = [
        (f"{name}: {split_name} {part}", getattr(split, part))
        for split_name, split in splits.items()
        if split is not None
        for part in ("images", "labels")
    ]
    checked = assemble(arrays, name=made.name, classes=made.classes if classes is None else classes)
    return dataclasses.replace(checked, sha256=made.sha256, known=made.known, source=name)
