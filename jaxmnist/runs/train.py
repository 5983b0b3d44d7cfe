"""A training run from top to bottom."""

import functools
import json
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from jaxmnist.checkpoint import CheckpointInfo, newest_good, read_info, restore, set_aside_after
from jaxmnist.clock import Clock
from jaxmnist.errors import Interrupted, UsageError, WorkdirError
from jaxmnist.pipeline import BatchSource, placed_ahead, process_rows, train_batches
from jaxmnist.runs.panel import panel_rows, resume_command
from jaxmnist.runs.recorder import Recorder
from jaxmnist.runs.result import Best, Result, describe_devices, summarize, versions
from jaxmnist.runs.setup import Setup, in_flight_limit, prepare
from jaxmnist.signals import StopRequest, stop_requests
from jaxmnist.state import TrainState, parameter_count, tree_sha256
from jaxmnist.step import Batch, Step, make_train_step, place_batch
from jaxmnist.terminal import Terminal
from jaxmnist.workdir import Workdir, fresh_path, open_workdir, read_result
from jaxmnist.writers import write_atomically


def train(
    config: ConfigDict,
    workdir: str | Path | None = None,
    *,
    dataset: Any = None,
    model: nn.Module | None = None,
    tx: optax.GradientTransformation | None = None,
    loss: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    allow_config_change: bool = False,
    quiet: bool = False,
    command: Sequence[str] = (),
) -> Result:
    """Trains a model, or goes on where an earlier run in the same work directory stopped.

    Args:
      config: from `jaxmnist.get_config`.
      workdir: where everything is kept; None for a fresh directory under `runs/`.
      dataset: a `jaxmnist.datasets.Dataset` in place of the configured one, or a
        `grain.MapDataset` of examples in place of its training split.
      model: a linen module in place of the configured one.
      tx: an optimizer in place of the configured one.
      loss: `loss(logits, labels)`, each row's loss [b], in place of cross-entropy.
      allow_config_change: resume although keys differ that decide what is computed.
      quiet: print nothing.
      command: the command line to show where it is told how to resume, without --workdir.

    Returns:
      The result; `result.test.accuracy`, `result.state`, `result.history`.

    Raises:
      ConfigError: what the configuration asks for cannot be.
      DataError: the data set is missing or damaged.
      ModelError: the model breaks the contract of the train step.
      WorkdirError: the directory cannot be used, or holds a run of another configuration.
      NonFiniteLossError: the loss became NaN or infinite.
      Interrupted: a signal asked to stop; the state is saved.
    """
    with ExitStack() as stack:
        # ---- From here on the first signal is a request, looked at between steps.
        # Several processes would have to agree on the step: there a signal ends the process, and
        # the job goes on from its last checkpoint when it is started again.
        alone = not jax.distributed.is_initialized()
        stop = stack.enter_context(stop_requests()) if alone else StopRequest()

        # ---- Devices, data, model, optimizer: whatever is wrong with them is said here.
        setup = prepare(config, dataset=dataset, model=model, tx=tx, loss=loss)
        path = _path(workdir, setup)
        place = open_workdir(
            path,
            config,
            allow_config_change=allow_config_change,
            write=jax.process_index() == 0,
        )
        terminal = stack.enter_context(Terminal(quiet=quiet or jax.process_index() > 0))
        resume = resume_command(place, command)
        terminal.start(panel_rows(setup, place, resume), total_steps=setup.steps)

        # ---- The state: fresh, or as the newest sound checkpoint left it.
        found = _newest_checkpoint(place, terminal)
        clock = Clock(found.notes["seconds"] if found else None)
        clock.switch("compile")
        state = setup.replicated_state()
        if found is not None:
            state = restore(place.checkpoints, found, state)
            terminal.message(f"resumed at step {found.step:,} of {setup.steps:,}")
        step = found.step if found else 0
        if step > setup.steps:
            raise WorkdirError(
                f"the run in {place.path} has made {step:,} steps, more than the {setup.steps:,} "
                "of this configuration: train longer, or choose another --workdir"
            )

        # ---- The steps, unless an earlier run has made them all.
        recorder = Recorder(setup, place, terminal, clock, resumed=found)
        stack.callback(recorder.close)
        finished = step == setup.steps
        if finished and (values := read_result(place)) is not None:
            terminal.finish(values, place)
            return Result.from_dict(values, place.path, recorder.history, state)
        train_step = None if finished else _compiled(setup, state, recorder)
        clock.switch("train")
        loop = functools.partial(_loop, setup, train_step, recorder=recorder, stop=stop)
        state = loop(state, step, resume=resume)

        # ---- The result, from the last state; the best one is looked at beside it.
        clock.switch(None)
        recorder.wait()
        result = _result(setup, state, place, recorder=recorder, clock=clock)
        if jax.process_index() == 0:
            write_atomically(place.result, json.dumps(result.to_dict(), indent=2) + "\n")
        terminal.finish(result.to_dict(), place)
        return result


def _loop(
    setup: Setup,
    train_step: Step | None,
    state: TrainState,
    step: int,
    *,
    recorder: Recorder,
    stop: StopRequest,
    resume: str,
) -> TrainState:
    """The steps from `step` on, each followed by what is due: log, evaluate, save."""
    config, limit = setup.config, in_flight_limit(setup.mesh)
    if step and (step == setup.steps or setup.due(step, config.eval.every)):
        # Writes a line only where a stop had cut this evaluation short, and may again.
        recorder.evaluate(state, step, stop=lambda: bool(stop))
        _raise_if_stopped(setup, recorder, step, stop=stop, resume=resume)
    in_flight = deque[Any]()
    if train_step is None:  # an earlier run has made all steps
        return state
    for batch in _placed_batches(setup, start=step):
        state, sums = train_step(state, batch)
        step += 1
        # A bound on the steps under way, by waiting for an earlier one without reading anything.
        in_flight.append(sums)
        if len(in_flight) > limit:
            jax.block_until_ready(in_flight.popleft())
        last = step == setup.steps
        if last or step == 1 or setup.due(step, config.log.every):
            state = recorder.log(state, step)
        improved = False
        if last or setup.due(step, config.eval.every):
            improved = recorder.evaluate(state, step, stop=lambda: bool(stop))
        if last or improved or stop or setup.due(step, config.checkpoint.every):
            recorder.save(state, step)
        _raise_if_stopped(setup, recorder, step, stop=stop, resume=resume)
    return state


def _raise_if_stopped(
    setup: Setup, recorder: Recorder, step: int, *, stop: StopRequest, resume: str
) -> None:
    if stop.signal_number is not None:
        recorder.wait()
        raise Interrupted(
            f"stopped at step {step:,} of {setup.steps:,}, and saved. To go on:\n  {resume}",
            signal_number=stop.signal_number,
        )


def _path(workdir: str | Path | None, setup: Setup) -> Path:
    """The work directory that is asked for, or a fresh one."""
    if workdir is not None:
        return Path(workdir)
    if jax.process_count() > 1:
        raise UsageError(
            f"a job of {jax.process_count()} processes needs a work directory that they share: "
            "give --workdir"
        )
    return fresh_path(setup.data.name)


def _newest_checkpoint(place: Workdir, terminal: Terminal) -> CheckpointInfo | None:
    """The newest sound checkpoint, the same on all processes; damaged newer ones are set aside."""
    step = -1
    if jax.process_index() == 0:
        info, faults = newest_good(place.checkpoints)
        step = info.step if info else -1
        for fault in faults:
            terminal.message(f"{fault}; it is set aside")
        if faults and info is None:
            terminal.message("no checkpoint is sound: the run starts anew")
        set_aside_after(place.checkpoints, step)
    step = int(multihost_utils.broadcast_one_to_all(np.int32(step)))
    return read_info(place.checkpoints, step) if step >= 0 else None


def _compiled(setup: Setup, state: TrainState, recorder: Recorder) -> Step:
    """The train step and the evaluation, compiled at the same time for the arrays they will see."""
    config = setup.config
    train_step = make_train_step(
        setup.task,
        setup.mesh,
        strategy=config.parallel.strategy,
        deterministic_bits=config.parallel.deterministic,
    )
    batches = _placed_batches(setup, start=setup.steps - 1)
    with ThreadPoolExecutor(1) as pool:
        evaluation = pool.submit(recorder.compile, state)
        train_step.compile(state, next(batches))
        evaluation.result()
    batches.close()
    return train_step


def _placed_batches(setup: Setup, *, start: int) -> Generator[Batch]:
    """The batches from step `start` on, on their devices."""
    size = setup.config.batch_size
    source = BatchSource(
        setup.data.splits["train"],
        seed=setup.config.seed,
        batch_size=size,
        steps=setup.steps,
        rows=process_rows(size, process=jax.process_index(), processes=jax.process_count()),
    )
    place = functools.partial(place_batch, mesh=setup.mesh, strategy=setup.config.parallel.strategy)
    return placed_ahead(train_batches(source, start=start), place)


def _result(
    setup: Setup, state: TrainState, place: Workdir, *, recorder: Recorder, clock: Clock
) -> Result:
    """Looks at the test split, once for the last state and once for the best by validation."""
    test = recorder.test(state, setup.steps)
    best = None
    if recorder.best is not None:
        record = recorder.best
        info = read_info(place.checkpoints, record["step"])
        state_then = state if info.step == setup.steps else restore(place.checkpoints, info, state)
        validation = {name: record[name] for name in ("accuracy", "loss")}
        best = Best(info.step, validation, recorder.test(state_then, info.step))
    return Result(
        test=test,
        train=summarize(setup, clock.seconds),
        params_count=parameter_count(state.params),
        params_sha256=tree_sha256(state.params),
        ema_sha256=None if state.ema is None else tree_sha256(state.ema),
        best=best,
        devices=describe_devices(setup.mesh),
        versions=versions(),
        workdir=place.path,
        history=recorder.history,
        state=state,
    )
