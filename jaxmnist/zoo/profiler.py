"""Records what host and devices do in chosen steps of a run, as a trace of jax.profiler."""

from pathlib import Path

import jax

from jaxmnist.callbacks import Callback
from jaxmnist.errors import UsageError
from jaxmnist.state import TrainState


class Profile(Callback):
    """Traces the steps `first` to `last` into <workdir>/profile.

    XProf, TensorBoard with its profile plugin and Perfetto open what lies there. A run that is
    resumed after these steps traces nothing. Of several processes that form a job the first one
    writes there, the others into profile-1 and so on: files are named by host and second.
    """

    def __init__(self, first: int, last: int):
        """Starts nothing yet; steps are counted from 1, and `last` is traced, too."""
        self._first, self._last = first, last
        self._directory, self._running = Path(), False

    def on_start(self, workdir: Path, step: int, total_steps: int) -> None:
        """Starts the trace where the first step is the next one.

        Raises:
          UsageError: the run ends before the last of the steps.
        """
        if self._last > total_steps:
            rule = f"the run has {total_steps} steps: choose some of 1 to {total_steps}"
            raise UsageError(f"the steps {self._first}:{self._last} cannot be traced; {rule}")
        process = jax.process_index()
        self._directory = workdir / (f"profile-{process}" if process else "profile")
        if self._first - 1 <= step < self._last:
            self._start()

    def on_step(self, step: int, state: TrainState) -> None:
        """Starts or stops the trace when the steps before, or those traced, are done."""
        if self._running and step >= self._last:
            jax.block_until_ready(state)
            self.on_end()
        elif not self._running and self._first - 1 <= step < self._last:
            jax.block_until_ready(state)
            self._start()

    def on_end(self) -> None:
        """Stops the trace where it still runs."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()

    def _start(self) -> None:
        jax.profiler.start_trace(str(self._directory))
        self._running = True
