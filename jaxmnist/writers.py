"""Where the metrics of a run go: a file of JSON lines and TensorBoard event files."""

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Writer(Protocol):
    """Takes the metrics of a run, one record at a time, in the order of the steps."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Hands a record with "split", "step", "epoch" and any numbers to the operating system."""

    def close(self) -> None:
        """Lets go of the files."""


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


class TensorBoardWriter:
    """Scalars under "<split>/<name>"; what is written survives a kill.

    tensorboardX's own `SummaryWriter` passes events through a queue that its flush does not wait
    for, so that those before a checkpoint could be lost.
    """

    def __init__(self, directory: Path, *, first_step: int):
        """Opens a new event file; TensorBoard then ignores older events from `first_step` on."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        directory.mkdir(parents=True, exist_ok=True)
        # Its name is otherwise made of the second and the host, and an old file would be emptied.
        self._events = EventsWriter(str(directory / "events"), f".{time.time_ns()}")
        self.close = self._events.close
        self._add(first_step, session_log=SessionLog(status=SessionLog.START))

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes each number of the record as a scalar."""
        from tensorboardX.summary import scalar

        for name, value in record.items():
            if name not in ("split", "step"):
                self._add(record["step"], summary=scalar(f"{record['split']}/{name}", value))
        self._events.flush()

    def _add(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._events.write_event(Event(wall_time=time.time(), step=step, **content))
