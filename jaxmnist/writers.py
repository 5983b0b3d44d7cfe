"""Where the metrics of a run go: a file of JSON lines, and what a configuration names."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from jaxmnist.names import find

WRITERS: Mapping[str, str] = {"tensorboard": "jaxmnist.zoo.tensorboard:TensorBoardWriter"}


class Writer(Protocol):
    """Takes the metrics of a run, one record at a time, in the order of the steps.

    It is made by `Writer(setup, place, first_step=step)` and may be a `jaxmnist.callbacks.Callback`
    as well; of several processes the first one has it.
    """

    def write(self, record: Mapping[str, Any]) -> None:
        """Hands a record with "split", "step", "epoch" and any numbers to the operating system."""

    def close(self) -> None:
        """Lets go of the files."""


def writer_types(names: str | None) -> list[Any]:
    """What makes the writers that are named, with commas between them.

    Raises:
      ConfigError: a name is unknown, or a dotted path cannot be imported or called.
    """
    split = [name.strip() for name in names.split(",")] if names else []
    return [find(name, WRITERS, key="log.writers", kind="a class of writers") for name in split]


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics file; a last line that was cut off is left out."""
    records = []
    with contextlib.suppress(FileNotFoundError, ValueError):
        for line in path.read_bytes().splitlines():
            records.append(json.loads(line))
    return records


def drop_after(path: Path, step: int) -> None:
    """Keeps the records of a metrics file up to a step, by writing it anew and renaming."""
    kept = [r for r in read_records(path) if r["step"] <= step]
    write_atomically(path, "".join(json.dumps(r) + "\n" for r in kept))


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that readers see either the old content or the new, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    temporary.replace(path)


class JsonlWriter:
    """One JSON object a line; what a run did not know yet is simply not there."""

    def __init__(self, path: Path):
        """Opens the file for appending."""
        self._file = path.open("a", encoding="utf-8", buffering=1)  # each line leaves at once
        self.close = self._file.close

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends a line."""
        self._file.write(json.dumps(record) + "\n")
