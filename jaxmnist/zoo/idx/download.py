"""Fetches a file from its mirrors in turn: locked, limited, verified, moved into place at once."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxmnist.errors import DataError

_LOCK_TIMEOUT_S = 3600.0
_TIMEOUT_S = 20.0  # without an answer or a byte
_DEADLINE_S = 900.0  # for a whole file


def cache_directory() -> Path:
    """Returns where fetched files are kept, without making it.

    The environment variable JAXMNIST_CACHE wins over the user's cache home.
    """
    from platformdirs import user_cache_dir

    return Path(os.environ.get("JAXMNIST_CACHE") or user_cache_dir("jaxmnist")).expanduser()


def fetch(
    target: Path, urls: list[str], *, verify: Callable[..., Any], max_bytes: int, tried: list[str]
) -> Any:
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
    from filelock import FileLock

    lines = [f"{target.name} could not be had:", *tried]
    # One name for all: who holds the lock overwrites what a killed process left behind.
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{target}.lock").acquire(timeout=_LOCK_TIMEOUT_S)
    except OSError as error:
        raise DataError(f"cannot cache files ({error}): set JAXMNIST_CACHE to another") from error
    with lock:
        # A process that held the lock before may have fetched the file.
        with contextlib.suppress(DataError):
            return verify(target)
        for url in urls:
            try:
                part.write_bytes(_download(url, max_bytes))
                content = verify(part)
                part.replace(target)
                return content
            except Exception as error:  # a mirror may answer anything
                lines.append(f"{url}: {error or type(error).__name__}")
        part.unlink(missing_ok=True)
    repair = "To provide the four IDX files by hand, gzipped or not: --config.dataset.dir=DIRECTORY"
    raise DataError("\n  - ".join(lines) + f"\n{repair}")


def _download(url: str, max_bytes: int) -> bytes:
    from urllib.request import urlopen

    content, end_s = bytearray(), time.monotonic() + _DEADLINE_S
    with urlopen(url, timeout=_TIMEOUT_S) as response:
        # read1 returns what has come: a mirror that drips cannot outlast the deadline.
        while chunk := response.read1(1 << 16):
            content += chunk
            if len(content) > max_bytes:
                raise DataError(f"longer than the limit of {max_bytes} bytes")
            if time.monotonic() > end_s:
                raise TimeoutError(f"not complete after {_DEADLINE_S:g} s")
    return bytes(content)
