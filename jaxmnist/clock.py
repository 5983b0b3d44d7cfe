"""Durations that never jump, measured in parts: training, evaluation, checkpoints, compilation."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Clock:
    """Adds up the seconds of the parts of a run; exactly one part is running at a time.

    Attributes:
      seconds: seconds by part so far, without the part that is running.
    """

    def __init__(
        self, seconds: dict[str, float] | None = None, *, now: Callable[[], float] = time.monotonic
    ):
        """Starts in no part; `seconds` carries the totals of an earlier part of the same run."""
        self._now = now
        self._part: str | None = None
        self._since = now()
        self.seconds: dict[str, float] = dict(seconds or {})

    def switch(self, part: str | None) -> str | None:
        """Ends the running part, starts `part`, and returns the one that ended."""
        now, ended = self._now(), self._part
        if ended is not None:
            self.seconds[ended] = self.seconds.get(ended, 0.0) + now - self._since
        self._part, self._since = part, now
        return ended

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts the block to part `name`, then goes back to the part before."""
        before = self.switch(name)
        try:
            yield
        finally:
            self.switch(before)

    def total(self, part: str) -> float:
        """Seconds of a part up to now, also while it runs."""
        self.switch(self._part)
        return self.seconds.get(part, 0.0)
