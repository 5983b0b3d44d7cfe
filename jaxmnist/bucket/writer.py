"""Checkpoints of a job whose processes do not share a directory: process 0 writes them alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxmnist.checkpoint import CheckpointWriter
from jaxmnist.state import TrainState


class LoneWriter(CheckpointWriter):
    """As its base, in process 0 of a job, and without waiting for the others."""

    def __init__(self, directory: Path, *, keep: int, best_step: int | None = None):
        """As the base."""
        from orbax.checkpoint.options import MultiprocessingOptions

        directory.mkdir(parents=True, exist_ok=True)  # Orbax does not, for some processes alone
        alone = MultiprocessingOptions(active_processes={0}, barrier_sync_key_prefix="lone")
        more = {"create": False, "multiprocessing_options": alone}
        super().__init__(directory, keep=keep, best_step=best_step, **more)

    def save(self, step: int, state: TrainState, notes: Mapping[str, Any]) -> None:
        """As the base; what is written are the arrays of the host, of which process 0 has all."""
        super().save(step, jax.device_get(state), notes)


class NoWriter:
    """What the other processes have: they write nothing.

    Attributes:
      best_step: may be set, as that of `CheckpointWriter`.
    """

    best_step: int | None = None

    def save(self, step: int, state: TrainState, notes: Mapping[str, Any]) -> None:
        """Does nothing."""

    def wait(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""
