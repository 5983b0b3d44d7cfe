"""A run's directory: which file lies where, and whether a run may go on in it."""

import datetime
import json
from collections.abc import Mapping
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
    path = under / f"{stamp}-{name}"
    number = 1
    while path.exists():
        path = under / f"{stamp}-{name}-{number}"
        number += 1
    return path


def open_workdir(path: Path, config: ConfigDict, *, allow_config_change: bool = False) -> Workdir:
    """Makes a work directory ready for a run of `config`, new or resumed.

    Args:
      path: of the directory; made where it is missing.
      config: of the run.
      allow_config_change: go on although keys differ that decide what is computed.

    Raises:
      WorkdirError: it cannot be written, holds something else, or a run of another config.
    """
    workdir = Workdir(path)
    if path.exists() and not path.is_dir():
        raise WorkdirError(f"work directory {path} is a file: choose another --workdir")
    if path.is_dir() and not workdir.config.exists() and any(path.iterdir()):
        raise WorkdirError(
            f"work directory {path} is not empty and holds no config.json: it is not a run of "
            "jaxmnist; choose a new or empty --workdir"
        )
    if workdir.config.exists() and not allow_config_change:
        _refuse_other_config(workdir, config)
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_atomically(workdir.config, json.dumps(to_dict(config), indent=2) + "\n")
    except OSError as error:
        raise WorkdirError(
            f"work directory {path} cannot be written: {error.strerror or error}; choose another "
            "--workdir"
        ) from error
    return workdir


def read_config(workdir: Workdir) -> ConfigDict:
    """The configuration of the run in a work directory.

    Raises:
      WorkdirError: there is no run, or its config.json cannot be read.
    """
    return from_checked(workdir, _read_json(workdir.config, workdir))


def from_checked(workdir: Workdir, values: Mapping[str, Any]) -> ConfigDict:
    """A configuration from the values in a work directory's config.json.

    Raises:
      WorkdirError: it has keys that this version does not know.
    """
    try:
        return from_dict(values)
    except ConfigError as error:
        raise WorkdirError(f"{workdir.config}: {error}") from error


def read_result(workdir: Workdir) -> dict[str, Any] | None:
    """The result in a work directory; None where there is none or it was cut off."""
    try:
        values = json.loads(workdir.result.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def _refuse_other_config(workdir: Workdir, config: ConfigDict) -> None:
    before = read_config(workdir)
    if differing := resume_difference(before, config):
        lines = "".join(f"\n  - {key}: {old!r} there, {new!r} now" for key, old, new in differing)
        raise WorkdirError(
            f"work directory {workdir.path} holds a run of another configuration:{lines}\n"
            "choose another --workdir, give the same configuration, or pass --allow_config_change"
        )


def _read_json(path: Path, workdir: Workdir) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WorkdirError(
            f"{workdir.path} is not the work directory of a run: it holds no {path.name}; "
            "give --workdir of a run of `jaxmnist train`"
        ) from error
    except (OSError, ValueError) as error:
        raise WorkdirError(
            f"{path} cannot be read: {error}; restore it, or start anew in another --workdir"
        ) from error
    if not isinstance(values, dict):
        raise WorkdirError(f"{path} holds {type(values).__name__} where an object belongs")
    return values
