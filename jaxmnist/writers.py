"""Where the metrics of a run go: a file of JSON lines and TensorBoard event files."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self


class Writer(Protocol):
    """Takes the metrics of a run, one record at a time, in the order of the steps."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Takes a record with "split", "step", "epoch" and any numbers."""

    def flush(self) -> None:
        """Hands everything to the operating system, so that a kill loses nothing."""

    def close(self) -> None:
        """Flushes and lets go of the files."""


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics file; a last line that was cut off is left out."""
    records = []
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            break
        if isinstance(record, dict):
            records.append(record)
    return records


def drop_after(path: Path, step: int) -> None:
    """Keeps the records of a metrics file up to a step, by writing it anew and renaming."""
    kept = [r for r in read_records(path) if r["step"] <= step]
    write_atomically(path, "".join(json.dumps(r) + "\n" for r in kept))


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that readers see either the old content or the new, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


class JsonlWriter:
    """One JSON object a line; what a run did not know yet is simply not there."""

    def __init__(self, path: Path):
        """Opens the file for appending."""
        self._file = path.open("a", encoding="utf-8")

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends a line."""
        self._file.write(json.dumps(record) + "\n")

    def flush(self) -> None:
        """Hands the lines to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class TensorBoardWriter:
    """Scalars under "<split>/<name>"; what is flushed survives a kill.

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
        self._add(first_step, session_log=SessionLog(status=SessionLog.START))

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes each number of the record as a scalar."""
        from tensorboardX.summary import scalar

        for name, value in record.items():
            if name not in ("split", "step") and isinstance(value, int | float):
                tag = f"{record['split']}/{name}"
                self._add(record["step"], summary=scalar(tag, value))

    def flush(self) -> None:
        """Hands the events to the operating system."""
        self._events.flush()

    def close(self) -> None:
        """Closes the event file."""
        self._events.close()

    def _add(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._events.write_event(Event(wall_time=time.time(), step=step, **content))


class Writers:
    """Several writers as one, closed at the end of a `with` block."""

    def __init__(self, writers: Sequence[Writer]):
        """Writes to each, in this order."""
        self._writers = tuple(writers)

    def write(self, record: Mapping[str, Any]) -> None:
        """Passes the record on."""
        for writer in self._writers:
            writer.write(record)

    def flush(self) -> None:
        """Flushes each."""
        for writer in self._writers:
            writer.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for writer in self._writers:
            writer.close()
