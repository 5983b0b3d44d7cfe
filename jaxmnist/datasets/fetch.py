"""Fetches a file from its mirrors in turn: locked, limited, verified, moved into place at once."""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from jaxmnist.errors import DataError

_T = TypeVar("_T")
_CHUNK_BYTES = 1 << 16
_LOCK_TIMEOUT_S = 3600.0


def cache_directory(override: str | os.PathLike[str] | None = None) -> Path:
    """Returns where fetched files are kept, without making it.

    Args:
      override: wins over the environment variable JAXMNIST_CACHE, which wins over the user's
        cache home.
    """
    chosen = override or os.environ.get("JAXMNIST_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("jaxmnist"))


def fetch(
    target: Path,
    urls: Sequence[str],
    *,
    verify: Callable[[Path], _T],
    max_bytes: int,
    tried: Sequence[str] = (),
    timeout_s: float = 20.0,
    deadline_s: float = 900.0,
) -> _T:
    """Makes `target` a verified file, downloading it unless another process just did.

    Processes that fetch the same target wait for each other. A file that fails to verify never
    takes the place of `target`, and a reader never sees half a file.

    Args:
      target: where the file belongs; its directory is made.
      urls: where to look, in this order.
      verify: reads a file and returns what is of use in it, or raises DataError.
      max_bytes: a longer answer is given up.
      tried: sentences on what failed before, repeated in the error.
      timeout_s: seconds without an answer or a byte after which a mirror is given up.
      deadline_s: seconds for one whole download.

    Returns:
      What `verify` returned for the file now at `target`.

    Raises:
      DataError: no URL gave a file that verifies (the text lists each with its reason and says
        how to provide the files by hand), or the cache directory cannot be used.
    """
    from http.client import HTTPException

    from filelock import FileLock

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock", timeout=_LOCK_TIMEOUT_S):
            # A process that held the lock before may have fetched the file.
            with contextlib.suppress(DataError):
                return verify(target)
            faults = list(tried)
            for url in urls:
                try:
                    return _fetch_one(
                        target, url, verify, max_bytes, timeout_s=timeout_s, deadline_s=deadline_s
                    )
                # ValueError: a malformed URL, or a DataError of `verify`.
                except (OSError, HTTPException, ValueError) as error:
                    faults.append(f"{url}: {error or type(error).__name__}")
    except OSError as error:
        raise DataError(
            f"{target.parent}: the cache directory cannot be used: {error}; "
            "set JAXMNIST_CACHE to a directory that you may write to"
        ) from error
    raise DataError(
        f"{target.name} could not be had:"
        + "".join(f"\n  - {fault}" for fault in faults)
        + "\nTo provide the files by hand, put the four IDX files, gzipped or not, into a "
        "directory and give it with --config.dataset.dir=DIRECTORY"
    )


def _fetch_one(
    target: Path,
    url: str,
    verify: Callable[[Path], _T],
    max_bytes: int,
    *,
    timeout_s: float,
    deadline_s: float,
) -> _T:
    # One name for all: who holds the lock overwrites what a killed process left behind.
    part = target.with_name(f"{target.name}.part")
    try:
        _download(url, part, max_bytes=max_bytes, timeout_s=timeout_s, deadline_s=deadline_s)
        value = verify(part)
        part.replace(target)
        return value
    finally:
        part.unlink(missing_ok=True)


def _download(url: str, part: Path, *, max_bytes: int, timeout_s: float, deadline_s: float) -> None:
    from urllib.request import Request, urlopen

    end_s = time.monotonic() + deadline_s
    request = Request(url, headers={"User-Agent": "jaxmnist"})
    with urlopen(request, timeout=timeout_s) as response, part.open("wb") as file:
        promised = response.headers.get("Content-Length")
        # read1 returns what has come: a mirror that drips cannot outlast the deadline.
        while chunk := response.read1(_CHUNK_BYTES):
            file.write(chunk)
            if file.tell() > max_bytes:
                raise DataError(f"longer than the limit of {max_bytes} bytes")
            if time.monotonic() > end_s:
                raise TimeoutError(f"not complete after {deadline_s:g} s")
        if promised is not None and file.tell() != int(promised):
            raise DataError(f"cut off after {file.tell()} of {promised} bytes")
