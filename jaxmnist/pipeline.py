"""The way of the data: a stream of global batches, this process's rows of them, the devices.

The training stream is the concatenation of one permutation of the data set after the other. Batch
i is stream[i·B : (i+1)·B]: always full, the last batch of an epoch is filled from the next one, and
every example comes once in an epoch. A batch is a pure function of (seed, i, B); how many devices
or processes there are decides only who reads which of its rows, and going on after step i means
starting at batch i.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from itertools import chain, pairwise
from typing import Any

import grain
import jax
import numpy as np

from jaxmnist.datasets import Split
from jaxmnist.datasets.dataset import epoch_permutation
from jaxmnist.errors import DataError
from jaxmnist.step import Batch, Indexed, Several

Array = np.ndarray[Any, Any]
# At a place in the stream, an epoch and an index: images [b, h, w, c] and labels int32 [b].
Gather = Callable[[Array, Array], tuple[Array, Array]]
_ALL = slice(None)
# Elements that are read and placed at one go: so many, as far as they stay so small.
_TOGETHER, _BYTES_TOGETHER = 8, 4 * 2**20


def stream_rows(
    seed: int, step: int, *, batch_size: int, examples: int, rows: slice = _ALL
) -> tuple[Array, Array]:
    """Which examples a batch of the training stream holds.

    Args:
      seed: of the permutations.
      step: number of the batch, from 0.
      batch_size: rows in the global batch.
      examples: examples in an epoch.
      rows: the rows of the batch that are wanted.

    Returns:
      Epoch and example number of each row, two int64 arrays.
    """
    place = np.arange(step * batch_size, (step + 1) * batch_size)[rows]
    epochs, within = np.divmod(place, examples)
    chosen = np.empty_like(place)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        chosen[here] = epoch_permutation(seed, int(epoch), examples)[within[here]]
    return epochs, chosen


def process_rows(batch_size: int, *, process: int, processes: int) -> slice:
    """The contiguous rows of a global batch that one process reads.

    `processes` divides `batch_size`, as the number of devices does.
    """
    each = batch_size // processes
    return slice(process * each, (process + 1) * each)


def eval_rows(
    number: int, *, batch_size: int, padded_size: int, examples: int, rows: slice = _ALL
) -> tuple[Array, Array]:
    """Which examples an evaluation batch holds, in order, and which rows are padding.

    Args:
      number: of the batch, from 0; there are ceil(examples / batch_size).
      batch_size: examples in a full batch.
      padded_size: rows in the batch, at least batch_size; the rest is padding.
      examples: in the split.
      rows: the rows of the batch that are wanted.

    Returns:
      Example number int64 (0 where padded) and mask bool of each row.
    """
    row = np.arange(padded_size)[rows]
    index = number * batch_size + row
    mask = (row < batch_size) & (index < examples)
    return np.where(mask, index, 0), mask


def make_gather(source: Any) -> Gather:
    """How to read rows of a source: one vectorised gather from arrays, or a user's `MapDataset`.

    A `MapDataset` of `{"image": [h, w, c], "label": int}` is asked at place epoch · N + index of
    its repetition, so that its own random transformations differ from epoch to epoch; the
    shuffle is ours. N is the length it has; an infinite one is refused.

    Raises:
      DataError: neither of the two, or an infinite or empty one.
    """
    if isinstance(source, Split):
        images, labels = source.images, source.labels
        return lambda epochs, indices: (images[indices], labels[indices].astype(np.int32))
    if not isinstance(source, grain.MapDataset):
        rule = "give arrays (see jaxmnist.datasets.from_arrays) or a grain.MapDataset of examples"
        raise DataError(f"a data set of type {type(source).__name__} cannot be read: {rule}")
    n = len(source)
    if not 0 < n < 2**40:
        rule = "give a finite one without repeat(), the epochs are made here"
        raise DataError(f"the grain.MapDataset has {n} elements: {rule}")
    repeated = source.repeat()

    def gather(epochs: Array, indices: Array) -> tuple[Array, Array]:
        elements = [repeated[int(i)] for i in epochs * n + indices]
        images = np.stack([element["image"] for element in elements])
        return images, np.array([element["label"] for element in elements], np.int32)

    return gather


class BatchSource:
    """This process's rows of the training stream; a Grain source whose element is a whole batch.

    Per-record pipelines spend longer on 784-byte records than the model does.
    """

    def __init__(
        self,
        source: Any,
        *,
        seed: int,
        batch_size: int,
        bounds: Sequence[int],
        rows: slice,
        several: int = 1,
        indexed: bool = False,
    ):
        """Reads nothing yet.

        Args:
          source: a split, or a `MapDataset`.
          seed: of the permutations.
          batch_size: rows in the global batch.
          bounds: call i of the train step makes the steps from bounds[i] to bounds[i + 1].
          rows: those of the global batch that this process holds.
          several: most steps of a call; above 1 an element is `Several` batches.
          indexed: whether to give row numbers (`Indexed`, without the table) in place of examples.
        """
        self._gather, self._bounds = make_gather(source), bounds
        self._several, self._indexed = several, indexed
        stream = partial(stream_rows, seed, batch_size=batch_size, examples=len(source))
        self._rows = partial(stream, rows=rows)

    def __len__(self) -> int:
        """Number of calls."""
        return len(self._bounds) - 1

    def __getitem__(self, number: Any) -> Any:
        """The rows of the batches of a call, all of them real examples."""
        steps = range(self._bounds[int(number)], self._bounds[int(number) + 1])
        epochs, index = np.stack([self._rows(step) for step in steps], axis=1)

        def shaped(rows: Array) -> Array:
            rows = rows.reshape(*index.shape, *rows.shape[1:])
            missing = self._several - len(steps)
            filler = np.zeros((missing, *rows.shape[1:]), rows.dtype) if missing else rows[:0]
            return rows[0] if self._several == 1 else np.concatenate([rows, filler])

        mask = np.ones(index.size, bool)
        if self._indexed:
            batch: Any = Indexed(shaped(index.ravel().astype(np.int32)), shaped(mask), ())
        else:
            images, labels = self._gather(epochs.ravel(), index.ravel())
            batch = Batch(shaped(images), shaped(labels), shaped(mask))
        return batch if self._several == 1 else Several(batch, np.int32(len(steps)))


def train_batches(
    source: BatchSource, place: Callable[[list[Any]], list[Any]] = list
) -> Generator[Any]:
    """The elements of a source in their order, read and placed ahead by a thread.

    Args:
      source: of the batches.
      place: lays a list of elements on their devices, in the thread. Small elements come several
        at once: what Grain and JAX do for one of them costs more than reading 256 small images.
    """
    size = sum(x.nbytes for x in jax.tree.leaves(source[0])) if len(source) else 0
    together = max(1, min(_TOGETHER, _BYTES_TOGETHER // max(1, size)))
    numbers = range(len(source))

    def group(first: int) -> list[Any]:
        return place([source[i] for i in numbers[first : first + together]])

    read = grain.MapDataset.range(0, len(source), together).map(group)
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    with contextlib.closing(iter(read.to_iter_dataset(options))) as elements:
        for placed in elements:
            yield from placed


def eval_batches(source: Any, *, batch_size: int, padded_size: int, rows: slice) -> Iterator[Batch]:
    """This process's rows of the evaluation batches: every example once, then padding."""
    gather, sizes = make_gather(source), {"batch_size": batch_size, "padded_size": padded_size}
    for number in range(-(-len(source) // batch_size)):
        indices, mask = eval_rows(number, **sizes, examples=len(source), rows=rows)
        image, label = gather(np.zeros_like(indices), indices)
        yield Batch(image=image, label=label, mask=mask)


def placed_ahead(batches: Iterator[Batch], place: Callable[[Batch], Any]) -> Generator[Any]:
    """Batches on their devices, the next one under way while one is in use."""
    for batch, _ in pairwise(chain(map(place, batches), [None])):
        yield batch
