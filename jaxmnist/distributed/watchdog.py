"""Ends a process whose run stands still, and prints where it stands."""

import contextlib
import faulthandler
import math
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Final

from jaxmnist.distributed.ending import take_last_word

#: Exit code of a process that the watchdog ended.
EXIT_CODE: Final = 1
_FEWEST_TICKS, _LONGEST_TICK_S = 20, 1.0
# The others of a job see the same standstill up to a tick later, and print their stacks before
# this one takes them down.
_GRACE_TICKS = 4


class Watchdog:
    """Waits in a thread of its own for signs of life, and ends the process when none come.

    It counts the moments at which it was awake itself, and looks at no clock: neither a clock that
    jumps nor a process that was suspended with all its threads sets it off.
    """

    def __init__(self, timeout_s: float | None, describe: Callable[[], str]):
        """Waits for `timeout_s` without a sign of life, for ever where it is None.

        Args:
          timeout_s: seconds.
          describe: says in words where the run stands.
        """
        self._ticks = max(_FEWEST_TICKS, math.ceil((timeout_s or 0.0) / _LONGEST_TICK_S))
        self._tick_s = None if timeout_s is None else timeout_s / self._ticks
        self._timeout_s, self._describe = timeout_s, describe
        self._beats, self._ended = 0, threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to wait."""
        if self._tick_s is not None and self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()

    def beat(self) -> None:
        """A sign of life."""
        self._beats += 1

    def stop(self) -> None:
        """Waits no longer."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        seen, idle = self._beats, 0
        while not self._ended.wait(self._tick_s):
            idle = idle + 1 if self._beats == seen else 0
            seen = self._beats
            if idle >= self._ticks:
                self._bite()

    def _bite(self) -> None:
        take_last_word()  # another process, which waited for this one, may end the job meanwhile
        who = f"process {os.getpid()} on {socket.gethostname()}"
        fault = f"no step and no batch of evaluation was finished for {self._timeout_s:g} s"
        repair = "start the same command again: it goes on from the last checkpoint"
        later = "watchdog.timeout is the limit; the stacks of all threads follow"
        with contextlib.suppress(OSError, ValueError):  # nobody reads the standard error
            sys.stderr.write(f"jaxmnist: {who}: {fault}. {self._describe()} {repair} ({later})\n")
            sys.stderr.flush()
            faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
        self._ended.wait(_GRACE_TICKS * (self._tick_s or 0.0))
        # An ordinary exit would wait for the thread that hangs.
        os._exit(EXIT_CODE)
