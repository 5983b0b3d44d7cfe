"""What a run writes down while it goes: metrics, evaluations, checkpoints, the best step."""

from collections.abc import Callable
from typing import Any

import jax

from jaxmnist.checkpoint import CheckpointInfo, CheckpointWriter
from jaxmnist.clock import Clock
from jaxmnist.errors import NonFiniteLossError
from jaxmnist.mesh import replicate
from jaxmnist.metrics import Evaluation, Window
from jaxmnist.runs.evaluate import Evaluator
from jaxmnist.runs.setup import Setup
from jaxmnist.state import TrainState
from jaxmnist.terminal import Terminal
from jaxmnist.workdir import Workdir
from jaxmnist.writers import (
    JsonlWriter,
    TensorBoardWriter,
    Writer,
    Writers,
    drop_after,
    read_records,
)


class Recorder:
    """Writes what is due after a step, in this order: evaluate, write, save.

    Metric lines up to a step are handed to the operating system before the checkpoint of that
    step is committed, and a resumed run drops the lines after its checkpoint; so no kill leaves a
    gap or a repetition.

    Attributes:
      history: the records of metrics.jsonl.
      last_test: the evaluation on the test split, and the step of it.
    """

    def __init__(
        self,
        setup: Setup,
        place: Workdir,
        terminal: Terminal,
        clock: Clock,
        *,
        resumed: CheckpointInfo | None,
    ):
        """Opens the files, and cuts them back to the checkpoint where the run resumes."""
        self._setup = setup
        self._place = place
        self._terminal = terminal
        self._clock = clock
        self._evaluator = Evaluator(setup)
        step = resumed.step if resumed else 0
        self._saved: CheckpointInfo | None = resumed
        self._logged_at = (step, clock.total("train"))
        self.last_test: tuple[int, Evaluation] | None = None
        writers: list[Writer] = []
        if jax.process_index() == 0:
            drop_after(place.metrics, step)
            writers = [
                JsonlWriter(place.metrics),
                TensorBoardWriter(place.tensorboard, first_step=step + 1),
            ]
        self.history = [r for r in read_records(place.metrics) if r["step"] <= step]
        self._writers = Writers(writers)
        self._checkpoints = CheckpointWriter(
            place.checkpoints,
            keep=setup.config.checkpoint.keep,
            best_step=self.best["step"] if self.best else None,
        )

    @property
    def best(self) -> dict[str, Any] | None:
        """The record of the best state by validation so far; None without validation examples."""
        scores = [r for r in self.history if r["split"] == "validation"]
        return max(scores, key=lambda r: (r["accuracy"], -r["loss"]), default=None)

    def compile(self, state: TrainState) -> None:
        """Compiles the evaluation ahead of its first use."""
        self._evaluator.compile(state)

    def log(self, state: TrainState, step: int) -> TrainState:
        """Reads the window of metrics, the only device-to-host read there is, and empties it.

        Raises:
          NonFiniteLossError: the loss or an update was not finite since the last line.
        """
        window, bad = jax.device_get((state.window, state.first_bad_step))
        self._stop_if_bad(int(bad), float(window.learning_rate))
        before, seconds_before = self._logged_at
        seconds = self._clock.total("train") - seconds_before
        examples = (step - before) * self._setup.config.batch_size
        self._logged_at = (step, seconds_before + seconds)
        left = (self._setup.steps - step) * seconds / max(step - before, 1)
        count = max(int(window.count), 1)
        self._write(
            "train",
            step,
            seconds_left=left,
            loss=float(window.loss) / count,
            accuracy=int(window.correct) / count,
            learning_rate=float(window.learning_rate),
            images_per_second=examples / seconds if seconds > 0 else 0.0,
        )
        return state.replace(window=replicate(Window.empty(), self._setup.mesh))

    def evaluate(self, state: TrainState, step: int, *, stop: Callable[[], bool]) -> bool:
        """Evaluates, on validation examples where there are any, and writes a line.

        Returns:
          Whether this is the best state so far.
        """
        split = "validation" if "validation" in self._setup.data.splits else "test"
        if any(r["split"] == split and r["step"] == step for r in self.history):
            return False  # an earlier part of the run was stopped right after this line
        jax.block_until_ready(state)  # the steps before are training time
        with self._clock.part("eval"):
            result = self._evaluator.run(state, split, stop=stop)
        if result is None:
            return False
        self._write(split, step, loss=result.loss, accuracy=result.accuracy)
        if split == "test":
            self.last_test = (step, result)
            return False
        improved = self.best is not None and self.best["step"] == step
        if improved:
            self._checkpoints.mark_best(step)
        return improved

    def test(self, state: TrainState, step: int) -> Evaluation:
        """The evaluation of a state on the test split; that of the last step is made only once."""
        if self.last_test is not None and self.last_test[0] == step:
            return self.last_test[1]
        with self._clock.part("eval"):
            result = self._evaluator.run(state, "test")
        assert result is not None  # nobody asks this one to stop
        return result

    def save(self, state: TrainState, step: int) -> None:
        """Starts to write a checkpoint, unless this step has one.

        Raises:
          NonFiniteLossError: the state is not finite; it is not saved.
          CheckpointError: the checkpoint could not be written.
        """
        if self._saved is not None and self._saved.step == step:
            return
        jax.block_until_ready(state)  # the steps before are training time
        with self._clock.part("checkpoint"):
            bad, rate = jax.device_get((state.first_bad_step, state.window.learning_rate))
            self._stop_if_bad(int(bad), float(rate))
            self._writers.flush()
            notes = {
                "seconds": self._clock.seconds,
                "metrics": self.history[-1] if self.history else {},
                "data": self._setup.data.digest,
            }
            self._saved = self._checkpoints.save(step, state, notes)

    def wait(self) -> None:
        """Waits until the last checkpoint is on disk."""
        with self._clock.part("checkpoint"):
            self._checkpoints.wait()

    def close(self) -> None:
        """Writes out and closes everything; a checkpoint under way is finished."""
        with self._writers:
            self._checkpoints.close()

    def _write(
        self, split: str, step: int, *, seconds_left: float | None = None, **values: float
    ) -> None:
        record = {"split": split, "step": step, "epoch": self._setup.epoch(step)} | values
        self.history.append(record)
        self._writers.write(record)
        self._writers.flush()
        self._terminal.record(record, seconds_left=seconds_left)

    def _stop_if_bad(self, bad_step: int, learning_rate: float) -> None:
        if bad_step < 0:
            return
        saved = "none was saved"
        if self._saved is not None:
            saved = f"step {self._saved.step}, in {self._place.checkpoints / str(self._saved.step)}"
        raise NonFiniteLossError(
            f"the loss or the update was not finite at step {bad_step} (learning rate "
            f"{learning_rate:.3g}); the last good checkpoint: {saved}. Lower "
            "optimizer.learning_rate, set optimizer.clip_norm, or look at the data"
        )
