"""A sweep from top to bottom."""

import json
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from ml_collections import ConfigDict

from jaxmnist.config import from_dict, resume_difference, to_dict
from jaxmnist.display.terminal import Terminal
from jaxmnist.errors import ConfigError, Interrupted, UsageError, WorkdirError
from jaxmnist.signals import StopRequest, stop_requests
from jaxmnist.sweep.book import Book, Sweep
from jaxmnist.sweep.grid import Run, describe, expand
from jaxmnist.sweep.processes import Place, find_places, work
from jaxmnist.workdir import fresh_path
from jaxmnist.writers import write_atomically

_IDENTITY = "sweep.json"


def sweep(
    config: ConfigDict,
    workdir: str | Path | None = None,
    *,
    seeds: Sequence[int],
    grid: Mapping[str, Sequence[object]] | None = None,
    at_once: int = 1,
    quiet: bool = False,
    command: Sequence[str] = (),
) -> Sweep:
    """Trains every point of a grid with every seed, or goes on with an earlier sweep.

    Each run is a process that trains as `jaxmnist.train` does, bit for bit, in a work directory of
    its own; a finished one is not repeated and a broken one goes on. A run that fails is recorded
    with its reason and the others go on; the next call tries it again.

    Args:
      config: what all runs have in common. Models, data sets and optimizers of your own are given
        as "package.module:Name", since each run is a process of its own.
      workdir: where everything is kept; None for a fresh directory under `runs/`. A sweep that is
        there must be of the same configuration and grid; it may get further seeds.
      seeds: of the runs; the seed of `config` is not used.
      grid: values by key of the configuration; every combination is a point.
      at_once: how many runs go on at the same time, each on one GPU, or on CPU devices of its own
        as many as it has alone; one after the other uses all devices.
      quiet: print nothing.
      command: the command line to show where it is told how to resume, without --workdir.

    Returns:
      The records of the runs, and means, deviations and confidence intervals by point.

    Raises:
      UsageError: seeds, grid or at_once cannot be.
      ConfigError: what a point of the grid asks for cannot be; found before anything is trained.
      WorkdirError: the directory cannot be used, or holds another sweep.
      Interrupted: a signal asked to stop; the runs under way are saved.
    """
    # ---- What shall be run: whatever is wrong with it is said before anything is trained.
    grid = {key: [str(value) for value in values] for key, values in (grid or {}).items()}
    runs = expand(config, seeds=seeds, grid=grid)
    if "://" in str(workdir):
        repair = "give a directory; each run of it may be trained into a bucket by itself"
        raise UsageError(f"--workdir={workdir}: a sweep cannot lie in an object store: {repair}")
    path = fresh_path("sweep") if workdir is None else Path(workdir)
    identity = {"config": to_dict(config) | {"seed": 0}, "grid": grid, "seeds": sorted(seeds)}
    _check_same_sweep(path, identity)
    places = find_places(config, at_once)
    resume = shlex.join([*command, f"--workdir={path}"])
    if not command:
        resume = f"jaxmnist.sweep(config, {str(path)!r}, seeds={[*seeds]}, grid={grid})"
    with ExitStack() as stack:
        stop = stack.enter_context(stop_requests())
        terminal = stack.enter_context(Terminal(quiet=quiet))
        book = Book(path, runs)
        _check_points(book, places, stop)

        # ---- The runs that no earlier sweep has finished, each noted as it ends.
        stack.enter_context(_alone_in(path))
        write_atomically(path / _IDENTITY, json.dumps(identity, indent=2) + "\n")
        terminal.message(f"{'sweep:':<16} {book.progress}, {at_once} at once")
        terminal.message(f"{'work directory:':<16} {path}\n{'to resume:':<16} {resume}")
        _run_all(book, places, stop, terminal=terminal)
        found = book.finish()
        if stop.signal_number is not None:
            text = f"stopped, and saved: {book.progress}. To go on:\n  {resume}"
            raise Interrupted(text, signal_number=stop.signal_number)
        return found


def _check_same_sweep(path: Path, identity: Mapping[str, Any]) -> None:
    """Raises WorkdirError unless the directory is free or holds this sweep."""
    place = path / _IDENTITY
    if not place.exists():
        # A kill on the way to sweep.json leaves the lock, or .sweep.json.123.
        if path.exists() and not path.is_dir():
            raise WorkdirError(f"work directory {path} is a file: choose another --workdir")
        if any(not file.name.startswith(f".{_IDENTITY}") for file in path.glob("*")):
            fault = f"is not empty and holds no {_IDENTITY}: it is not a sweep of jaxmnist"
            raise WorkdirError(f"work directory {path} {fault}; choose a new or empty --workdir")
        return
    try:
        there = json.loads(place.read_text(encoding="utf-8"))
        old, new = from_dict(there["config"]), from_dict(identity["config"])
        faults = [f"{key}: {a!r} there, {b!r} now" for key, a, b in resume_difference(old, new)]
        if there["grid"] != identity["grid"]:
            faults.append(f"the grid: {there['grid']} there, {identity['grid']} now")
        if missing := sorted({*there["seeds"]} - {*identity["seeds"]}):
            faults.append(f"the seeds {', '.join(map(str, missing))} are there and left out now")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise WorkdirError(f"{place} cannot be read: {error}; start anew elsewhere") from error
    if faults:
        lines = "".join(f"\n  - {fault}" for fault in faults)
        repair = "give the same ones (further seeds are welcome), or choose another --workdir"
        raise WorkdirError(f"work directory {path} holds another sweep:{lines}\n{repair}")


@contextmanager
def _alone_in(path: Path) -> Iterator[None]:
    try:
        path.mkdir(parents=True, exist_ok=True)
        # The system lets go of it when this process ends, however it ends.
        with FileLock(path / f".{_IDENTITY}.lock", timeout=0):
            yield
    except Timeout as error:
        repair = "wait until it has ended, or choose another --workdir"
        raise WorkdirError(f"another sweep is under way in {path}: {repair}") from error
    except OSError as error:
        fault = f"cannot be written: {error.strerror}; choose another --workdir"
        raise WorkdirError(f"work directory {path} {fault}") from error


def _check_points(book: Book, places: Sequence[Place], stop: StopRequest) -> None:
    """Asks for each point that has not begun whether it could be run here, before any is."""
    begun = [dict(run.point) for name, run in book.runs.items() if book.place(name).config.exists()]
    ahead = {describe(run.point): run for run in book.open if dict(run.point) not in begun}
    requests = {words: _request(run, None) for words, run in ahead.items()}
    faults = []
    for words, fault in work(requests, places=places, stop=stop):
        if fault and not stop:
            faults.append(": ".join(filter(None, [words, fault.removeprefix("configuration: ")])))
    if stop.signal_number is not None:
        raise Interrupted("stopped before the first run", signal_number=stop.signal_number)
    if faults:
        raise ConfigError(faults)


def _run_all(book: Book, places: Sequence[Place], stop: StopRequest, *, terminal: Any) -> None:
    requests = {run.name: _request(run, book.path / run.name) for run in book.open}
    start, ended = time.monotonic(), 0
    for name, fault in work(requests, places=places, stop=stop):
        if stop and fault:
            continue  # it was asked to stop
        line = book.note(name, fault)
        ended += 1
        left = (time.monotonic() - start) / ended * (len(requests) - ended)
        if line["status"] == "done":
            speed = f"{line['train']['seconds']:.1f} s of training"
            text = f"test {line['test']['accuracy']:.2%}  {speed}"
        else:
            text = f"failed: {fault}"
        clock = f"{int(left) // 60}:{int(left) % 60:02d} left"
        terminal.message(f"{book.runs[name].words}  {text}  ({book.progress}, {clock})")


def _request(run: Run, workdir: Path | None) -> dict[str, Any]:
    return {"config": to_dict(run.config), "workdir": None if workdir is None else str(workdir)}
