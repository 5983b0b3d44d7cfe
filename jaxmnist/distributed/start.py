"""Joins the processes of a job; the first act of a command, before JAX touches a device."""

import contextlib
import re
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from jaxmnist.distributed.cluster import Cluster, detect
from jaxmnist.distributed.ending import Ending, time_limit
from jaxmnist.errors import JobError, UsageError

#: Seconds after which a process that sent no sign of life is taken for dead, and the job ends.
HEARTBEAT_TIMEOUT_S: Final = 10
#: Seconds that the processes wait for each other at the end, once all of them are done.
SHUTDOWN_TIMEOUT_S: Final = 60


@dataclass(frozen=True, kw_only=True)
class Start:
    """How a process joins others, as its flags say.

    Attributes:
      mode: "auto" joins where flags or a known cluster say so, "on" must join, "off" does not.
      coordinator_address: "host:port" of process 0, the same on all.
      num_processes: how many there are.
      process_id: number of this one, from 0.
      local_device_ids: the accelerators of this host that are its own; None for all, or for its
        share where a scheduler put several processes on a host.
      timeout_s: seconds to wait for the others.
    """

    mode: str = "auto"
    coordinator_address: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    local_device_ids: tuple[int, ...] | None = None
    timeout_s: int = 300

    def check(self) -> None:
        """Says at once what cannot be.

        Raises:
          UsageError: flags contradict each other, or one is missing.
        """
        address, count, index = self.coordinator_address, self.num_processes, self.process_id
        flags = {
            "--coordinator_address": address,
            "--num_processes": count,
            "--process_id": index,
            "--local_device_ids": self.local_device_ids,
        }
        given = [name for name, value in flags.items() if value is not None]
        if self.mode == "off" and given:
            fault = f"--distributed=off contradicts {', '.join(given)}"
            raise UsageError(f"{fault}: leave one of them out")
        if address is not None:
            found = re.fullmatch(r"\S+:(\d{1,5})", address)
            if found is None or not 0 < int(found[1]) < 2**16:
                rule = "must be HOST:PORT of process 0, such as 10.0.0.1:1234"
                raise UsageError(f"--coordinator_address={address} {rule}")
        if count is not None and count < 1:
            raise UsageError(f"--num_processes={count} must be 1 or more")
        if index is not None and count is not None and not 0 <= index < count:
            rule = f"must be one of 0 to {count - 1}, a different one for each process"
            raise UsageError(f"--process_id={index} of --num_processes={count} {rule}")
        if (ids := self.local_device_ids) is not None and len({*ids}) < len(ids):
            raise UsageError(f"--local_device_ids={','.join(map(str, ids))} names a device twice")

    @property
    def complete(self) -> bool:
        """Whether the flags say all, and no cluster has to be recognised."""
        return None not in (self.coordinator_address, self.num_processes, self.process_id)


def join(start: Start, *, quiet: bool = False) -> bool:
    """Joins this process to the job that its flags or its cluster describe.

    Recognising TPU pods, GKE, Slurm and Open MPI is JAX's; a lone machine is left alone.

    Args:
      start: the flags.
      quiet: say nothing of it on the standard error.

    Returns:
      Whether it joined.

    Raises:
      UsageError: flags contradict each other, or neither they nor a cluster tell the processes.
      JobError: the others, or process 0, did not come in time.
    """
    start.check()
    if start.mode == "off":
        return False
    cluster = None if start.complete else detect(start.timeout_s)
    if not start.complete and cluster is None:
        _refuse_to_guess(start)
        return False
    if cluster is not None and cluster.num_processes == 1 and start.mode == "auto":
        return False
    _initialize(start, cluster, quiet=quiet)
    return True


def _refuse_to_guess(start: Start) -> None:
    """Raises where a job was asked for that nothing describes."""
    needed = {
        "--coordinator_address": start.coordinator_address,
        "--num_processes": start.num_processes,
        "--process_id": start.process_id,
    }
    missing = [name for name, value in needed.items() if value is None]
    asked = len(missing) < len(needed) or start.local_device_ids is not None
    if asked or start.mode == "on":
        fault = "no TPU pod, GKE, Slurm or Open MPI was recognised here"
        raise UsageError(f"{fault}: give {', '.join(missing)} too, or --distributed=off")


def _initialize(start: Start, cluster: Cluster | None, *, quiet: bool) -> None:
    import jax

    found = cluster or Cluster("flags", start.num_processes or 1, start.process_id or 0, None)
    count = start.num_processes or found.num_processes
    index = found.process_id if start.process_id is None else start.process_id
    where = start.coordinator_address or found.coordinator_address or ""
    # What a cluster adds to some flags may contradict them.
    replace(start, coordinator_address=where, num_processes=count, process_id=index).check()
    if not quiet:
        waiting = f"waiting up to {start.timeout_s} s for the others"
        line = f"process {index} of {count} ({found.name}) joins the job at {where}, {waiting}"
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    who = f"process {index} of {count}"
    twice = f"most likely another one has --process_id={index} too, or process 0 has ended"
    ending = Ending(f"{who} cannot join the job at {where}: {twice}; the lines above are JAX's")
    limit = time_limit(start.timeout_s, lambda: _missing(who, where, start.timeout_s))
    # Processes stop together by a way of our own: see `JointStop`.
    jax.config.update("jax_enable_preemption_service", False)
    port = claimed_port(where) if index == 0 else contextlib.nullcontext()
    with port, limit, _ctrl_c_at_once():
        jax.distributed.initialize(
            coordinator_address=where,
            num_processes=count,
            process_id=index,
            local_device_ids=start.local_device_ids or found.local_device_ids,
            cluster_detection_method="deactivate",
            # JAX would abort without a sentence: the limit above comes first.
            initialization_timeout=start.timeout_s + 60,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S,
            shutdown_timeout_seconds=SHUTDOWN_TIMEOUT_S,
        )
    ending.joined()


@contextlib.contextmanager
def _ctrl_c_at_once() -> Iterator[None]:
    """Python would hear of Ctrl-C only when the wait in native code is over."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def claimed_port(where: str) -> Iterator[None]:
    """Keeps other jobs away from the port of process 0 until JAX, which would share it, listens.

    Two processes may look at the same moment, and both find the port free. On Linux each binds a
    socket to a name that only one can have, in the same network namespace as the port.

    Args:
      where: "host:port" of process 0.

    Raises:
      JobError: another process has the port, or is about to listen on it.
    """
    port = int(where.rpartition(":")[2])
    with socket.socket(socket.AF_UNIX) as claim:
        try:
            if sys.platform == "linux":
                claim.bind(f"\0jaxmnist/port/{port}")
            socket.create_server(("", port)).close()
        except OSError as error:
            repair = "end the other process 0 or program that has it, or choose another port"
            fault = f"process 0 cannot listen on port {port}: {error.strerror}"
            raise JobError(f"{fault}; {repair} in --coordinator_address") from error
        yield


def _missing(who: str, where: str, timeout_s: int) -> str:
    """Says who did not come in time: process 0, or some of the others."""
    host, _, port = where.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except OSError as error:
        fault = f"nothing answers at {where} ({error.strerror or error})"
        repair = "start process 0 there, correct --coordinator_address, or open the port"
    else:
        fault = "not all of the others came"
        repair = "start the same command on every host, each with a --process_id of its own"
    limit = f"waited {timeout_s} s (--initialization_timeout)"
    return f"{who} {limit}, and {fault}: {repair}"
