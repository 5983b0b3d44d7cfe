"""What a user's own code may do at the steps, evaluations and checkpoints of a run."""

from pathlib import Path

from jaxmnist.metrics import Evaluation
from jaxmnist.state import TrainState


class Callback:
    """Does nothing at any moment; override the moments that you want.

    Every process of a job calls its callbacks at the same steps. A state that is passed is the
    one on the devices: reading it blocks them, and the next step consumes it, so that what shall
    be kept must be copied (`jax.device_get`). An exception in a callback ends the run.
    """

    def on_start(self, workdir: Path, step: int, total_steps: int) -> None:
        """Before the first step that this process makes, which is `step` + 1 of `total_steps`."""

    def on_step(self, step: int, state: TrainState) -> None:
        """After a call of the train step was dispatched; `step` is the last one that it makes."""

    def on_evaluation(self, step: int, split: str, result: Evaluation, state: TrainState) -> None:
        """After the state of a step was evaluated on a split, the final test included."""

    def on_checkpoint(self, step: int, state: TrainState) -> None:
        """After the state of a step was handed to be written."""

    def on_end(self) -> None:
        """After the last step, or when the run is stopped by a signal or an error."""
