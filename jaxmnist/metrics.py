"""Metrics as sums that can be added over rows, devices, steps and batches, and divided once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax


def cross_entropy(
    logits: jax.Array, labels: jax.Array, *, label_smoothing: float = 0.0
) -> jax.Array:
    """Cross-entropy of each row, in nats.

    Args:
      logits: [b, k].
      labels: int32 [b].
      label_smoothing: share of the target spread evenly over all classes (arXiv:1512.00567).

    Returns:
      float32 [b].
    """
    logits = logits.astype(jnp.float32)
    if not label_smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
    return optax.softmax_cross_entropy(logits, targets)


class StepSums(flax.struct.PyTreeNode):
    """Sums over the rows of one step or one batch; all float32, so that they share an all-reduce.

    Counts are exact below 2²⁴ rows.

    Attributes:
      loss: sum of the rows' losses.
      correct: number of rows whose largest logit is that of the label.
      count: number of rows that are not padding.
    """

    loss: jax.Array
    correct: jax.Array
    count: jax.Array


def step_sums(losses: jax.Array, logits: jax.Array, labels: jax.Array, mask: jax.Array) -> StepSums:
    """Sums over the rows where mask [b] holds; the others may hold anything, NaN included."""
    hits = jnp.argmax(logits, axis=-1) == labels
    return StepSums(
        loss=jnp.where(mask, losses, 0.0).sum(),
        correct=jnp.where(mask, hits, False).sum(dtype=jnp.float32),
        count=mask.sum(dtype=jnp.float32),
    )


def confusion_sums(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
    """Number of rows by label and prediction, float32 [k, k]; padding is left out."""
    k = logits.shape[-1]
    actual = jax.nn.one_hot(labels, k) * mask[:, None]
    return actual.T @ jax.nn.one_hot(jnp.argmax(logits, axis=-1), k)


class Window(flax.struct.PyTreeNode):
    """What is summed on the devices between two log lines; part of the train state.

    Attributes:
      loss: float32, sum over rows.
      correct: int32.
      count: int32.
      learning_rate: float32, of the last step.
    """

    loss: Any
    correct: Any
    count: Any
    learning_rate: Any

    @staticmethod
    def empty() -> "Window":
        """A window of no steps, in host memory."""
        zero = np.zeros((), np.float32)
        return Window(loss=zero, correct=np.int32(0), count=np.int32(0), learning_rate=zero)

    def add(self, sums: StepSums, learning_rate: Any) -> "Window":
        """The window with one more step."""
        return Window(
            loss=self.loss + sums.loss,
            correct=self.correct + sums.correct.astype(jnp.int32),
            count=self.count + sums.count.astype(jnp.int32),
            learning_rate=jnp.asarray(learning_rate, jnp.float32),
        )


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation in which every example counts once.

    Attributes:
      loss: mean loss.
      accuracy: share of the examples that are right.
      count: number of examples.
      per_class: accuracy by label; None where the data hold no example of a label.
      confusion: counts, `confusion[label][prediction]`.
    """

    loss: float
    accuracy: float
    count: int
    per_class: tuple[float | None, ...]
    confusion: tuple[tuple[int, ...], ...]

    @staticmethod
    def from_sums(loss: float, confusion: np.ndarray) -> "Evaluation":
        """Divides, once, the sum of the losses and the counts int64 [k, k]."""
        count = int(confusion.sum())
        rows = [(int(row.sum()), int(row[label])) for label, row in enumerate(confusion)]
        return Evaluation(
            loss=float(loss) / max(count, 1),
            accuracy=int(np.trace(confusion)) / max(count, 1),
            count=count,
            per_class=tuple(right / total if total else None for total, right in rows),
            confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary of all fields."""
        return {
            "accuracy": self.accuracy,
            "loss": self.loss,
            "count": self.count,
            "per_class": list(self.per_class),
            "confusion": [list(row) for row in self.confusion],
        }

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Evaluation":
        """The inverse of `to_dict`."""
        return Evaluation(
            loss=values["loss"],
            accuracy=values["accuracy"],
            count=values["count"],
            per_class=tuple(values["per_class"]),
            confusion=tuple(tuple(row) for row in values["confusion"]),
        )
