"""Evaluates parameters on a split: every example exactly once, whatever the batch."""

import functools
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmnist.checkpoint import CheckpointInfo, newest_good, read_info, restore, steps_in
from jaxmnist.errors import CheckpointError
from jaxmnist.mesh import in_flight_limit
from jaxmnist.metrics import Evaluation
from jaxmnist.names import resolve
from jaxmnist.pipeline import eval_batches, placed_ahead, process_rows
from jaxmnist.runs.setup import Setup, prepare
from jaxmnist.state import TrainState
from jaxmnist.step import Batch, Step, make_eval_step, place_batch
from jaxmnist.workdir import Workdir, local_path, read_config


class Evaluator:
    """Evaluates the states of one run; the step is compiled once for all splits."""

    def __init__(self, setup: Setup):
        """Compiles nothing yet."""
        self._setup = setup
        self._strategy = setup.config.parallel.strategy
        self._step: Step = make_eval_step(setup.task, setup.mesh, strategy=self._strategy)
        devices = setup.mesh.size
        largest = max(len(split) for split in setup.data.splits.values())
        self._batch_size = min(setup.config.eval.batch_size, largest)
        self._padded_size = -(-self._batch_size // devices) * devices

    def run(
        self, state: TrainState, split: str, *, stop: Callable[[], bool] = lambda: False
    ) -> Evaluation | None:
        """Evaluates on a split; None when `stop` said so in between.

        The sums of a batch are exact counts in float32; over batches they are added on the host, in
        float64 and integers, and divided once.
        """
        setup, size = self._setup, self._padded_size
        batches = eval_batches(
            setup.data.splits[split],
            batch_size=self._batch_size,
            padded_size=size,
            rows=process_rows(size, process=jax.process_index(), processes=jax.process_count()),
        )
        place = functools.partial(place_batch, mesh=setup.mesh, strategy=self._strategy)
        limit = in_flight_limit(setup.mesh)
        done, waiting = [], deque[Any]()
        for batch in placed_ahead(batches, place):
            if stop():
                return None
            waiting.append(self._step(state.inference_params, state.batch_stats, batch))
            done.append(waiting[-1])
            if len(waiting) > limit:
                jax.block_until_ready(waiting.popleft())
        sums = jax.device_get(done)
        confusion = sum(np.rint(s.confusion).astype(np.int64) for s in sums)
        return Evaluation.from_sums(sum(float(s.loss) for s in sums), np.asarray(confusion))

    def compile(self, state: TrainState) -> None:
        """Compiles the step ahead of its first use."""
        data, rows = self._setup.data, self._padded_size // jax.process_count()
        image = np.zeros((rows, *data.image_shape), np.uint8)
        batch = Batch(image=image, label=np.zeros(rows, np.int32), mask=np.zeros(rows, bool))
        placed = place_batch(batch, self._setup.mesh, strategy=self._strategy)
        self._step.compile(state.inference_params, state.batch_stats, placed)


def load_run(
    workdir: str | Path, *, step: int | None = None, conv: str | None = None, **parts: Any
) -> tuple[Setup, TrainState, CheckpointInfo]:
    """The setup of a finished or stopped run and the state of one of its checkpoints.

    The model's convolution is `conv` in place of the configured one, if given.

    Raises:
      UsageError: the run was given parts in Python, and they are not given again.
      WorkdirError: the directory is not that of a run, or its bucket cannot be used.
      CheckpointError: no such checkpoint, or it is damaged.
    """
    place = Workdir(local_path(workdir), str(workdir))
    config = read_config(place)
    info = find_checkpoint(place, step)
    # Evaluating does not need the devices that trained.
    config.parallel.devices, config.parallel.deterministic = None, False
    config.model.conv = conv or config.model.conv
    read: Any = restore
    if info.notes.get("parts"):
        ready = resolve("jaxmnist.zoo.own.given:for_evaluation")
        parts, read = ready(info.notes, parts, workdir=place.address)
    setup = prepare(config, training=False, **parts)
    state = read(place.checkpoints, info, setup.state_shapes())
    return setup, state, info


def find_checkpoint(workdir: Workdir, step: int | None) -> CheckpointInfo:
    """The checkpoint of a step, or the newest that is sound.

    Raises:
      CheckpointError: there is none.
    """
    if step is not None:
        if step not in (there := steps_in(workdir.checkpoints)):
            have = f"there are {', '.join(map(str, there)) or 'none'}"
            raise CheckpointError(f"{workdir.address} has no checkpoint of step {step}: {have}")
        return read_info(workdir.checkpoints, step)
    info, faults = newest_good(workdir.checkpoints)
    if info is None:
        detail = "".join(f"\n  - {fault}" for fault in faults) or " it holds none"
        raise CheckpointError(f"{workdir.address} has no checkpoint that can be used:{detail}")
    return info
