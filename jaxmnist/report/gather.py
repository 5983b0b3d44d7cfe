"""Reads what a work directory holds, in whatever state it is, and notes what is missing and why."""

import hashlib
import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from jaxmnist.checkpoint import CheckpointInfo, newest_good
from jaxmnist.config.values import flatten
from jaxmnist.errors import WorkdirError
from jaxmnist.workdir import Workdir

#: By split, whether its lines are evaluations at certain epochs, or the training all along.
SPLITS: Final = {"train": False, "test": True, "validation": True}
# What is shown of a checkpoint's manifest; its digest says nothing of what was written.
_MANIFEST: Final = {
    "step": int,
    "time": str,
    "params_sha256": str,
    "size_bytes": int,
    "notes": dict,
}
# Larger numbers are taken for nonsense: axes and sums could not hold them.
_LARGEST = 1e30


@dataclass(frozen=True)
class Run:
    """What a work directory says of its run; nothing of it has been checked.

    Attributes:
      path: of the work directory.
      name: what to call the run.
      config: values by dotted key; empty where there are none.
      config_sha256: of the file; empty where there is none.
      result: what result.json holds.
      records: lines of metrics.jsonl that have a known split and finite step and epoch.
      checkpoint: the newest sound one.
      missing: what cannot be shown and why, a sentence each.
    """

    path: Path
    name: str
    config: Mapping[str, Any]
    config_sha256: str
    result: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]
    checkpoint: CheckpointInfo | None
    missing: tuple[str, ...]

    def curve(self, split: str, name: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Epochs and finite values of one metric on one split."""
        lines = [(r["epoch"], r.get(name)) for r in self.records if r["split"] == split]
        points = [(float(x), number(y)) for x, y in lines if math.isfinite(number(y))]
        epochs, values = np.array(points).reshape(-1, 2).T
        return epochs, values


def read_runs(paths: Sequence[str | Path]) -> list[Run]:
    """Reads work directories; runs are called by their directory, or path where that is taken.

    Raises:
      WorkdirError: one is not the directory of a run; what is damaged in one is no error.
    """
    places = [Path(path) for path in paths]
    names = [place.resolve().name for place in places]
    return [
        _read_run(place, name if names.count(name) == 1 else str(place))
        for place, name in zip(places, names, strict=True)
    ]


def number(value: Any) -> float:
    """A number of sensible size as a float; NaN for everything else."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST
    return float(value) if good else math.nan


def pick(values: Any, path: str) -> Any:
    """The value at a dotted path of nested dictionaries; None where there is none."""
    for part in path.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def brief(value: Any) -> str:
    """Any value as a text of bounded length."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = shortener.maxlong = 200
    shortener.maxdict = shortener.maxlist = 20
    return shortener.repr(value)


def _read_run(path: Path, name: str) -> Run:
    place, missing = Workdir(path), list[str]()
    if not any(p.exists() for p in (place.config, place.metrics, place.result, place.checkpoints)):
        rule = "it holds no config.json, metrics.jsonl, result.json or checkpoints"
        repair = "give the --workdir of a run of `jaxmnist train`"
        raise WorkdirError(f"{path} is not the work directory of a run: {rule}; {repair}")
    config, result = (_read_object(file, missing) for file in (place.config, place.result))
    digest = hashlib.sha256(_read(place.config, [])).hexdigest() if config else ""
    records = _read_records(place.metrics, missing)
    try:
        checkpoint, faults = newest_good(place.checkpoints)
        found = vars(checkpoint) if checkpoint else {}
        if odd := [n for n in found if type(found[n]) is not _MANIFEST.get(n, type(found[n]))]:
            raise ValueError(f"the newest has no sensible {', '.join(odd)}")
    except (OSError, ValueError) as error:
        checkpoint, faults = None, [f"checkpoints cannot be read: {error}"]
    missing += faults if checkpoint else [*faults, "there is no checkpoint that can be used"]
    return Run(path, name, config, digest, result, records, checkpoint, tuple(missing))


def _read(path: Path, missing: list[str]) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is not a regular file")  # a pipe would be waited for
        if not (content := path.read_bytes()):
            raise OSError("it is empty")
        return content
    except OSError as error:
        missing.append(f"{path.name} cannot be read: {error.strerror or error}")
        return b""


def _read_object(path: Path, missing: list[str]) -> dict[str, Any]:
    """The object in a JSON file; a configuration by dotted key."""
    if not (content := _read(path, missing)):
        return {}
    try:
        values = json.loads(content)
        if not isinstance(values, dict):
            raise ValueError(f"it is {brief(values)}")
        flat = flatten(values)
        repr(flat)  # what is nested deeper than this can do, nothing else could show
        return flat if path.name == "config.json" else values
    except (ValueError, RecursionError) as error:
        missing.append(f"{path.name} holds no JSON object that can be read: {error}")
        return {}


def _read_records(path: Path, missing: list[str]) -> list[dict[str, Any]]:
    lines, records, bad = _read(path, missing).splitlines(), [], []
    for at, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            places = [number(record[name]) for name in ("step", "epoch")]
            if record["split"] not in SPLITS or not np.isfinite(places).all():
                raise ValueError("it does not say of what, or when")
            records.append(record)
        except (ValueError, TypeError, KeyError, RecursionError):
            bad.append(at)
    if bad:
        cut = "; the last one may have been cut off as it was written" * (bad[-1] == len(lines))
        where = f"the first of them is line {bad[0]}{cut}"
        missing.append(f"{len(bad)} of {len(lines)} lines of {path.name} cannot be used: {where}")
    for name in ("loss", "accuracy"):
        if steps := [r["step"] for r in records if not math.isfinite(number(r.get(name)))]:
            where = f"first at step {brief(steps[0])}, left out of the curve"
            missing.append(f"{path.name} has no finite {name} in {len(steps)} lines, {where}")
    return records
