"""What the proofs of resuming share: breaking a run off, and all that its work directory says."""

import contextlib
from pathlib import Path
from unittest import mock

import jax

from jaxmnist.checkpoint import newest_good
from jaxmnist.runs.recorder import Recorder
from jaxmnist.workdir import Workdir, read_result
from jaxmnist.writers import read_records

TIMING = ("images_per_second",)


class CrashError(Exception):
    """What ends a run in the middle."""


@contextlib.contextmanager
def crash_at(step):
    """Within the block, a run fails before it logs a step; so on all of its processes at once."""
    log = Recorder.log

    def log_or_crash(self, state, at):
        if at == step:
            raise CrashError
        return log(self, state, at)

    with mock.patch.object(Recorder, "log", log_or_crash):
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


def assert_records_close(records, expected, *, rtol):
    """Asserts that lines of metrics are of the same steps and agree up to rounding."""
    assert [(r["split"], r["step"]) for r in records] == [(r["split"], r["step"]) for r in expected]
    for mine, theirs in zip(records, expected, strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine.keys() - {"split", "step"}:
            assert abs(mine[name] - theirs[name]) <= rtol * abs(theirs[name]), (name, mine, theirs)
