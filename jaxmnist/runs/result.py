"""The result of a run, as Python sees it and as result.json keeps it."""

import json
import platform
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from jaxmnist.metrics import Evaluation
from jaxmnist.runs.setup import Setup
from jaxmnist.state import TrainState

_PACKAGES = ("jaxmnist", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


@dataclass(frozen=True)
class TrainSummary:
    """What training took; over all parts of a resumed run.

    Attributes:
      steps: optimizer steps.
      epochs: passes over the training data.
      examples: rows that were trained on.
      seconds: wall time of the training steps with the input pipeline.
      images_per_second: examples / seconds.
      compile_seconds: wall time of tracing and compiling.
      eval_seconds: wall time of the evaluations.
      checkpoint_seconds: wall time the loop waited for checkpoints.
      total_seconds: all of them.
    """

    steps: int
    epochs: float
    examples: int
    seconds: float
    images_per_second: float
    compile_seconds: float
    eval_seconds: float
    checkpoint_seconds: float
    total_seconds: float


@dataclass(frozen=True)
class Best:
    """The state that did best on the validation examples.

    Attributes:
      step: finished steps.
      validation: its evaluation there.
      test: its evaluation on the test split, made once at the end.
    """

    step: int
    validation: dict[str, float]
    test: Evaluation


@dataclass(frozen=True)
class Result:
    """What a run gives back.

    Attributes:
      test: the last state, evaluated on the test split.
      train: what training took.
      params_count: number of parameters.
      params_sha256: digest of the last parameters.
      ema_sha256: digest of their moving average, or None.
      best: the best state by validation, None without validation examples.
      devices: what the run ran on.
      versions: of Python and the packages.
      workdir: where everything lies.
      history: the records of metrics.jsonl.
      state: the last state, on the devices.
    """

    test: Evaluation
    train: TrainSummary
    params_count: int
    params_sha256: str
    ema_sha256: str | None
    best: Best | None
    devices: dict[str, Any]
    versions: dict[str, str]
    workdir: Path
    history: list[dict[str, Any]] = field(repr=False)
    state: TrainState | None = field(repr=False)

    @staticmethod
    def from_dict(
        values: Mapping[str, Any], workdir: Path, history: list[dict[str, Any]], state: TrainState
    ) -> "Result":
        """The inverse of `to_dict`."""
        test, train = Evaluation.from_dict(values["test"]), TrainSummary(**values["train"])
        count, sha256, ema = (values["params"][name] for name in ("count", "sha256", "ema_sha256"))
        if best := values.get("best"):
            best = Best(**best | {"test": Evaluation.from_dict(best["test"])})
        found = test, train, count, sha256, ema, best, values["devices"], values["versions"]
        return Result(*found, workdir, history, state)

    def to_dict(self) -> dict[str, Any]:
        """The result as a dictionary that JSON can hold."""
        values = {"test": self.test.to_dict(), "train": vars(self.train)}
        params = {"count": self.params_count, "sha256": self.params_sha256}
        values["params"] = params | {"ema_sha256": self.ema_sha256}
        values |= {"devices": self.devices, "versions": self.versions}
        if self.best is not None:
            values["best"] = vars(self.best) | {"test": self.best.test.to_dict()}
        return values

    def to_json(self, mesh: Mesh, *, command: str) -> str:
        """What result.json holds: beside the result the peak memory, and what was typed."""
        beside = {"memory": _peak_memory(mesh), "command": command}
        return json.dumps(self.to_dict() | beside, indent=2) + "\n"


def summarize(setup: Setup, seconds: Mapping[str, float]) -> TrainSummary:
    """The summary of a finished training from the seconds of its parts."""
    examples, parts = setup.steps * setup.config.batch_size, ("compile", "eval", "checkpoint")
    return TrainSummary(
        steps=setup.steps,
        epochs=setup.epoch(setup.steps),
        examples=examples,
        seconds=seconds["train"],
        images_per_second=examples / seconds["train"],
        total_seconds=sum(seconds.values()),
        **{f"{part}_seconds": seconds[part] for part in parts},
    )


def describe_devices(mesh: Mesh) -> dict[str, Any]:
    """Platform, kind and number of the devices of a mesh, and the number of processes."""
    first = mesh.devices.flat[0]
    kind = {"platform": first.platform, "kind": first.device_kind}
    return kind | {"count": int(mesh.size), "processes": jax.process_count()}


def _peak_memory(mesh: Mesh) -> dict[str, int]:
    """The most bytes in use so far: of this process on the host, of a device (0: not told)."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stats = [device.memory_stats() or {} for device in mesh.local_devices]
    device = max(s.get("peak_bytes_in_use", 0) for s in stats)
    unit = 1 if sys.platform == "darwin" else 1024
    return {"host_peak_bytes": host * unit, "device_peak_bytes": device}


def versions() -> dict[str, str]:
    """Versions of Python, the system and the packages that decide what is computed."""
    system = f"{platform.system()} {platform.machine()}"
    found = {"python": platform.python_version(), "system": system}
    return found | {package: metadata.version(package) for package in _PACKAGES}
