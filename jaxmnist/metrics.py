"""Metrics as sums that can be added over rows, devices, steps and batches, and divided once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flax.struct
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, nn


def cross_entropy(logits: Array, labels: Array, *, label_smoothing: float = 0.0) -> Array:
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
    targets = optax.smooth_labels(nn.one_hot(labels, logits.shape[-1]), label_smoothing)
    return optax.softmax_cross_entropy(logits, targets)


class StepSums(flax.struct.PyTreeNode):
    """Sums over the rows of one step or one batch; all float32, so that they share an all-reduce.

    Counts are exact below 2²⁴ rows.

    Attributes:
      loss: sum of the rows' losses.
      correct: number of rows whose largest logit is that of the label.
      count: number of rows that are not padding.
    """

    loss: Array
    correct: Array
    count: Array


def step_sums(losses: Array, logits: Array, labels: Array, mask: Array) -> StepSums:
    """Sums over the rows where mask [b] holds; the others may hold anything, NaN included."""
    hits = (jnp.argmax(logits, axis=-1) == labels) & mask
    loss = jnp.where(mask, losses, 0.0).sum()
    return StepSums(loss, hits.sum(dtype=jnp.float32), mask.sum(dtype=jnp.float32))


def confusion_sums(logits: Array, labels: Array, mask: Array) -> Array:
    """Number of rows by label and prediction, float32 [k, k]; padding is left out."""
    k = logits.shape[-1]
    actual = nn.one_hot(labels, k) * mask[:, None]
    return actual.T @ nn.one_hot(jnp.argmax(logits, axis=-1), k)


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
        return Window(np.float32(0), np.int32(0), np.int32(0), np.float32(0))

    def add(self, sums: StepSums, learning_rate: Any) -> "Window":
        """The window with one more step."""
        correct = self.correct + sums.correct.astype(jnp.int32)
        count = self.count + sums.count.astype(jnp.int32)
        rate = jnp.asarray(learning_rate, jnp.float32)
        return Window(self.loss + sums.loss, correct, count, rate)


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
    per_class: Sequence[float | None]
    confusion: Sequence[Sequence[int]]

    @staticmethod
    def from_sums(loss: float, confusion: np.ndarray) -> "Evaluation":
        """Divides, once, the sum of the losses and the counts int64 [k, k]."""
        right, totals = np.diag(confusion).tolist(), confusion.sum(1).tolist()
        count = sum(totals)
        mean, accuracy = float(loss) / max(count, 1), sum(right) / max(count, 1)
        per_class = [r / total if total else None for r, total in zip(right, totals, strict=True)]
        return Evaluation(mean, accuracy, count, per_class, confusion.tolist())

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary of all fields."""
        return dict(vars(self))

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Evaluation":
        """The inverse of `to_dict`."""
        return Evaluation(**values)
