"""Records: one JSON object a line for each run of a program, with all that a reader must know."""

import datetime
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("jaxmnist", "jax", "jaxlib", "flax", "optax", "grain", "numpy", "torch")


def environment(*, devices: bool) -> dict[str, Any]:
    """Machine, cores, versions and commit.

    Args:
      devices: whether to ask JAX for its devices; a program that leaves them to its child
        processes must not occupy them.
    """
    from jaxmnist.mesh import usable_cores

    found: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": usable_cores(),
        "load": round(os.getloadavg()[0], 2),
        "versions": {"python": platform.python_version()} | _versions(),
    }
    if devices:
        import jax

        first, *_ = jax.devices()
        found["devices"] = {
            "platform": first.platform,
            "kind": first.device_kind,
            "count": jax.device_count(),
        }
    return found


class Recording:
    """The record of this run of a program; written once, at the end."""

    def __init__(self, arguments: Any, *, devices: bool = True):
        """Notes the environment now: make it before the first measurement."""
        self._path = Path(arguments.records) / f"{Path(sys.argv[0]).stem}.jsonl"
        self._head = {
            "benchmark": self._path.stem,
            "command": command_line(sys.argv),
            "environment": environment(devices=devices),
        }

    def write(self, rows: Sequence[Any], **facts: Any) -> dict[str, Any]:
        """Appends the record to the program's file and returns it.

        Args:
          rows: what was measured.
          **facts: whatever else belongs to the record; `devices` are those of child processes.
        """
        if devices := facts.pop("devices", None):
            self._head["environment"]["devices"] = devices
        record = self._head | facts | {"rows": list(rows)}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(f"\nrecorded in {self._path}")
        return record


def command_line(argv: Sequence[str]) -> str:
    """The command as typed from the root of the repository, without where records go."""
    rest = list(argv[1:])
    if "--records" in rest:
        place = rest.index("--records")
        del rest[place : place + 2]
    rest = [argument for argument in rest if not argument.startswith("--records=")]
    return shlex.join(["python", f"benchmarks/{Path(argv[0]).name}", *rest])


def read_records(directory: Path) -> dict[str, list[dict[str, Any]]]:
    """All records by the name of their file, in the order in which they were made."""
    return {
        path.stem: [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]
        for path in sorted(directory.glob("*.jsonl"))
    }


def latest(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The newest record of each command on each kind of device."""
    newest: dict[Any, dict[str, Any]] = {}
    for record in records:
        place = record["environment"]
        key = (record["command"], place["processor"], place.get("devices", {}).get("kind"))
        newest.pop(key, None)
        newest[key] = record
    return list(newest.values())


def digest(directory: Path) -> str:
    """SHA-256 over the names and bytes of all records; a document made from them carries it."""
    total = hashlib.sha256()
    for path in sorted(directory.glob("*.jsonl")):
        total.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


def _commit() -> str:
    """The commit, marked where anything but records and documents differs from it."""
    places = (".", ":!benchmarks/records", ":!docs")
    changed = _git("status", "--porcelain", "--", *places)
    return _git("rev-parse", "--short=12", "HEAD") + ("-dirty" if changed else "")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_ROOT), *arguments]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return run.stdout.strip()


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
