"""Candidates in processes of their own: one works while the others wait for their next line.

Frameworks then keep their own threads, environment and memory. Parent and worker speak JSON, one
object a line, over the worker's standard input and output.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_BENCHMARKS = Path(__file__).parents[1]


class WorkerError(RuntimeError):
    """A worker ended, or said that it cannot do what was asked."""


class Worker:
    """A process of `python -m <module>` that answers requests one by one."""

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str] | None = None):
        """Starts it; it answers nothing before it is asked."""
        self.name = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_BENCHMARKS,
            env={**os.environ, **(environment or {})},
            text=True,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Sends a request and waits for the answer.

        Raises:
          WorkerError: the worker ended or refused; the text says why.
        """
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise WorkerError(f"{self.name} ended with code {self._process.wait()}")
        values = json.loads(answer)
        if "refused" in values:
            raise WorkerError(values["refused"])
        return values

    def close(self) -> None:
        """Ends it: a worker stops where its input ends."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answers the requests on standard input until it ends; whatever else is printed is an error.

    The first fault of an answer is passed on to the parent, and ends the worker.
    """
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what frameworks print must not mix with the replies
    for line in sys.stdin:
        try:
            values = answer(json.loads(line))
        except Exception as error:
            values = {"refused": f"{type(error).__name__}: {str(error).strip()[:300]}"}
        replies.write(json.dumps(values) + "\n")
        replies.flush()
        if "refused" in values:
            return
