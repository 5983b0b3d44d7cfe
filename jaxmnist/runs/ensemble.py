"""Evaluates checkpoints: of one run, or of several as one, perhaps on moved images, too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmnist.errors import DataError, UsageError
from jaxmnist.metrics import Evaluation
from jaxmnist.pipeline import make_gather
from jaxmnist.runs.evaluate import Evaluator, load_run
from jaxmnist.runs.probabilities import Array, log_probabilities
from jaxmnist.runs.setup import Setup

VOTES = ("mean", "majority")


@dataclass(frozen=True)
class EnsembleEvaluation(Evaluation):
    """The result of several runs together, every example counting once.

    Attributes:
      members: the result of each run alone, by its work directory.
    """

    members: Mapping[str, Evaluation]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary of all fields."""
        members = {name: member.to_dict() for name, member in self.members.items()}
        return super().to_dict() | {"members": members}


def evaluate(
    workdir: str | Path | Sequence[str | Path],
    *,
    split: str = "test",
    step: int | None = None,
    vote: str = "mean",
    tta: int = 0,
    dataset: Any = None,
    model: Any = None,
    loss: Any = None,
) -> Evaluation:
    """Evaluates a checkpoint of a run, or several runs as one classifier.

    Args:
      workdir: of the run; several as a sequence.
      split: "test", "train" or "validation".
      step: which checkpoint; None for the newest.
      vote: how several runs decide: "mean" of their probabilities, or "majority".
      tta: takes the mean over the image moved by up to so many pixels; 0 does not move it.
      dataset: what was passed to `train`, if anything; likewise model and loss.
      model: see dataset.
      loss: see dataset.

    Returns:
      Loss, accuracy, accuracy by class and the confusion matrix; with several runs or `tta` an
      `EnsembleEvaluation`, which has those of each run, too.

    Raises:
      UsageError: no such split; of several runs also as in `evaluate_ensemble`.
      DataError: several runs have other examples or classes.
      WorkdirError: the directory is not that of a run.
      CheckpointError: no such checkpoint, or it is damaged.
    """
    parts = {"dataset": dataset, "model": model, "loss": loss}
    if tta or not isinstance(workdir, str | Path):
        workdirs = [workdir] if isinstance(workdir, str | Path) else workdir
        return evaluate_ensemble(workdirs, split=split, step=step, vote=vote, tta=tta, **parts)
    setup, state, _ = load_run(workdir, step=step, **parts)
    _split(setup, split)
    result = Evaluator(setup).run(state, split)
    assert result is not None  # nobody asks it to stop
    return result


def evaluate_ensemble(
    workdirs: Sequence[str | Path],
    *,
    split: str = "test",
    step: int | None = None,
    vote: str = "mean",
    tta: int = 0,
    **parts: Any,
) -> EnsembleEvaluation:
    """Evaluates checkpoints of several runs as one classifier.

    Args:
      workdirs: of the runs; their split must hold the same examples.
      split: "test", "train" or "validation".
      step: which checkpoint of each; None for the newest.
      vote: "mean" takes the mean of the members' probabilities; "majority" counts the classes
        that they choose, and the mean decides between equals. The loss of a majority is that of
        the shares of the votes, with the mean as one vote more.
      tta: a member's probabilities are the mean over the image moved by up to so many pixels in
        both directions, (2·tta + 1)² copies, zeros coming in; 0 takes the image as it is.
      **parts: dataset, model and loss as they were passed to `train`, if they were.

    Raises:
      UsageError: no work directory, one twice, no such split or vote, or too large a move.
      DataError: the members have other examples or classes.
      WorkdirError: a directory is not that of a run.
      CheckpointError: no such checkpoint, or it is damaged.
    """
    names = [str(workdir) for workdir in workdirs]
    if not names or len({Path(name).resolve() for name in names}) < len(names):
        rule = "give at least one, each once"
        raise UsageError(f"the work directories {', '.join(names) or '(none)'} repeat: {rule}")
    if vote not in VOTES:
        raise UsageError(f"vote={vote!r} is not one of {', '.join(VOTES)}: choose one")
    logs: list[Array] = []
    members: dict[str, Evaluation] = {}
    images = labels = np.zeros(0)
    for name in names:
        setup, state, _ = load_run(name, step=step, **parts)
        source = _split(setup, split)
        index = np.arange(len(source))
        own_images, own_labels = make_gather(source)(np.zeros_like(index), index)
        if not members:
            images, labels, loss = own_images, own_labels, setup.task.loss
            _check_move(tta, images.shape)
        elif not (np.array_equal(images, own_images) and np.array_equal(labels, own_labels)):
            rule = "choose runs on the same data (a validation split is drawn by the seed, too)"
            raise DataError(f"{name} and {names[0]} have other examples in {split!r}: {rule}")
        logs.append(_mean([log_probabilities(setup, state)(v) for v in _moved(images, tta)]))
        if logs[0].shape != logs[-1].shape:
            fault = f"{name} has {logs[-1].shape[1]} classes, {names[0]} {logs[0].shape[1]}"
            raise DataError(f"{fault}: choose runs of the same classes")
        members[name] = _evaluation(logs[-1], labels, setup.task.loss)
    together = _mean(logs) if vote == "mean" else _majority(logs)
    found = _evaluation(together, labels, loss)
    return EnsembleEvaluation(**vars(found), members=members)


def _split(setup: Setup, split: str) -> Any:
    if split not in setup.data.splits:
        there = f"{', '.join(setup.data.splits)} (validation needs dataset.validation > 0)"
        raise UsageError(f"split {split!r} does not exist in this run: choose one of {there}")
    return setup.data.splits[split]


def _check_move(tta: int, shape: Sequence[int]) -> None:
    most = min(shape[1:3]) - 1
    if type(tta) is not int or not 0 <= tta <= most:
        rule = f"must be an integer of pixels, 0 to {most} for these images"
        raise UsageError(f"tta={tta!r} {rule}: choose 0 or 1")


def _moved(images: Array, pixels: int) -> list[Array]:
    """The images [n, h, w, c] moved by each whole number of up to so many pixels."""
    h, w = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
    span = range(2 * pixels + 1)
    return [padded[:, top : top + h, left : left + w] for top in span for left in span]


def _mean(logs: Sequence[Array]) -> Array:
    """Logarithms of the mean of probabilities, float64, without leaving the logarithms."""
    return np.logaddexp.reduce(np.stack(logs).astype(np.float64)) - np.log(len(logs))


def _majority(logs: Sequence[Array]) -> Array:
    votes = sum(np.eye(log.shape[1])[log.argmax(1)] for log in logs)
    return np.log(votes + np.exp(_mean(logs))) - np.log(len(logs) + 1)


def _evaluation(logs: Array, labels: Array, loss: Any) -> Evaluation:
    """Counts each row once; logarithms of probabilities [n, k] are logits of their own."""
    k = logs.shape[1]
    confusion = np.zeros((k, k), np.int64)
    np.add.at(confusion, (labels, logs.argmax(1)), 1)
    losses = loss(jnp.asarray(logs, jnp.float32), jnp.asarray(labels))
    return Evaluation.from_sums(float(np.sum(np.asarray(losses), dtype=np.float64)), confusion)
