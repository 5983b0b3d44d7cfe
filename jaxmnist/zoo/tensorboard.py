"""Shows a run in TensorBoard: metrics, confusion matrices, images, hyper-parameters."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmnist.augment import Augment
from jaxmnist.callbacks import Callback
from jaxmnist.config import to_dict
from jaxmnist.config.values import flatten
from jaxmnist.metrics import Evaluation
from jaxmnist.models.rows import fold_rows
from jaxmnist.pipeline import make_gather
from jaxmnist.runs.setup import Setup
from jaxmnist.state import TrainState
from jaxmnist.step.body import AUGMENT_STREAM, stream_key
from jaxmnist.workdir import Workdir
from jaxmnist.zoo.drawings import confusion_picture, contact_sheet

# Rows and draws of the picture of what augmentation does.
_EXAMPLES, _DRAWS = 8, 5


class EventFile:
    """A file of events; each is with the operating system once it was added.

    tensorboardX's own `SummaryWriter` passes events through a queue that its flush does not wait
    for, so that those before a checkpoint could be lost.
    """

    def __init__(self, directory: Path, name: str):
        """Makes the file, or empties it."""
        from tensorboardX.record_writer import RecordWriter

        directory.mkdir(parents=True, exist_ok=True)
        self._records = RecordWriter(str(directory / f"events.out.tfevents.{name}"))
        self.close = self._records.close
        self.add(0, file_version="brain.Event:2")

    def add(self, step: int, **content: Any) -> None:
        """Writes an event of a step."""
        from tensorboardX.proto.event_pb2 import Event

        event = Event(wall_time=time.time(), step=step, **content)
        self._records.write(event.SerializeToString())
        self._records.flush()


class TensorBoardWriter(Callback):
    """Writes event files of which a kill loses nothing, and a resumed run repeats nothing.

    Each part of a run has a file of its own, which takes back what an earlier part wrote of the
    same steps. What is written before the first step and after the last one has files of fixed
    names, which are written anew. TensorBoard reads files in the order of their names.
    """

    def __init__(self, setup: Setup, place: Workdir, *, first_step: int):
        """Writes nothing yet; `first_step` is the first one that this part of the run makes."""
        self._setup, self._directory = setup, place.tensorboard
        self._first_step = first_step
        self._events: EventFile | None = None

    def on_start(self, workdir: Path, step: int, total_steps: int) -> None:
        """Writes the hyper-parameters, and what augmentation does to a few examples."""
        from tensorboardX.summary import hparams

        values: dict[str, Any] = {}
        for name, value in flatten(to_dict(self._setup.config)).items():
            inner = value.items() if isinstance(value, dict) else ()
            values |= {f"{name}.{key}": v for key, v in inner} or {name: value}
        # Lists and such are not among the types that it takes.
        plain = {k: v if isinstance(v, bool | int | float) else str(v) for k, v in values.items()}
        splits = ["train", "validation" if "validation" in self._setup.data.splits else "test"]
        results = {f"{split}/{name}": 0 for split in splits for name in ("loss", "accuracy")}
        file = EventFile(self._directory, "0.start")
        for summary in hparams(plain, results):
            file.add(0, summary=summary)
        if augment := self._setup.task.augment:
            file.add(0, summary=_image("augmentation", self._augmented(jax.jit(augment))))
        file.close()

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes the numbers of a record as scalars, in one event: each waits for the disk."""
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.summary import scalar

        summary = Summary()
        for name, value in record.items():
            if name not in ("split", "step"):
                summary.MergeFrom(scalar(f"{record['split']}/{name}", value))
        self._opened().add(record["step"], summary=summary)

    def on_evaluation(self, step: int, split: str, result: Evaluation, state: TrainState) -> None:
        """Draws the confusion matrix; that of the test split at the end has a file of its own."""
        picture = _image(f"{split}/confusion", confusion_picture(result.confusion))
        if split == "test" and step == self._setup.steps:
            file = EventFile(self._directory, "end")
            file.add(step, summary=picture)
            file.close()
        # At the end the best state by validation is tested, too: its step is long past.
        elif split == "validation" or "validation" not in self._setup.data.splits:
            self._opened().add(step, summary=picture)

    def close(self) -> None:
        """Lets go of the file."""
        if self._events is not None:
            self._events.close()

    def _opened(self) -> EventFile:
        """The file of this part; TensorBoard ignores older events from its first step on."""
        from tensorboardX.proto.event_pb2 import SessionLog

        if self._events is None:
            self._events = EventFile(self._directory, f"{time.time_ns()}")
            self._events.add(self._first_step, session_log=SessionLog(status=SessionLog.START))
        return self._events

    def _augmented(self, augment: Augment) -> Any:
        """Examples of the train split, one a row, each as it is and as it is drawn."""
        seed, rows = self._setup.task.seed, np.arange(min(_EXAMPLES, len(self._setup.data.train)))
        images, _ = make_gather(self._setup.data.train)(np.zeros_like(rows), rows)
        keys = [stream_key(seed, AUGMENT_STREAM, step) for step in range(_DRAWS)]
        draws = [augment(jnp.asarray(images), fold_rows(key, jnp.asarray(rows))) for key in keys]
        seen = np.stack([images, *map(np.asarray, draws)], 1).astype(np.float32)
        scale = 1 if np.issubdtype(images.dtype, np.integer) else 255
        shown = np.clip(seen * scale, 0, 255).astype(np.uint8)
        return contact_sheet(shown.reshape(-1, *images.shape[1:]), columns=1 + _DRAWS)


def write_mistakes(workdir: Path, step: int, images: Any, captions: list[str]) -> None:
    """Writes the picture of mistakes uint8 [n, h, w, c] for a run that has event files."""
    if len(images) and (directory := Workdir(workdir).tensorboard).is_dir():
        file = EventFile(directory, "mistakes")
        file.add(
            step, summary=_image("mistakes", contact_sheet(images, columns=6, captions=captions))
        )
        file.close()


def _image(tag: str, pixels: Any) -> Any:
    from tensorboardX.summary import image

    return image(tag, pixels, dataformats="HWC")
