"""The way of the data: a stream of global batches, this process's rows of them, the devices.

The training stream is the concatenation of one permutation of the data set after the other. Batch
i is stream[i·B : (i+1)·B]: always full, the last batch of an epoch is filled from the next one, and
every example comes once in an epoch. A batch is a pure function of (seed, i, B); how many devices
or processes there are decides only who reads which of its rows, and going on after step i means
starting at batch i.
"""

import functools
from collections.abc import Callable, Generator, Iterator
from typing import Any

import grain
import numpy as np

from jaxmnist.datasets import Split
from jaxmnist.datasets.dataset import epoch_permutation
from jaxmnist.errors import DataError
from jaxmnist.step import Batch

# Batches that a thread prepares ahead of the one in use.
_AHEAD = 2


# At a place in the stream, an epoch and an index: images [b, h, w, c] and labels int32 [b].
Gather = Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any]], tuple[Any, Any]]


def stream_rows(
    seed: int, step: int, *, batch_size: int, examples: int, rows: slice = slice(None)
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
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
    number: int, *, batch_size: int, padded_size: int, examples: int, rows: slice = slice(None)
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
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


def example_count(source: Any) -> int:
    """Number of examples in a split or a Grain `MapDataset`."""
    return len(source)


def make_gather(source: Any) -> Gather:
    """How to read rows of a source: one vectorised gather from arrays, or a user's `MapDataset`.

    A `MapDataset` of `{"image": [h, w, c], "label": int}` is asked at place epoch · N + index of
    its repetition, so that its own random transformations differ from epoch to epoch; the
    shuffle is ours. N is the length it has; an infinite one is refused.

    Raises:
      DataError: neither of the two, or an element that is not such a dictionary.
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

    def gather(epochs: Any, indices: Any) -> tuple[Any, Any]:
        elements = [_example(repeated[int(i)]) for i in epochs * n + indices]
        images, labels = zip(*elements, strict=True)
        return np.stack(images), np.array(labels, np.int32)

    return gather


def _example(element: Any) -> tuple[np.ndarray[Any, Any], int]:
    """Image [h, w, c] and label of an element of a user's data set."""
    rule = "'image', uint8 or float32 of shape [h, w] or [h, w, c], and an integer 'label'"
    try:
        image, label = np.asarray(element["image"]), int(element["label"])
        if image.ndim not in (2, 3) or image.dtype not in (np.uint8, np.float32):
            raise TypeError(f"an 'image' that is {image.dtype} of shape {image.shape}")
    except (TypeError, KeyError, ValueError, IndexError) as error:
        fault = f"an element of the grain.MapDataset must be a dictionary with {rule}"
        raise DataError(f"{fault}, but this one gave {error!r}") from error
    return image if image.ndim == 3 else image[..., None], label


class BatchSource:
    """This process's rows of the training stream; a Grain source whose element is a whole batch.

    Per-record pipelines spend longer on 784-byte records than the model does.
    """

    def __init__(self, source: Any, *, seed: int, batch_size: int, steps: int, rows: slice):
        """Reads nothing yet; `rows` are those of the global batch that this process holds."""
        self._gather = make_gather(source)
        self._stream = functools.partial(
            stream_rows, seed, batch_size=batch_size, examples=example_count(source), rows=rows
        )
        self._steps = steps

    def __len__(self) -> int:
        """Number of batches."""
        return self._steps

    def __getitem__(self, step: Any) -> Batch:
        """The rows of batch `step`, all of them real examples."""
        image, label = self._gather(*self._stream(int(step)))
        return Batch(image=image, label=label, mask=np.ones(len(label), bool))


def train_batches(source: BatchSource, *, start: int = 0) -> Iterator[Batch]:
    """This process's rows of the batches from `start` on, read ahead by a thread."""
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_AHEAD)
    iterator = iter(grain.MapDataset.source(source).to_iter_dataset(options))
    iterator.set_state({"next_index": start})
    try:
        yield from iterator
    finally:
        iterator.close()


def eval_batches(source: Any, *, batch_size: int, padded_size: int, rows: slice) -> Iterator[Batch]:
    """This process's rows of the evaluation batches: every example once, then padding."""
    gather, examples = make_gather(source), example_count(source)
    for number in range(-(-examples // batch_size)):
        indices, mask = eval_rows(
            number, batch_size=batch_size, padded_size=padded_size, examples=examples, rows=rows
        )
        image, label = gather(np.zeros_like(indices), indices)
        yield Batch(image=image, label=label, mask=mask)


def placed_ahead(
    batches: Iterator[Batch], place: Callable[[Batch], Any], *, ahead: int = 1
) -> Generator[Any]:
    """Batches on their devices, `ahead` of them under way while one is in use."""
    waiting: list[Any] = []
    for batch in batches:
        waiting.append(place(batch))
        if len(waiting) > ahead:
            yield waiting.pop(0)
    yield from waiting
