"""A callback of one's own: what shall happen at the steps, evaluations and checkpoints."""

from pathlib import Path

from jaxmnist.callbacks import Callback
from jaxmnist.metrics import Evaluation
from jaxmnist.state import TrainState


class WorstClass(Callback):
    """Notes the class with the lowest accuracy after each evaluation, in a file of the run."""

    def on_start(self, workdir: Path, step: int, total_steps: int) -> None:
        """Remembers where to write."""
        self.path = workdir / "worst.txt"

    def on_evaluation(self, step: int, split: str, result: Evaluation, state: TrainState) -> None:
        """Adds a line; classes of which there are no examples have no accuracy."""
        shares = {k: share for k, share in enumerate(result.per_class) if share is not None}
        worst = min(shares, key=lambda k: shares[k])
        with self.path.open("a") as file:
            file.write(f"step {step}, {split}: class {worst}, {shares[worst]:.1%}\n")
