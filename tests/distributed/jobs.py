"""Starts real jobs of several processes of `jaxmnist train` and looks at how they end."""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from jaxmnist.testing.processes import device_environment

SETTINGS = {
    "model.name": "support:Tiny",
    "batch_size": 32,
    "train.steps": 40,
    "optimizer.learning_rate": 0.01,
    "log.every": 10,
    "eval.every": 20,
    "eval.batch_size": 50,
    "checkpoint.every": 10,
}

PROGRAM = """
import runpy, resource
{}
runpy.run_module("jaxmnist", run_name="__main__")
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def config(**changes) -> list[str]:
    """Flags of a configuration of a few seconds; `__` in a name stands for a dot."""
    settings = SETTINGS | {key.replace("__", "."): value for key, value in changes.items()}
    return [f"--config.{key}={value}" for key, value in settings.items()]


@dataclasses.dataclass
class Process:
    """A process of a job and the file that it writes to."""

    popen: subprocess.Popen
    cat: subprocess.Popen
    log: Path

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, sign: str, timeout_s: float = 90.0) -> None:
        """Returns once the process has printed the sign."""
        end = time.monotonic() + timeout_s
        while sign not in self.text:
            assert self.popen.poll() is None, f"ended without {sign!r}:\n{self.text}"
            assert time.monotonic() < end, f"{sign!r} was not printed:\n{self.text}"
            time.sleep(0.02)

    def ends(self, timeout_s: float) -> int:
        """The exit code; fails where it takes longer."""
        try:
            code = self.popen.wait(timeout_s)
            self.cat.wait(timeout_s)
            return code
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {timeout_s} s:\n{self.text}") from None

    def result(self, workdir: Path) -> dict:
        """Waits until the process has done its work; what it left behind."""
        assert self.ends(90) == 0, self.text
        return json.loads((workdir / "result.json").read_text())


@contextlib.contextmanager
def started(folder: Path, *commands, before="", cwd=None, **environment):
    """A process for each list of arguments of `jaxmnist`; all are gone at the end of the block.

    `before` is a statement that each of them executes first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tests = Path(__file__).parents[1]
    paths = [str(tests.parent), str(tests), os.environ.get("PYTHONPATH", "")]
    environment = (
        os.environ
        | device_environment(1, os.environ)
        | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": os.pathsep.join(paths)}
        | environment
    )
    processes = []
    with contextlib.ExitStack() as stack:
        for number, command in enumerate(commands):
            log = folder / f"log{number}_{time.monotonic_ns()}.txt"
            # By way of another process: a limit on the size of files is not one on what is said.
            with log.open("wb") as file:
                cat = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file)
            popen = subprocess.Popen(
                [sys.executable, "-c", PROGRAM.format(before), *map(str, command)],
                stdout=cat.stdin,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=cwd,
            )
            cat.stdin.close()
            stack.callback(cat.wait)
            stack.callback(popen.wait)
            stack.callback(popen.send_signal, signal.SIGKILL)
            processes.append(Process(popen, cat, log))
        yield processes


def job(workdir, *extra, processes=2, per_process=None, **changes):
    """The commands of a job, one for each process."""
    address = f"127.0.0.1:{free_port()}"
    per_process = per_process or {}
    return [
        [
            "train",
            f"--workdir={workdir}",
            f"--coordinator_address={address}",
            f"--num_processes={processes}",
            f"--process_id={index}",
            *config(**changes | per_process.get(index, {})),
            *extra,
            "--noreport",
        ]
        for index in range(processes)
    ]
