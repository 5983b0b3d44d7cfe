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
_TIMEOUT_S = 20.0  # without an answer or a byte
_DEADLINE_S = 900.0  # for a whole download


def cache_directory(override: str | os.PathLike[str] | None = None) -> Path:
    """Returns where fetched files are kept, without making it.

    Args:
      override: wins over the environment variable JAXMNIST_CACHE, which wins over the user's
        cache home.
    """
    from platformdirs import user_cache_dir

    chosen = override or os.environ.get("JAXMNIST_CACHE") or user_cache_dir("jaxmnist")
    return Path(chosen).expanduser()


def fetch(
    target: Path,
    urls: Sequence[str],
    *,
    verify: Callable[[Path], _T],
    max_bytes: int,
    tried: Sequence[str] = (),
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

    Returns:
      What `verify` returned for the file now at `target`.

    Raises:
      DataError: no URL gave a file that verifies (the text lists each with its reason and says
        how to provide the files by hand), or the cache directory cannot be used.
    """
    from http.client import HTTPException

    from filelock import FileLock

    faults = list(tried)
    # One name for all: who holds the lock overwrites what a killed process left behind.
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{target}.lock").acquire(timeout=_LOCK_TIMEOUT_S)
    except OSError as error:
        fault = f"the cache directory cannot be used: {error}"
        rule = "set JAXMNIST_CACHE to a directory that you may write to"
        raise DataError(f"{target.parent}: {fault}; {rule}") from error
    with lock:
        # A process that held the lock before may have fetched the file.
        with contextlib.suppress(DataError):
            return verify(target)
        for url in urls:
            try:
                _download(url, part, max_bytes=max_bytes)
                content = verify(part)
                part.replace(target)
                return content
            # ValueError: a malformed URL, or a DataError of `verify`.
            except (OSError, HTTPException, ValueError) as error:
                faults.append(f"{url}: {error or type(error).__name__}")
            finally:
                part.unlink(missing_ok=True)
    tries = "".join(f"\n  - {fault}" for fault in faults)
    repair = "To provide the four IDX files by hand, gzipped or not: --config.dataset.dir=DIRECTORY"
    raise DataError(f"{target.name} could not be had:{tries}\n{repair}")


def _download(url: str, part: Path, *, max_bytes: int) -> None:
    from urllib.request import Request, urlopen

    end_s = time.monotonic() + _DEADLINE_S
    request = Request(url, headers={"User-Agent": "jaxmnist"})
    with urlopen(request, timeout=_TIMEOUT_S) as response, part.open("wb") as file:
        # read1 returns what has come: a mirror that drips cannot outlast the deadline.
        while chunk := response.read1(_CHUNK_BYTES):
            file.write(chunk)
            if file.tell() > max_bytes:
                raise DataError(f"longer than the limit of {max_bytes} bytes")
            if time.monotonic() > end_s:
                raise TimeoutError(f"not complete after {_DEADLINE_S:g} s")
