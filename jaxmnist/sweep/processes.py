"""The processes of a sweep: so many at once, stopped and ended with it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxmnist.errors import UsageError
from jaxmnist.signals import StopRequest

_POLL_S = 0.05
_WORKER = ("-P", "-m", "jaxmnist.sweep.worker")
_ASK_DEVICES = "import jax; d = jax.local_devices(); print(d[0].platform, len(d))"

Place = Mapping[str, str]


def find_places(config: ConfigDict, at_once: int) -> list[Place]:
    """What to add to the environment of each of the runs that go on at the same time.

    One run after the other uses all devices. Of several at once each sees one GPU; CPU devices are
    made anew by each run, as many as it makes alone, so that nothing changes a bit.

    Raises:
      UsageError: there are fewer GPUs, or devices that processes of one host do not share.
    """
    if at_once < 1:
        raise UsageError(f"--at_once={at_once} must be at least 1")
    if at_once == 1 or config.parallel.cpu_devices:
        return [{}] * at_once
    # Not in this process: whoever asks occupies the devices.
    done = subprocess.run(
        [sys.executable, "-c", _ASK_DEVICES], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip() or "no word of it").splitlines()[-1]
        raise UsageError(f"JAX can use no device: {last}; correct JAX_PLATFORMS")
    platform, count = done.stdout.split()[-2:]
    if platform == "cpu":
        return [{}] * at_once
    if platform != "gpu":
        fault = f"--at_once={at_once}: processes of one host do not share {platform.upper()}s here"
        raise UsageError(f"{fault}: leave it at 1, and each run uses all of them")
    if at_once > int(count):
        raise UsageError(f"--at_once={at_once}, but JAX finds {count} GPU(s): choose at most that")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(int(count)))))
    return [{"CUDA_VISIBLE_DEVICES": name} for name in visible.split(",")[:at_once]]


def work(
    requests: Mapping[str, Mapping[str, Any]], *, places: Sequence[Place], stop: StopRequest
) -> Iterator[tuple[str, str]]:
    """Serves requests, each in a process of its own, as many at once as there are places.

    Args:
      requests: see `jaxmnist.sweep.worker`, by name; started in this order.
      places: what each of them adds to the environment.
      stop: asks those that run to save and to end, and starts no other.

    Yields:
      The name of each that ended, and its fault; "" for none.
    """
    waiting, free = deque(requests), deque(places)
    running: dict[str, _Process] = {}
    try:
        while running or (waiting and not stop):
            while waiting and free and not stop:
                name = waiting.popleft()
                running[name] = _Process(requests[name], free.popleft())
            for process in running.values() if stop else ():
                process.stop()
            for name in [name for name, process in running.items() if process.ended]:
                process = running.pop(name)
                free.append(process.place)
                yield name, process.fault()
            time.sleep(_POLL_S)
    finally:
        for process in running.values():
            process.kill()


class _Process:
    """A worker that lives no longer than this process, however this one ends."""

    def __init__(self, request: Mapping[str, Any], place: Place):
        self.place, self._asked = place, False
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (closed where it is read)
        # The user's modules are found where this process finds them.
        path = {"PYTHONPATH": os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, *_WORKER, json.dumps(request)],
            stdin=subprocess.PIPE,  # nothing is written to it; it ends with this process
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **path, **place},
            start_new_session=True,  # Ctrl-C is for this process, which tells the others
        )

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        """Asks it once to save and to end: the second signal would end it at once."""
        if not self._asked:
            self._process.send_signal(signal.SIGTERM)
        self._asked = True

    def kill(self) -> None:
        self._process.kill()
        self.fault()

    def fault(self) -> str:
        """Why it failed, from the last line that it wrote; "" where it did not."""
        code = self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        with self._output:
            self._output.seek(0)
            lines = self._output.read().decode(errors="replace").strip().splitlines()
        last = lines[-1] if lines else "without a word"
        if code == 0:
            return ""
        if last.startswith('{"fault"'):
            return str(json.loads(last)["fault"])
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"the process {how}: {last}"
