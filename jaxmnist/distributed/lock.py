"""Keeps a second run out of a work directory, for as long as the process of the first lives."""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from jaxmnist.errors import WorkdirError

#: Name of the file in the work directory; what is in it tells people who holds it.
LOCK: Final = ".config.json.lock"
# A file system without locks, such as some that are mounted from object stores.
_NO_LOCKS: Final = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock of a work directory within the block; makes the directory where missing.

    The operating system lets go of the lock when the process ends, however it ends: a file that a
    dead process left behind is no obstacle. On a file system without locks it does nothing.

    Raises:
      WorkdirError: the directory cannot be written, or another process holds it; the text says
        which, where and since when.
    """
    with contextlib.ExitStack() as stack:
        try:
            path.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((path / LOCK).open("a+"))
            _lock(file)
            now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
            file.truncate(0)
            file.write(json.dumps(holder))
            file.flush()
        except BlockingIOError as error:
            raise WorkdirError(_in_use(path)) from error
        except OSError as error:
            fault = f"cannot be written: {error.strerror}; choose another --workdir"
            raise WorkdirError(f"work directory {path} {fault}") from error
        yield


def _lock(file: IO[str]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _in_use(path: Path) -> str:
    try:
        holder = json.loads((path / LOCK).read_text())
        who = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has only just been locked
        who = "another process"
    repair = "wait for that run, stop it, or choose another --workdir"
    return f"work directory {path} is in use by {who}: {repair}"
