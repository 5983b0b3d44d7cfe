"""Runs one job as several processes of this machine, and ends all of them when one fails."""

import ctypes
import importlib.util
import os
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Final

from jaxmnist.config import nearest_multiples
from jaxmnist.errors import ConfigError, Interrupted, JobError, UsageError

#: Seconds that a job which was asked to stop has for its last checkpoint, before it is killed.
STOP_GRACE_S: Final = 60.0
#: Seconds that the others have, once a process has failed, to say why they end.
FAILURE_GRACE_S: Final = 5.0
#: The flag of `jaxmnist train` by which a process makes its CPU devices.
CPU_DEVICES: Final = "--config.parallel.cpu_devices"
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_STOPPED: Final = {128 + number for number in _SIGNALS}
_CUDA_PLUGINS: Final = ("jax_cuda12_plugin", "jax_cuda13_plugin")
_PR_SET_PDEATHSIG: Final = 1


@dataclass
class _Process:
    """A process of the job, and the beginnings of lines that it has not finished yet."""

    index: int
    child: subprocess.Popen[bytes]
    unfinished: dict[int, bytes] = field(default_factory=dict)

    def kill(self) -> None:
        """Kills the process and whatever it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()


def share_devices(cpu_devices: int | None, *, batch_size: int, processes: int) -> list[list[str]]:
    """The flags that give each process its share of the devices of this machine.

    Args:
      cpu_devices: `parallel.cpu_devices` of the job.
      batch_size: of the job.
      processes: of the job; one takes what it finds.

    Raises:
      ConfigError: the processes cannot share the batch or the CPU devices equally.
      UsageError: they cannot share the GPUs, or the machine has a TPU.
    """
    from jaxmnist.mesh import usable_cores

    if processes == 1:
        return [[f"{CPU_DEVICES}={cpu_devices}"] if cpu_devices else []]
    environment = os.environ
    if not cpu_devices:
        refuse_tpu(environment)
        if gpus := usable_gpus(environment):
            return share_gpus(gpus, processes=processes)
    told = "host_platform_device_count" in environment.get("XLA_FLAGS", "")
    told = told or "JAX_NUM_CPU_DEVICES" in environment
    share = share_cpu_devices(
        cpu_devices, batch_size=batch_size, processes=processes, cores=usable_cores()
    )
    return [[f"{CPU_DEVICES}={share}"] if cpu_devices or not told else []] * processes


def share_gpus(count: int, *, processes: int) -> list[list[str]]:
    """The flags that give each process its GPUs.

    Args:
      count: GPUs of this machine; 0 where JAX will use the CPU.
      processes: of the job.

    Raises:
      UsageError: they cannot be shared equally.
    """
    if count % processes:
        rule = f"cannot be shared equally by --processes={processes}"
        repair = "choose another number, or set JAX_PLATFORMS=cpu to train on the CPU"
        raise UsageError(f"the {count} GPU(s) of this machine {rule}: {repair}")
    share = count // processes
    ids = [",".join(map(str, range(i * share, (i + 1) * share))) for i in range(processes)]
    return [[f"--local_device_ids={text}"] if text else [] for text in ids]


def share_cpu_devices(asked: int | None, *, batch_size: int, processes: int, cores: int) -> int:
    """How many CPU devices each process makes, so that all together are those that were asked for.

    Args:
      asked: `parallel.cpu_devices` of the job; None for one a core, as the batch allows.
      batch_size: of the job.
      processes: of the job.
      cores: that the job may use.

    Raises:
      ConfigError: the processes cannot share the devices or the batch equally.
    """
    if batch_size % processes:
        near = nearest_multiples(batch_size, processes)
        rule = f"cannot be shared equally by {processes} processes: the nearest valid values are"
        raise ConfigError([f"batch_size={batch_size} {rule} {near}"])
    if asked is not None:
        if asked % processes:
            near = nearest_multiples(asked, processes)
            rule = f"cannot be shared equally by {processes} processes: choose one of {near}"
            raise ConfigError([f"parallel.cpu_devices={asked} {rule}"])
        return asked // processes
    from jaxmnist.mesh import default_cpu_devices

    return default_cpu_devices(batch_size // processes, cores=max(1, cores // processes))


def refuse_tpu(environment: Mapping[str, str], *, devices: Path = Path("/dev")) -> None:
    """Refuses several processes on a TPU VM, where the first takes all chips.

    Raises:
      UsageError: JAX would use the TPU of this machine.
    """
    chips = [*devices.glob("accel*"), *devices.glob("vfio/[0-9]*")]
    wanted = environment.get("JAX_PLATFORMS", "tpu")
    if "tpu" in wanted and chips and importlib.util.find_spec("libtpu"):
        rule = "one process drives all TPU chips of a machine: use `jaxmnist train`"
        raise UsageError(f"{rule}, or set JAX_PLATFORMS=cpu to train on the CPU")


def usable_gpus(environment: Mapping[str, str]) -> int:
    """How many GPUs JAX would use here; asks the driver and starts no backend."""
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms and not {"cuda", "gpu"} & {*platforms.split(",")}:
        return 0
    if not any(importlib.util.find_spec(name) for name in _CUDA_PLUGINS):
        return 0
    if (visible := environment.get("CUDA_VISIBLE_DEVICES")) is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    if (program := shutil.which("nvidia-smi")) is None:
        return 0
    command = [program, "--query-gpu=index", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return len(done.stdout.split()) if done.returncode == 0 else 0


@contextmanager
def reserved_port() -> Iterator[int]:
    """A free TCP port that no other program is given while the block lasts.

    It stays bound, without listening and open for sharing, which is how JAX's coordinator binds.
    """
    with socket.socket() as holder:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            holder.setsockopt(socket.SOL_SOCKET, option, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def run_job(
    flags: Sequence[Sequence[str]],
    *,
    command: Sequence[str],
    workdir: str,
    stop_grace_s: float = STOP_GRACE_S,
) -> None:
    """Runs `jaxmnist train` in several processes that form one job, until all of them are done.

    What they print is passed on line by line behind the number of the process. A signal is passed
    on to them, a second one too; those that go on longer than `stop_grace_s` are killed. When one
    process fails, the others are ended within `FAILURE_GRACE_S`.

    Args:
      flags: of each process: those of `jaxmnist train`, without --workdir and without those by
        which it is joined.
      command: that starts the job again, without --workdir, for people.
      workdir: that all of them share.
      stop_grace_s: seconds for the last checkpoint after the first signal.

    Raises:
      Interrupted: a signal came, and all processes have ended.
      JobError: a process failed; the text says which, and of what.
    """
    place = f"--workdir={workdir}"
    again = f"To go on:\n  {shlex.join([*command, place])}"
    with ExitStack() as stack:
        heard = stack.enter_context(_signals_heard())
        selector = stack.enter_context(selectors.DefaultSelector())
        port = stack.enter_context(reserved_port())
        job: list[_Process] = []
        stack.callback(_kill, job)
        for index, mine in enumerate(flags):
            all_flags = [*mine, place, *_joining(index, len(flags), port)]
            job.append(_start(index, all_flags, selector=selector, command=command))
        first = _supervise(job, selector, heard, stop_grace_s)
    if heard and all(p.child.returncode for p in job):
        name = signal.Signals(heard[0]).name
        raise Interrupted(f"the job was stopped by {name}. {again}", signal_number=heard[0])
    if first is not None:
        raise _failure(first, job, again)


def _joining(index: int, processes: int, port: int) -> list[str]:
    if processes == 1:
        return ["--distributed=off"]
    where = f"--coordinator_address=127.0.0.1:{port}"
    return ["--distributed=on", where, f"--num_processes={processes}", f"--process_id={index}"]


@contextmanager
def _signals_heard() -> Iterator[list[int]]:
    """Notes SIGINT and SIGTERM in the list that it yields, and nothing else happens."""
    heard: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        heard.append(number)

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(
    index: int, flags: Sequence[str], *, selector: selectors.BaseSelector, command: Sequence[str]
) -> _Process:
    """Starts a process in a group of its own: Ctrl-C in a terminal reaches it once, through us."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None

    def end_with_parent() -> None:
        if library is not None:
            library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    child = subprocess.Popen(
        [sys.executable, "-m", "jaxmnist", "train", *flags],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "JAXMNIST_COMMAND": shlex.join(command)},
        start_new_session=True,
        preexec_fn=end_with_parent,
    )
    process = _Process(index, child)
    for stream, out in ((child.stdout, sys.stdout), (child.stderr, sys.stderr)):
        if stream is not None:
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ, (process, out))
    return process


def _supervise(
    job: Sequence[_Process],
    selector: selectors.BaseSelector,
    heard: Sequence[int],
    stop_grace_s: float,
) -> _Process | None:
    """Waits for the end of all processes; returns the one that failed first, or None."""
    first, passed_on, deadline = None, 0, float("inf")
    running = [*job]
    while running:
        _pass_on_lines(selector, 0.05)
        for number in heard[passed_on:]:
            passed_on += 1
            deadline = min(deadline, time.monotonic() + stop_grace_s)
            for process in running:
                process.child.send_signal(number)
        failed = [process for process in running if process.child.poll()]
        running = [process for process in running if process.child.poll() is None]
        if first is None and failed:
            first = min(failed, key=_collateral)
            # A process that stopped when it was told to leaves the others in the same save.
            saving = first.child.returncode in _STOPPED
            grace = stop_grace_s if saving else FAILURE_GRACE_S
            deadline = min(deadline, time.monotonic() + grace)
        if time.monotonic() > deadline:
            _kill(running)
    while _pass_on_lines(selector, 0.0):
        pass
    return first


def _collateral(process: _Process) -> int:
    """Sorts processes that were found ended together: first the likeliest to have been the cause.

    Who loses another process raises, or is aborted by JAX.
    """
    code = process.child.returncode
    return 1 if code > 0 else 2 if code == -signal.SIGABRT else 0


def _kill(job: Sequence[_Process]) -> None:
    for process in job:
        process.kill()


def _pass_on_lines(selector: selectors.BaseSelector, timeout_s: float) -> bool:
    """Prints the lines that have come, each behind the number of its process; whether any had."""
    if not selector.get_map():
        time.sleep(timeout_s)
        return False
    events = selector.select(timeout_s)
    for key, _ in events:
        process, out = key.data
        chunk = os.read(key.fd, 1 << 16)
        *lines, rest = (process.unfinished.pop(key.fd, b"") + chunk).split(b"\n")
        if chunk:
            process.unfinished[key.fd] = rest
        else:
            selector.unregister(key.fileobj)
            lines += [rest] if rest else []
        _print(lines, process.index, out)
    return bool(events)


def _print(lines: Sequence[bytes], index: int, out: IO[str]) -> None:
    for line in lines:
        out.write(f"[{index}] {line.decode(errors='replace')}\n")
    out.flush()


def _failure(first: _Process, job: Sequence[_Process], again: str) -> JobError:
    code = first.child.returncode
    text = f"process {first.index} of {len(job)} {_what_happened(code)}"
    others = (p for p in job if p is not first)
    text += "".join(
        f"; process {p.index} then {_what_happened(p.child.returncode)}" for p in others
    )
    # A fault of the command line or the configuration would only come again.
    text += ". " + ("Its message is above" if code == UsageError.exit_code else again)
    error = JobError(text)
    error.exit_code = code if code > 0 else 128 - code
    return error


def _what_happened(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}" if code else "was done"
    cause = " (by hand, or because memory ran out)" if code == -signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-code).name}{cause}"
