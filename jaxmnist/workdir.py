"""A run's directory: which file lies where, and whether a run may go on in it."""

import datetime
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxmnist.config import from_dict, resume_difference, to_dict
from jaxmnist.errors import ConfigError, WorkdirError
from jaxmnist.writers import write_atomically


@dataclass(frozen=True)
class Workdir:
    """The places in a work directory.

    Attributes:
      path: the directory.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration, JSON."""
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Directory of the checkpoints, one directory a step."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """Directory of the event files."""
        return self.path / "tensorboard"

    @property
    def result(self) -> Path:
        """The result of a finished run, JSON."""
        return self.path / "result.json"


def fresh_path(name: str, *, under: Path = Path("runs")) -> Path:
    """A path that does not exist yet, named after the time: runs/20260131-142500-mnist."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    ends = ("" if number == 0 else f"-{number}" for number in itertools.count())
    paths = (under / f"{stamp}-{name}{end}" for end in ends)
    return next(path for path in paths if not path.exists())


def open_workdir(
    path: Path, config: ConfigDict, *, allow_config_change: bool = False, write: bool = True
) -> Workdir:
    """Makes a work directory ready for a run of `config`, new or resumed.

    Args:
      path: of the directory; made where it is missing.
      config: of the run.
      allow_config_change: go on although keys differ that decide what is computed.
      write: make the directory and write the configuration; of many processes one does.

    Raises:
      WorkdirError: it cannot be written, holds something else, or a run of another config.
    """
    workdir = Workdir(path)
    if path.exists() and not path.is_dir():
        raise WorkdirError(f"work directory {path} is a file: choose another --workdir")
    if workdir.config.exists():
        differing = () if allow_config_change else resume_difference(read_config(workdir), config)
        if lines := [f"\n  - {key}: {old!r} there, {new!r} now" for key, old, new in differing]:
            fault = f"work directory {path} holds a run of another configuration:{''.join(lines)}"
            repair = "give the same configuration, or pass --allow_config_change"
            raise WorkdirError(f"{fault}\nchoose another --workdir, {repair}")
    elif path.exists() and any(not _is_config(file, workdir) for file in path.iterdir()):
        fault = "is not empty and holds no config.json: it is not a run of jaxmnist"
        raise WorkdirError(f"work directory {path} {fault}; choose a new or empty --workdir")
    if not write:
        return workdir
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_atomically(workdir.config, json.dumps(to_dict(config), indent=2) + "\n")
    except OSError as error:
        fault = f"cannot be written: {error.strerror or error}"
        raise WorkdirError(f"work directory {path} {fault}; choose another --workdir") from error
    return workdir


def _is_config(file: Path, workdir: Workdir) -> bool:
    """Whether it is config.json, or what a kill or another process on the way to it leaves."""
    return file.name == workdir.config.name or file.name.startswith(f".{workdir.config.name}.")


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
            raise TypeError(f"it holds {type(values).__name__} where an object belongs")
        return from_dict(values)
    except FileNotFoundError as error:
        fault = f"is not the work directory of a run: it holds no {path.name}"
        repair = "give --workdir of a run of `jaxmnist train`"
        raise WorkdirError(f"{workdir.path} {fault}; {repair}") from error
    except ConfigError as error:
        raise WorkdirError(f"{path}: {error}") from error
    except (OSError, ValueError, TypeError) as error:
        repair = "restore it, or start anew in another --workdir"
        raise WorkdirError(f"{path} cannot be read: {error}; {repair}") from error


def read_result(workdir: Workdir) -> dict[str, Any] | None:
    """The result in a work directory; None where there is none or it was cut off."""
    try:
        values = json.loads(workdir.result.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None
