"""What the proofs about resuming share: stopping a run, and all that its work directory says."""

import contextlib
import signal
from pathlib import Path
from unittest import mock

import jax

from jaxmnist.checkpoint import newest_good
from jaxmnist.runs.recorder import Recorder
from jaxmnist.workdir import Workdir, read_result
from jaxmnist.writers import read_records

TIMING = ("images_per_second",)


@contextlib.contextmanager
def signal_at(step, number=signal.SIGTERM):
    """Within the block, a run gets a signal when it logs a step; so on all of its processes."""
    log = Recorder.log

    def log_and_signal(self, state, at):
        state = log(self, state, at)
        if at == step:
            signal.raise_signal(number)
        return state

    with mock.patch.object(Recorder, "log", log_and_signal):
        yield


def learned(state):
    """All of a state that training changes, in host memory."""
    state = jax.device_get(state)
    return state.params, state.opt_state, state.batch_stats, state.ema


def metrics(workdir):
    """The lines of metrics.jsonl without what a clock measured."""
    records = read_records(Path(workdir) / "metrics.jsonl")
    return [{k: v for k, v in r.items() if k not in TIMING} for r in records]


def scalars(workdir):
    """What TensorBoard shows: a list of (step, value) by name, without what a clock measured."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(Path(workdir) / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    names = [n for n in events.Tags()["scalars"] if n.rpartition("/")[2] not in TIMING]
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in names}


def ended(workdir):
    """All that a finished run says, but for times: it is equal for runs that are the same."""
    place = Workdir(Path(workdir))
    result = read_result(place)
    info, faults = newest_good(place.checkpoints)
    assert not faults
    return {
        "params": result["params"],
        "test": result["test"],
        "best": result.get("best"),
        "state": (info.step, info.state_sha256),
        "metrics": metrics(workdir),
        "scalars": scalars(workdir),
    }
