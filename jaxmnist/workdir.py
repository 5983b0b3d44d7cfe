"""A run's directory: which file lies where, and whether a run may go on in it."""

import datetime
import itertools
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxmnist.config import from_dict, resume_difference, to_dict
from jaxmnist.errors import WorkdirError
from jaxmnist.names import resolve
from jaxmnist.writers import write_atomically

# Found by name, so that the core needs no library of an object store.
COPY = "jaxmnist.bucket.copy:fetch"


class Workdir:
    """The places in a work directory.

    Attributes:
      path: the directory.
      address: what people call it: the path, or the address in a bucket that it mirrors.
      config: the resolved configuration, JSON.
      metrics: one JSON object a line.
      checkpoints: directory of the checkpoints, one directory a step.
      tensorboard: directory of the event files.
      result: the result of a finished run, JSON.
    """

    def __init__(self, path: Path, address: str = ""):
        self.path, self.address = path, address or str(path)
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.tensorboard = path / "tensorboard"
        self.result = path / "result.json"

    def resume_command(self, command: Sequence[str]) -> str:
        """What to type to go on here: a command line without --workdir, or a call in Python."""
        if command:
            return shlex.join([*command, f"--workdir={self.address}"])
        return f"jaxmnist.train(config, workdir={self.address!r})"

    def name_of(self, place: Path) -> str:
        """What people call a file or directory in it."""
        return f"{self.address}/{place.relative_to(self.path)}"


def local_path(workdir: str | Path) -> Path:
    """The path of a run that is to be read; one in a bucket is copied to this machine.

    Raises:
      UsageError: it is the address of another object store, or a library is missing.
      WorkdirError: the bucket cannot be used, or holds no run there.
    """
    return resolve(COPY)(str(workdir)) if "://" in str(workdir) else Path(workdir)


def fresh_path(name: str, *, under: Path = Path("runs")) -> Path:
    """A path that does not exist yet, named after the time: runs/20260131-142500-mnist."""
    stem = f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{name}"
    ends = itertools.chain([""], (f"-{number}" for number in itertools.count(1)))
    return next(path for end in ends if not (path := under / f"{stem}{end}").exists())


def open_workdir(
    path: Path,
    config: ConfigDict,
    *,
    allow_config_change: bool = False,
    write: bool = True,
    address: str = "",
) -> Workdir:
    """Makes a work directory ready for a run of `config`, new or resumed.

    Args:
      path: of the directory; made where it is missing.
      config: of the run.
      allow_config_change: go on although keys differ that decide what is computed.
      write: make the directory and write the configuration; of many processes one does.
      address: what people call it, where that is not the path.

    Raises:
      WorkdirError: it cannot be written, holds something else, or a run of another config.
    """
    workdir = Workdir(path, address)
    if path.exists() and not path.is_dir():
        raise WorkdirError(f"work directory {workdir.address} is a file: choose another --workdir")
    if workdir.config.exists():
        differing = () if allow_config_change else resume_difference(read_config(workdir), config)
        if lines := [f"\n  - {key}: {old!r} there, {new!r} now" for key, old, new in differing]:
            fault = f"work directory {workdir.address} holds a run of another configuration:"
            fault += "".join(lines)
            repair = "give the same configuration, or pass --allow_config_change"
            raise WorkdirError(f"{fault}\nchoose another --workdir, {repair}")
    # A kill or another process on the way to config.json leaves .config.json.123.
    elif any(not file.name.lstrip(".").startswith("config.json") for file in path.glob("*")):
        fault = "is not empty and holds no config.json: it is not a run of jaxmnist"
        raise WorkdirError(
            f"work directory {workdir.address} {fault}; choose a new or empty --workdir"
        )
    try:
        if write:
            path.mkdir(parents=True, exist_ok=True)
            write_atomically(workdir.config, json.dumps(to_dict(config), indent=2) + "\n")
    except OSError as error:
        fault = f"cannot be written: {error.strerror}; choose another --workdir"
        raise WorkdirError(f"work directory {workdir.address} {fault}") from error
    return workdir


def read_config(workdir: Workdir) -> ConfigDict:
    """The configuration of the run in a work directory.

    Raises:
      WorkdirError: there is no run, or its config.json cannot be read or has keys that this
        version does not know.
    """
    path = workdir.config
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise TypeError(f"a {type(values).__name__} where an object belongs")
        return from_dict(values)
    except FileNotFoundError as error:
        fault = f"{workdir.address} is not the work directory of a run: it holds no {path.name}"
        raise WorkdirError(f"{fault}; give --workdir of a run of `jaxmnist train`") from error
    except (OSError, ValueError, TypeError) as error:
        repair = "restore it, or start anew in another --workdir"
        faults = "; ".join(getattr(error, "faults", [str(error)]))
        raise WorkdirError(f"{path} cannot be read: {faults}; {repair}") from error


def read_result(workdir: Workdir) -> dict[str, Any] | None:
    """The result in a work directory; None where there is none or it was cut off."""
    try:
        return {**json.loads(workdir.result.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError):
        return None
