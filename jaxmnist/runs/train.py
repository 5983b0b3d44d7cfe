"""A training run from top to bottom."""

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from jaxmnist import checkpoint
from jaxmnist.callbacks import Callback
from jaxmnist.clock import Clock
from jaxmnist.errors import Interrupted, WorkdirError
from jaxmnist.mesh import in_flight_limit, keep_compiled_programs, replicate
from jaxmnist.names import resolve
from jaxmnist.pipeline import BatchSource, process_rows, train_batches
from jaxmnist.runs.recorder import Recorder
from jaxmnist.runs.result import Best, Result, describe_devices, summarize, versions
from jaxmnist.runs.setup import Setup, prepare
from jaxmnist.state import TrainState, parameter_count, tree_sha256
from jaxmnist.step import Several, Step, make_train_step, place_batch
from jaxmnist.step.body import Loss
from jaxmnist.workdir import Workdir, open_workdir, read_result
from jaxmnist.writers import write_atomically

# Found by name, so that the core needs no library of the terminal.
TERMINAL = "jaxmnist.display.terminal:Terminal"
# Likewise what stands around a run: its lock, its watchdog, the agreement of its processes.
GUARD = "jaxmnist.distributed.guard:Guard"


def train(
    config: ConfigDict,
    workdir: str | Path | None = None,
    *,
    dataset: Any = None,
    model: nn.Module | None = None,
    tx: optax.GradientTransformation | None = None,
    loss: Loss | None = None,
    callbacks: Sequence[Callback] = (),
    allow_config_change: bool = False,
    quiet: bool = False,
    command: Sequence[str] = (),
) -> Result:
    """Trains a model, or goes on where an earlier run in the same work directory stopped.

    Args:
      config: from `jaxmnist.get_config`.
      workdir: where everything is kept; None for a fresh directory under `runs/`. It may be in a
        bucket, "gs://bucket/path"; `result.workdir` is then what mirrors it on this machine.
      dataset: a `jaxmnist.datasets.Dataset` in place of the configured one, or a
        `grain.MapDataset` of examples or a pair of arrays in place of its training split.
      model: a linen module in place of the configured one.
      tx: an optimizer in place of the configured one.
      loss: `loss(logits, labels)`, each row's loss float32 [b], in place of the configured one.
      callbacks: called at the steps, evaluations and checkpoints, in this order.
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
        # ---- From here on the first signal is a request, looked at between steps; the processes of
        # a job have compared what they must have in common, and agree on where they stop.
        guard = stack.enter_context(resolve(GUARD)(config, workdir))

        # ---- Devices, data, model, optimizer: whatever is wrong with them is said here.
        parts = {"dataset": dataset, "model": model, "tx": tx, "loss": loss}
        setup = prepare(config, callbacks=callbacks, **parts)
        first = jax.process_index() == 0
        path, change = guard.directory(setup.data.name), allow_config_change
        place = _looked_at(path, setup, allow_config_change=change, address=guard.address)
        guard.hold(path, setup.data.digest)
        terminal = stack.enter_context(resolve(TERMINAL)(quiet=quiet or not first))
        resume = place.resume_command(command)
        terminal.introduce(setup, place, resume)

        # ---- The state: fresh, or as the newest sound checkpoint left it.
        found = _newest_checkpoint(place, terminal)
        if found is not None and not allow_config_change:
            checkpoint.check_same_data(found.notes, setup.data.digest, workdir=place.address)
            if found.notes.get("parts"):
                check_parts = resolve("jaxmnist.zoo.own.given:check_parts")
                check_parts(found.notes, parts, workdir=place.address)
        clock = Clock(found.notes["seconds"] if found else None)
        clock.switch("compile")
        state, origin = _first_state(setup, found, place, terminal=terminal, parts=parts)
        # Not before: a run that is refused leaves the configuration as it was.
        open_workdir(path, config, allow_config_change=True, write=first)
        step = found.step if found else 0
        if step > setup.steps:
            rule = f"{step:,} steps, more than the {setup.steps:,} of this configuration"
            repair = "train longer, or choose another --workdir"
            raise WorkdirError(f"the run in {place.address} has made {rule}: {repair}")

        # ---- The steps, unless an earlier run has made them all.
        recorder = Recorder(setup, place, terminal, clock, step=step, guard=guard, origin=origin)
        stack.callback(recorder.close)
        finished = step == setup.steps
        if finished and (values := read_result(place)) is not None:
            terminal.finish(values, place)
            return Result.from_dict(values, place.path, recorder.history, state)
        train_step = None if finished else _compiled(setup, state, recorder)
        for callback in recorder.callbacks:
            stack.callback(callback.on_end)
            callback.on_start(place.path, step, setup.steps)
        clock.switch("train")
        go_on = partial(_raise_if_stopped, setup, recorder, guard, resume)
        state = _loop(setup, train_step, state, step, recorder=recorder, guard=guard, go_on=go_on)

        # ---- The result, from the last state; the best one is looked at beside it.
        clock.switch(None)
        recorder.wait()
        guard.share()
        result = _result(setup, state, place, recorder=recorder, clock=clock)
        if jax.process_index() == 0:
            write_atomically(place.result, result.to_json(setup.mesh, command=resume))
        terminal.finish(result.to_dict(), place)
        return result


def _loop(
    setup: Setup,
    train_step: Step | None,
    state: TrainState,
    step: int,
    *,
    recorder: Recorder,
    guard: Any,
    go_on: Callable[[int], None],
) -> TrainState:
    """The steps from `step` on, each followed by what is due: log, evaluate, save."""
    config, limit = setup.config, in_flight_limit(setup.mesh)
    log_due, eval_due, save_due = (
        setup.recurring(part.every, start=step - 1)
        for part in (config.log, config.eval, config.checkpoint)
    )
    if step and (step == setup.steps or eval_due(step)):
        # Writes a line only where a stop had cut this evaluation short, and may again.
        recorder.evaluate(state, step)
        go_on(step)
    if train_step is None:  # an earlier run has made all steps
        return state
    in_flight = deque[Any]()
    for steps, batch in _placed_batches(setup, start=step):
        state, sums = train_step(state, batch)
        recorder.write_line()  # that of the call before, while this one is under way
        step = steps.stop
        # A bound on the steps under way, by waiting for an earlier one without reading anything.
        in_flight.append(sums)
        if len(in_flight) > limit:
            jax.block_until_ready(in_flight.popleft())
        recorder.stepped(state, step)
        last, improved = step == setup.steps, False
        if last or step == 1 or log_due(step):
            state = recorder.log(state, step)
        if last or eval_due(step):
            improved = recorder.evaluate(state, step)
        stop = guard.signal_number is not None
        if last or improved or stop or save_due(step):
            recorder.save(state, step)
        go_on(step)
    return state


def _raise_if_stopped(setup: Setup, recorder: Recorder, guard: Any, resume: str, step: int) -> None:
    if guard.signal_number is not None:
        recorder.wait()
        text = f"stopped at step {step:,} of {setup.steps:,}, and saved. To go on:\n  {resume}"
        raise Interrupted(text, signal_number=guard.signal_number)


def _looked_at(path: Path, setup: Setup, **how: Any) -> Workdir:
    """The work directory, and that of `train.init_from`; what they forbid is said here."""
    place = open_workdir(path, setup.config, write=False, **how)
    if (source := setup.config.train.init_from) and not checkpoint.steps_in(place.checkpoints):
        resolve("jaxmnist.zoo.own.parameters:check_source")(source, setup.state_shapes())
    return place


def _newest_checkpoint(place: Workdir, terminal: Any) -> checkpoint.CheckpointInfo | None:
    """The newest sound checkpoint, the same on all processes; damaged newer ones are set aside."""
    step = -1
    if jax.process_index() == 0:
        info, faults = checkpoint.newest_good(place.checkpoints)
        step = info.step if info else -1
        for fault in faults:
            terminal.message(f"{fault}; it is set aside")
        if faults and info is None:
            terminal.message("no checkpoint is sound: the run starts anew")
        checkpoint.set_aside_after(place.checkpoints, step)
    step = int(multihost_utils.broadcast_one_to_all(np.int32(step)))
    return checkpoint.read_info(place.checkpoints, step) if step >= 0 else None


def _first_state(
    setup: Setup, found: checkpoint.CheckpointInfo | None, place: Workdir, **more: Any
) -> tuple[TrainState, dict[str, Any]]:
    """The state that training begins with, and what the run was given and started from."""
    own = any(part is not None for part in more["parts"].values())
    names = resolve("jaxmnist.zoo.own.given:names_of")(more["parts"]) if own else {}
    if found is not None:
        state = checkpoint.restore(place.checkpoints, found, setup.state_shapes())
        more["terminal"].message(f"resumed at step {found.step:,} of {setup.steps:,}")
        return state, {"parts": names, "init_from": found.notes.get("init_from")}
    state, origin = setup.initial_state(), None
    if source := setup.config.train.init_from:
        state, origin = resolve("jaxmnist.zoo.own.parameters:start_from")(state, source)
    return state, {"parts": names, "init_from": origin}


def _compiled(setup: Setup, state: TrainState, recorder: Recorder) -> Step:
    """The train step and the evaluation, compiled at the same time for the arrays they will see."""
    keep_compiled_programs(setup.mesh)
    train_step = make_train_step(
        setup.task,
        setup.mesh,
        strategy=setup.config.parallel.strategy,
        deterministic_bits=setup.config.parallel.deterministic,
        steps_per_call=setup.steps_per_call,
        resident=setup.resident,
    )
    batches = _placed_batches(setup, start=setup.steps - 1)
    with ThreadPoolExecutor(1) as pool:
        evaluation = pool.submit(recorder.evaluator.compile, state)
        train_step.compile(state, next(batches)[1])
        evaluation.result()
    batches.close()
    return train_step


def _placed_batches(setup: Setup, *, start: int) -> Generator[tuple[range, Any]]:
    """The steps of each call from step `start` on, and their batches on the devices."""
    config, bounds, several = setup.config, setup.call_bounds(start), setup.steps_per_call
    size, axis = config.batch_size, int(several > 1)
    rows = process_rows(size, process=jax.process_index(), processes=jax.process_count())
    lay = partial(place_batch, mesh=setup.mesh, strategy=config.parallel.strategy, axis=axis)
    # Of a training batch every row is an example: what says so lies on the devices once.
    mask = lay(np.ones(([several] if axis else []) + [rows.stop - rows.start], bool))
    source = BatchSource(
        setup.data.train,
        seed=config.seed,
        batch_size=size,
        bounds=bounds,
        several=several,
        indexed=setup.resident,
        rows=rows,
    )

    def place(batches: list[Any]) -> list[Any]:
        placed = lay([(b.batches if axis else b)._replace(mask=()) for b in batches])
        placed = [b._replace(mask=mask) for b in placed]
        placed = [b._replace(table=setup.table) for b in placed] if setup.resident else placed
        if not axis:
            return placed
        counts = (replicate(b.count, setup.mesh) for b in batches)
        return [Several(*call) for call in zip(placed, counts, strict=True)]

    with contextlib.closing(train_batches(source, place)) as placed:
        yield from zip(itertools.starmap(range, itertools.pairwise(bounds)), placed, strict=True)


def _result(
    setup: Setup, state: TrainState, place: Workdir, *, recorder: Recorder, clock: Clock
) -> Result:
    """Looks at the test split, once for the last state and once for the best by validation."""
    test = recorder.test(state, setup.steps)
    best = None
    if (record := recorder.best) is not None:
        info = checkpoint.read_info(place.checkpoints, record["step"])
        last = info.step == setup.steps
        then = state if last else checkpoint.restore(place.checkpoints, info, state)
        validation = {name: record[name] for name in ("accuracy", "loss")}
        best = Best(info.step, validation, recorder.test(then, info.step))
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
