"""Lists the checkpoints of a run."""

import dataclasses
from pathlib import Path
from typing import Any

from jaxmnist.checkpoint import read_info, steps_in
from jaxmnist.errors import CheckpointError
from jaxmnist.workdir import Workdir, local_path, read_config


def list_checkpoints(workdir: str | Path) -> list[dict[str, Any]]:
    """One row for each checkpoint, oldest first: its digests are verified, a fault is in its row.

    Raises:
      WorkdirError: the directory is not that of a run.
    """
    place = Workdir(local_path(workdir), str(workdir))
    read_config(place)
    rows = []
    for step in steps_in(place.checkpoints):
        row: dict[str, Any] = {"step": step, "time": "", "size": "", "params_sha256": ""}
        try:
            row |= dataclasses.asdict(read_info(place.checkpoints, step))
            row["metrics"] = row.pop("notes")["metrics"]
            row["size"] = f"{row['size_bytes'] / 1e6:.1f} MB"
            text = "{split} accuracy {accuracy:.2%}, loss {loss:.4f}" if row["metrics"] else ""
            row["summary"] = text.format_map(row["metrics"])
        except CheckpointError as error:
            row["damaged"] = row["summary"] = str(error)
        rows.append(row)
    return rows
