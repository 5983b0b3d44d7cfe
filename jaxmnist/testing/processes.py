"""Runs a function of a test file in real processes, with JAX joined over the loopback address."""

import base64
import contextlib
import importlib.util
import inspect
import json
import operator
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxmnist.errors import UsageError

_DEVICE_FLAG = "--xla_force_host_platform_device_count"
# XLA ends a process whose devices meet later than after 40 s: too early for many on few cores.
_PATIENCE = (
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=120",
    "--xla_cpu_collective_call_terminate_timeout_seconds=600",
)
_LOG_LINES = 60


def device_environment(count: int, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that make JAX start with `count` CPU devices.

    The device flag comes first in XLA_FLAGS, because some libraries look for it only there; the
    other flags of `environment` are kept.
    """
    kept = environment.get("XLA_FLAGS", "").split()
    kept = [flag for flag in kept if flag.partition("=")[0] != _DEVICE_FLAG]
    names = {flag.partition("=")[0] for flag in kept}
    patience = [flag for flag in _PATIENCE if flag.partition("=")[0] not in names]
    flags = " ".join([f"{_DEVICE_FLAG}={count}", *kept, *patience])
    return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


def encode(value: Any) -> Any:
    """Turns numbers, strings, arrays and their containers into what JSON can hold, bit for bit.

    Other pytrees become a dict from key path to leaf.

    Raises:
      UsageError: a leaf is none of these.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "__array__") and hasattr(value, "dtype"):
        array = np.asarray(value)
        data = base64.b64encode(array.tobytes()).decode()
        return {"__array__": data, "dtype": array.dtype.name, "shape": list(array.shape)}
    import jax

    leaves, _ = jax.tree_util.tree_flatten_with_path(value)
    if len(leaves) == 1 and leaves[0][1] is value:
        raise UsageError(
            f"a {type(value).__name__} cannot pass between processes: use numbers, strings, "
            "arrays, and dicts or lists of them"
        )
    return {jax.tree_util.keystr(path): encode(leaf) for path, leaf in leaves}


def decode(value: Any) -> Any:
    """Undoes `encode`: arrays come back as NumPy arrays, tuples as lists."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "__array__" in value:
        import ml_dtypes  # noqa: F401  (teaches NumPy the name bfloat16)

        data = np.frombuffer(base64.b64decode(value["__array__"]), np.dtype(value["dtype"]))
        return data.reshape(value["shape"]).copy()
    return {key: decode(item) for key, item in value.items()}


def _locate(function: Callable[..., Any]) -> dict[str, str]:
    """Names a function so that another process finds it: file, module and qualified name."""
    name = getattr(function, "__qualname__", repr(function))
    module = inspect.getmodule(function)
    try:
        found = operator.attrgetter(name)(module)
        file = inspect.getfile(function)
    except (AttributeError, TypeError):
        found, file = None, ""
    if module is None or found is not function:
        raise UsageError(
            f"{name!r} cannot be found by its name from another process: define it with `def` "
            "at the top level of its file"
        )
    return {"file": str(Path(file).resolve()), "module": module.__name__, "name": name}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _start(job: dict[str, Any], folder: Path, devices: int) -> subprocess.Popen[bytes]:
    """Starts process number job['index'] in a group of its own."""
    specification = folder / f"job_{job['index']}.json"
    specification.write_text(json.dumps({**job, "folder": str(folder), "path": sys.path}))
    package_root = str(Path(__file__).resolve().parents[2])
    environment = {
        **os.environ,
        **device_environment(devices, os.environ),
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONPATH": os.pathsep.join([package_root, os.environ.get("PYTHONPATH", "")]),
        "PYTHONUNBUFFERED": "1",
    }
    with (folder / f"log_{job['index']}.txt").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "jaxmnist.testing.processes", str(specification)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Kills each child together with whatever it started, and waits for it."""
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if child.stdin is not None:
            child.stdin.close()


def _logs(folder: Path, children: Sequence[subprocess.Popen[bytes]]) -> str:
    parts = []
    for index, child in enumerate(children):
        lines = (folder / f"log_{index}.txt").read_text(errors="replace").splitlines()
        state = "was still running" if child.poll() is None else f"exit code {child.returncode}"
        parts.append(f"--- process {index} of {len(children)} ({state}), end of its log ---")
        parts.extend(lines[-_LOG_LINES:] or ["(nothing)"])
    return "\n".join(parts)


def run_until(
    function: Callable[..., Any],
    kill_at: Callable[[], bool] | None,
    *,
    processes: int,
    devices: int,
    args: Sequence[Any],
    timeout_s: float,
) -> list[Any] | None:
    """As `run_processes`, but kills all with SIGKILL once `kill_at()` holds, and returns None."""
    if processes < 1 or devices < 1:
        raise UsageError(f"processes={processes}, devices={devices}: both must be 1 or more")
    job = {**_locate(function), "args": encode(list(args)), "processes": processes}
    job["port"] = _free_port()
    with tempfile.TemporaryDirectory(prefix="jaxmnist_processes_") as name:
        folder = Path(name)
        children: list[subprocess.Popen[bytes]] = []
        deadline = time.monotonic() + timeout_s
        try:
            for index in range(processes):
                children.append(_start({**job, "index": index}, folder, devices))
            running = True
            while running:
                running = any(child.poll() is None for child in children)
                late = running and time.monotonic() > deadline
                if late or any(child.poll() for child in children):
                    why = f"ran longer than timeout_s={timeout_s:g}" if late else "failed"
                    raise AssertionError(f"{job['name']} {why}\n{_logs(folder, children)}")
                if running and kill_at is not None and kill_at():
                    return None
                time.sleep(0.005)
            results = [folder / f"result_{index}.json" for index in range(processes)]
            return [decode(json.loads(result.read_text())) for result in results]
        finally:
            _end(children)


def run_processes(
    function: Callable[..., Any],
    *,
    processes: int = 2,
    devices: int = 2,
    args: Sequence[Any] = (),
    timeout_s: float = 120.0,
) -> list[Any]:
    """Calls `function(*args)` in real processes that form one JAX job on this machine.

    Each process imports the function's file anew, has `devices` CPU devices of its own and is
    joined with the others by `jax.distributed` (Gloo collectives over 127.0.0.1), so that
    `jax.devices()` shows `processes * devices` of them.

    Args:
      function: a function at the top level of a file.
      processes: how many; one process is not joined to anything.
      devices: CPU devices of each process.
      args: its arguments: numbers, strings, paths, arrays, and dicts or lists of them.
      timeout_s: seconds after which all processes are killed.

    Returns:
      What each process returned, by process number, with arrays as NumPy arrays.

    Raises:
      AssertionError: a process failed (the others are then killed at once) or the time is up;
        the text holds the end of each process's log.
      UsageError: the function or a value cannot be passed to another process.
    """
    results = run_until(
        function, None, processes=processes, devices=devices, args=args, timeout_s=timeout_s
    )
    return results or []


def _end_with_parent() -> None:
    os.read(0, 1)  # returns when the parent is gone, and holds no lock that the exit needs
    os._exit(1)


def _main(specification: str) -> None:
    """The child: joins the job, imports the function by its file, writes what it returns."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = json.loads(Path(specification).read_text())
    sys.path[:] = job["path"]
    try:
        result = encode(_call(job))
        (Path(job["folder"]) / f"result_{job['index']}.json").write_text(json.dumps(result))
    except BaseException:
        # An ordinary exit would wait in jax.distributed for the other processes.
        traceback.print_exc()
        sys.stdout.flush()
        os._exit(1)


def _call(job: dict[str, Any]) -> Any:
    if job["processes"] > 1:
        import jax

        jax.distributed.initialize(
            coordinator_address=f"127.0.0.1:{job['port']}",
            num_processes=job["processes"],
            process_id=job["index"],
            initialization_timeout=60,
        )
    name = "jaxmnist_tested" if job["module"] == "__main__" else job["module"]
    spec = importlib.util.spec_from_file_location(name, job["file"])
    if spec is None or spec.loader is None:
        raise UsageError(f"{job['file']} is not a Python file")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return operator.attrgetter(job["name"])(module)(*decode(job["args"]))


if __name__ == "__main__":
    _main(sys.argv[1])
