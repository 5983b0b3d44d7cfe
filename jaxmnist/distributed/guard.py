"""Watches over a run: agreement of its processes, its lock, requests to stop, standstill."""

import signal
import socket
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

import jax
from ml_collections import ConfigDict

from jaxmnist.bucket.address import parse
from jaxmnist.bucket.mirror import Mirror
from jaxmnist.bucket.writer import LoneWriter, NoWriter
from jaxmnist.callbacks import Callback
from jaxmnist.checkpoint import CheckpointWriter
from jaxmnist.config import validate
from jaxmnist.distributed.agreement import Agreement, data_facts, program_facts
from jaxmnist.distributed.lock import LOCK, locked
from jaxmnist.distributed.stop import JointStop
from jaxmnist.distributed.watchdog import Watchdog
from jaxmnist.errors import UsageError, WorkdirError
from jaxmnist.metrics import Evaluation
from jaxmnist.signals import StopRequest, stop_requests
from jaxmnist.state import TrainState
from jaxmnist.workdir import fresh_path

#: Seconds within which a file that process 0 writes must be seen by the others.
SHARED_WITHIN_S: Final = 10.0


class Guard(Callback):
    """What a run has around it, alone or as one of several processes.

    It is a context manager: signals are requests within it. As a callback it hears of every step;
    the evaluation asks it before every batch. Each time is a sign of life for the watchdog, and
    the moment at which the processes of a job may agree to stop.

    Attributes:
      address: of the work directory in a bucket; empty for one that is a path.
      signal_number: the signal that stops the run, once all processes agree to stop; or None.
    """

    def __init__(self, config: ConfigDict, workdir: str | Path | None = None):
        """Does nothing yet but to look at the configuration and the name of the work directory.

        Raises:
          ConfigError: the configuration has faults.
          UsageError: the work directory is a URL that cannot be one.
        """
        validate(config)
        self._workdir, self._place = workdir, None if workdir is None else parse(workdir)
        self.address = str(self._place or "")
        self._mirror: Mirror | None = None
        self._config, self._stack, self._request = config, ExitStack(), StopRequest()
        self._agreement: Agreement | None = None
        self._joint_stop: JointStop | None = None
        self._watchdog = Watchdog(config.watchdog.timeout, self._where)
        self.signal_number: int | None = None
        self._step, self._total_steps = 0, 0

    def __enter__(self) -> Self:
        """Compares versions and configuration over the processes, and listens for signals.

        A work directory in a bucket is opened here, before anything expensive.

        Raises:
          JobError: they differ, or one of them cannot use the bucket.
          UsageError: the library for buckets is missing.
          WorkdirError: the bucket cannot be used, or is in use.
        """
        with ExitStack() as stack:
            ask = None
            if jax.distributed.is_initialized():
                self._agreement = Agreement()
                facts = program_facts(self._config)
                facts["the bucket of --workdir"] = self.address or "none"
                repair = "start all processes with the same versions and the same configuration"
                self._agreement.compare("versions and configuration", facts, repair=repair)
                self._joint_stop = stack.enter_context(JointStop(self._agreement))
                ask = self._joint_stop.ask
            if self._place:
                self._mirror = stack.enter_context(Mirror(self._place, self._agreement))
            self._request = stack.enter_context(stop_requests(ask))
            stack.callback(self._watchdog.stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        """Gives signals and the lock back, and uploads what is left to a bucket.

        Raises:
          WorkdirError: it could not be uploaded.
        """
        self._stack.__exit__(*exception)  # type: ignore[arg-type]

    def directory(self, name: str) -> Path:
        """The work directory on this machine; one that is not given is named after the data set.

        Raises:
          UsageError: a job of several processes needs one.
        """
        if self._mirror:
            return self._mirror.path
        processes = self._agreement.num_processes if self._agreement else 1
        if self._workdir is None and processes > 1:
            need = "needs a work directory that they share: give --workdir"
            raise UsageError(f"a job of {processes} processes {need}")
        return fresh_path(name) if self._workdir is None else Path(self._workdir)

    def checkpoint_writer(self, directory: Path, *, keep: int, best_step: int | None) -> Any:
        """What this process writes the checkpoints with."""
        if self._mirror is None or self._agreement is None:
            return CheckpointWriter(directory, keep=keep, best_step=best_step)
        if self._agreement.process_id:
            return NoWriter()
        return LoneWriter(directory, keep=keep, best_step=best_step)

    def share(self) -> None:
        """Waits until all processes of a job can read what process 0 has written."""
        if self._mirror:
            self._mirror.share()

    def hold(self, path: Path, data_digest: str) -> None:
        """Locks the work directory; the processes compare their data and must share it.

        Args:
          path: of the work directory; made where it is missing.
          data_digest: of the data set, "name=SHA-256" of each file, joined by commas.

        Raises:
          WorkdirError: another run holds it, or it cannot be written.
          JobError: the data differ, a process does not see the directory, or process 0 could not
            lock it.
        """
        if self._agreement is not None:
            repair = "give all processes the same files"
            self._agreement.compare("data", data_facts(data_digest), repair=repair)
        if self._mirror:
            return  # its lease is held since the beginning
        if self._agreement is None:
            self._stack.enter_context(locked(path))
            return
        fault = ""
        if self._agreement.process_id == 0:
            try:
                self._stack.enter_context(locked(path))
            except WorkdirError as error:
                fault = str(error)
        self._agreement.settle("the lock", fault)
        _check_shared(path, self._agreement)

    def asked(self) -> bool:
        """Whether to stop here; all processes call it at the same moments, as often."""
        self._watchdog.beat()
        if self._mirror:
            self._mirror.check()
        if self.signal_number is not None:
            return True
        if self._joint_stop is None:
            self.signal_number = self._request.signal_number
        elif self._joint_stop.reached():
            self.signal_number = self._request.signal_number or signal.SIGTERM
        return self.signal_number is not None

    def on_start(self, workdir: Path, step: int, total_steps: int) -> None:
        """Begins to watch: all is compiled."""
        self._step, self._total_steps = step, total_steps
        self._watchdog.start()

    def on_step(self, step: int, state: TrainState) -> None:
        """A sign of life, and a moment to stop."""
        self._step = step
        self.asked()

    def on_evaluation(self, step: int, split: str, result: Evaluation, state: TrainState) -> None:
        """A sign of life."""
        self._watchdog.beat()

    def on_checkpoint(self, step: int, state: TrainState) -> None:
        """A sign of life."""
        self._watchdog.beat()

    def on_end(self) -> None:
        """Watches no longer."""
        self._watchdog.stop()

    def _where(self) -> str:
        size, last = self._config.batch_size, self._step
        batch = (
            f"examples {max(last - 1, 0) * size:,} to {last * size - 1:,} of the training stream"
        )
        done = f"The last step that was begun is {last:,} of {self._total_steps:,}"
        return f"{done}{f', its batch: {batch}' if last else ''}."


def _check_shared(path: Path, agreement: Agreement) -> None:
    """Raises on all processes when one of them does not see what process 0 writes."""
    first = agreement.process_id == 0
    # A name that nobody has looked up before, which no cache of a network file system remembers.
    name = agreement.from_first("the work directory", f"{LOCK}.{uuid.uuid4().hex}")
    fault, until = "", time.monotonic() + SHARED_WITHIN_S
    if first:
        (path / name).touch()
    agreement.settle("the work directory", "")
    while not (path / name).exists() and time.monotonic() < until:
        time.sleep(0.1)
    if not (path / name).exists():
        who = f"process {agreement.process_id} on {socket.gethostname()}"
        repair = "give a --workdir on a file system that all hosts share"
        fault = f"{who} does not see what process 0 wrote to work directory {path}: {repair}"
    try:
        agreement.settle("the work directory", fault)
    finally:
        if first:
            (path / name).unlink(missing_ok=True)
