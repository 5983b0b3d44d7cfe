"""Lists the checkpoints of a run."""

from pathlib import Path
from typing import Any

from jaxmnist.checkpoint import read_info, steps_in
from jaxmnist.errors import CheckpointError
from jaxmnist.workdir import Workdir, read_config


def list_checkpoints(workdir: str | Path) -> list[dict[str, Any]]:
    """One row for each checkpoint, oldest first: its digests are verified, a fault is in its row.

    Raises:
      WorkdirError: the directory is not that of a run.
    """
    place = Workdir(Path(workdir))
    read_config(place)
    rows = []
    for step in steps_in(place.checkpoints):
        try:
            info = read_info(place.checkpoints, step)
        except CheckpointError as error:
            fault = str(error)
            rows.append(
                {"step": step, "time": "", "size": "", "params_sha256": "", "damaged": fault}
            )
            rows[-1]["summary"] = fault
            continue
        metrics = info.notes["metrics"]
        rows.append(
            {
                "step": step,
                "time": info.time,
                "metrics": metrics,
                "size_bytes": info.size_bytes,
                "size": f"{info.size_bytes / 1e6:.1f} MB",
                "params_sha256": info.params_sha256,
                "ema_sha256": info.ema_sha256,
                "state_sha256": info.state_sha256,
                "summary": _summary(metrics),
            }
        )
    return rows


def _summary(metrics: dict[str, Any]) -> str:
    if not metrics:
        return ""
    return f"{metrics['split']} accuracy {metrics['accuracy']:.2%}, loss {metrics['loss']:.4f}"
