"""Copies a run out of a bucket for commands that read it, and puts what they write beside it."""

import atexit
import shutil
import tempfile
from pathlib import Path

from jaxmnist.bucket.address import parse
from jaxmnist.bucket.mirror import check_is_run
from jaxmnist.bucket.store import Store
from jaxmnist.bucket.sync import Sync
from jaxmnist.errors import WorkdirError


def fetch(workdir: str) -> Path:
    """A directory with the run of a bucket, without its event files; gone when Python ends.

    Raises:
      UsageError: it is no address in a bucket, or the library is not installed.
      WorkdirError: the bucket cannot be used, or holds no run there.
    """
    if (address := parse(workdir)) is None:
        return Path(workdir)
    store = Store(address)
    if "config.json" not in (listing := check_is_run(store)):
        repair = "give --workdir of a run of `jaxmnist train`"
        fault = f"{address} is not the work directory of a run: it holds no config.json"
        raise WorkdirError(f"{fault}; {repair}")
    folder = tempfile.mkdtemp(prefix="jaxmnist-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / address.name
    Sync(store, path).pull(listing, skip=("tensorboard/", "profile/"))
    return path


def publish(workdir: str | Path, directory: Path) -> None:
    """Uploads the files of a directory that are new or changed, other than checkpoints.

    Args:
      workdir: where to; does nothing where it is a path of this machine.
      directory: of a run, as `fetch` returned it or a run has left it.

    Raises:
      WorkdirError: the bucket cannot be used.
    """
    if (address := parse(workdir)) is not None:
        store = Store(address)
        sync = Sync(store, directory)
        sync.know(store.listing())
        sync.push_files()
