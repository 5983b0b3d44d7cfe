"""What a run writes down while it goes: metrics, evaluations, checkpoints, the best step."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import jax

from jaxmnist.callbacks import Callback
from jaxmnist.clock import Clock
from jaxmnist.errors import NonFiniteLossError
from jaxmnist.mesh import replicate
from jaxmnist.metrics import Evaluation
from jaxmnist.runs.evaluate import Evaluator
from jaxmnist.runs.setup import Setup
from jaxmnist.state import UNWATCHED, TrainState
from jaxmnist.workdir import Workdir
from jaxmnist.writers import JsonlWriter, Writer, drop_after, read_records, writer_types


class Recorder:
    """Writes what is due after a step, in this order: evaluate, write, save.

    Metric lines up to a step are handed to the operating system before the checkpoint of that
    step is committed, and a resumed run drops the lines after its checkpoint; so no kill leaves a
    gap or a repetition.

    Attributes:
      history: the records of metrics.jsonl.
      evaluator: evaluates the states of the run.
      callbacks: those that were given, and the writers that are such.
    """

    def __init__(
        self,
        setup: Setup,
        place: Workdir,
        terminal: Any,
        clock: Clock,
        *,
        step: int,
        guard: Any,
        origin: Mapping[str, Any],
    ):
        """Opens the files, and cuts them back to the checkpoint of `step` (0: there is none).

        `origin`, what the run was given and started from, is kept with each checkpoint.
        """
        self._stop: Callable[[], bool] = guard.asked
        self._origin = origin
        self._setup, self._place, self._terminal, self._clock = setup, place, terminal, clock
        self.evaluator, self._tests = Evaluator(setup), dict[int, Evaluation]()
        self._saved = step
        self._logged, self._logged_seconds = step, clock.total("train")
        self._due: tuple[Any, ...] = ()
        self._writers: list[Writer] = []
        if jax.process_index() == 0:
            drop_after(place.metrics, step)
            self._writers = [JsonlWriter(place.metrics)]
            for writer_type in writer_types(setup.config.log.writers):
                self._writers.append(writer_type(setup, place, first_step=step + 1))
        self.callbacks = [
            guard,
            *setup.callbacks,
            *(w for w in self._writers if isinstance(w, Callback)),
        ]
        self.history = [r for r in read_records(place.metrics) if r["step"] <= step]
        keep, best = setup.config.checkpoint.keep, self.best["step"] if self.best else None
        self._checkpoints = guard.checkpoint_writer(place.checkpoints, keep=keep, best_step=best)

    @property
    def best(self) -> dict[str, Any] | None:
        """The record of the best state by validation so far; None without validation examples."""
        scores = [r for r in self.history if r["split"] == "validation"]
        return max(scores, key=lambda r: (r["accuracy"], -r["loss"]), default=None)

    def stepped(self, state: TrainState, step: int) -> None:
        """Tells the callbacks of a step."""
        for callback in self.callbacks:
            callback.on_step(step, state)

    def log(self, state: TrainState, step: int) -> TrainState:
        """Takes the window of metrics out of a state, and leaves it an empty one.

        A read here would keep the devices idle until the next call is dispatched: it comes with
        `write_line`, which whatever needs the line calls before.
        """
        self._due = step, state.window, state.first_bad_step
        if step == self._setup.steps:  # no call comes after
            self.write_line()
        return state.replace(**replicate(UNWATCHED, self._setup.mesh))

    def write_line(self) -> None:
        """Reads the window that `log` took, the only device-to-host read there is, and writes it.

        Raises:
          NonFiniteLossError: the loss or an update was not finite since the last line.
        """
        if not self._due:
            return
        step, window, bad = jax.device_get(self._due)
        self._due = ()
        count, lr = int(window.count), float(window.learning_rate)
        self._stop_if_bad(int(bad), lr)
        total = self._clock.total("train")
        speed = (step - self._logged) / max(total - self._logged_seconds, 1e-9)
        self._logged, self._logged_seconds = step, total
        metrics = {"loss": float(window.loss) / count, "accuracy": int(window.correct) / count}
        metrics |= {"learning_rate": lr, "images_per_second": speed * self._setup.config.batch_size}
        self._write("train", step, metrics, (self._setup.steps - step) / speed)

    def evaluate(self, state: TrainState, step: int) -> bool:
        """Evaluates, on validation examples where there are any, and writes a line.

        Returns:
          Whether this is the best state so far.
        """
        self.write_line()
        split = "validation" if "validation" in self._setup.data.splits else "test"
        if any(r["split"] == split and r["step"] == step for r in self.history):
            return False  # an earlier part of the run was stopped right after this line
        result = self._timed(state, step, split, self._stop)
        if result is None:
            return False
        self._write(split, step, {"loss": result.loss, "accuracy": result.accuracy})
        if split == "test":
            self._tests = {step: result}
        elif self.best is self.history[-1]:
            self._checkpoints.best_step = step
            return True
        return False

    def test(self, state: TrainState, step: int) -> Evaluation:
        """The evaluation of a state on the test split; that of the last step is made only once."""
        # It is asked as well, as a sign of life, and not stopped: everything is saved by then.
        go_on = lambda: self._stop() and False  # noqa: E731
        result = self._tests.get(step) or self._timed(state, step, "test", go_on)
        assert result is not None
        self._tests[step] = result
        return result

    def save(self, state: TrainState, step: int) -> None:
        """Starts to write a checkpoint, unless this step has one.

        Raises:
          NonFiniteLossError: the state is not finite; it is not saved.
          CheckpointError: the checkpoint could not be written.
        """
        self.write_line()
        if self._saved == step:
            return
        jax.block_until_ready(state)  # the steps before are training time
        with self._clock.part("checkpoint"):
            bad, rate = jax.device_get((state.first_bad_step, state.window.learning_rate))
            self._stop_if_bad(int(bad), float(rate))
            # A copy: the checkpoint is written while the clock goes on.
            notes = {"seconds": dict(self._clock.seconds), "data": self._setup.data.digest}
            notes |= {**self._origin, "metrics": (self.history or [{}])[-1]}
            self._checkpoints.save(step, state, notes)
            self._saved = step
        for callback in self.callbacks:
            callback.on_checkpoint(step, state)

    def wait(self) -> None:
        """Waits until the last checkpoint is on disk."""
        with self._clock.part("checkpoint"):
            self._checkpoints.wait()

    def close(self) -> None:
        """Closes everything; a checkpoint under way is finished."""
        with ExitStack() as stack:
            for writer in self._writers:
                stack.callback(writer.close)
            self._checkpoints.close()

    def _timed(
        self, state: TrainState, step: int, split: str, stop: Callable[[], bool]
    ) -> Evaluation | None:
        jax.block_until_ready(state)  # the steps before are training time
        with self._clock.part("eval"):
            result = self.evaluator.run(state, split, stop=stop)
            if result is not None:
                for callback in self.callbacks:
                    callback.on_evaluation(step, split, result, state)
        return result

    def _write(self, split: str, step: int, values: dict[str, float], left_s: float = 0.0) -> None:
        record = {"split": split, "step": step, "epoch": self._setup.epoch(step)} | values
        self.history.append(record)
        for writer in self._writers:
            writer.write(record)
        self._terminal.record(record, seconds_left=left_s)

    def _stop_if_bad(self, bad_step: int, learning_rate: float) -> None:
        if bad_step >= 0:
            place = self._place.name_of(self._place.checkpoints / str(self._saved))
            saved = f"step {self._saved}, in {place}" if self._saved else "none was saved"
            fault = f"was not finite at step {bad_step} (learning rate {learning_rate:.3g})"
            fault = f"the loss or the update {fault}; the last good checkpoint: {saved}"
            repair = "Lower optimizer.learning_rate, set optimizer.clip_norm, or look at the data"
            raise NonFiniteLossError(f"{fault}. {repair}")
