"""The mathematics of a step: local sums of loss and gradient, one reduction, one update.

Let a global batch have n rows with losses l₁ … lₙ. The gradient wanted is that of their mean,
(1/n) Σ ∇lᵢ. A device holds some of the rows and computes the *sum* of their gradients; one
all-reduce adds up these sums, the losses and the number of rows; then everything is divided by n,
once. A mean of means would be wrong wherever devices hold unequal numbers of rows.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxmnist.augment import Augment
from jaxmnist.metrics import StepSums, confusion_sums, step_sums
from jaxmnist.models.rows import Rows, fold_rows
from jaxmnist.state import TrainState

# The streams of random numbers under a seed; a draw is keyed by (seed, stream, step, ..., row).
INIT_STREAM, MODEL_STREAM, AUGMENT_STREAM = 0, 1, 2

_SMALL = 2**16  # numbers in an array

Apply = Callable[..., tuple[jax.Array, Any]]
Loss = Callable[[jax.Array, jax.Array], jax.Array]


class Batch(NamedTuple):
    """A batch, or a device's share of it.

    Attributes:
      image: [b, h, w, c], uint8 or float.
      label: int32 [b].
      mask: bool [b], False for a padded row, which may hold anything.
    """

    image: Any
    label: Any
    mask: Any


@dataclass(frozen=True)
class Task:
    """What is trained and how; plain values and functions.

    Attributes:
      apply: `apply(params, batch_stats, images, rows)` gives logits float32 [b, k] and the reports
        of batch norm; `rows` is None in evaluation.
      loss: `loss(logits, labels)` gives the loss of each row, [b].
      tx: the optimizer.
      schedule: learning rate by finished steps, for the log.
      seed: of all random draws.
      augment: applied to the images in training only.
      accumulate: number of microbatches a step.
      unroll: whether microbatches are laid out one after the other rather than looped over.
      ema_decay: of the parameters' moving average; None for none.
      matmul_precision: as in `jax.default_matmul_precision`.
    """

    apply: Apply
    loss: Loss
    tx: optax.GradientTransformation
    schedule: Callable[[Any], Any]
    seed: int
    augment: Augment | None = None
    accumulate: int = 1
    unroll: bool = False
    ema_decay: float | None = None
    matmul_precision: str = "highest"


class Indexed(NamedTuple):
    """A batch as row numbers of a data set that lies whole on every device.

    Attributes:
      index: int32 [b].
      mask: bool [b], False for a padded row.
      table: the data set, images [n, h, w, c] and labels int32 [n].
    """

    index: Any
    mask: Any
    table: Any


class Several(NamedTuple):
    """The batches of several steps that one call makes, one after the other.

    Attributes:
      batches: a `Batch` or an `Indexed` whose rows have a leading axis of K steps.
      count: int32, how many of the K steps to make.
    """

    batches: Any
    count: Any


@dataclass(frozen=True)
class Step:
    """A step over a mesh, ready to be called.

    Attributes:
      call: takes placed arrays, gives placed arrays; a train step consumes (donates) its state.
      lower: lowers the functions that one call runs, from arrays or their shapes; a function that
        runs several times is there as often.
    """

    call: Callable[..., Any]
    lower: Callable[..., tuple[jax.stages.Lowered, ...]]

    def __call__(self, *args: Any) -> Any:
        """Dispatches the step; returns before it is done."""
        return self.call(*args)

    def compile(self, *args: Any) -> tuple[jax.stages.Compiled, ...]:
        """Compiles for these arguments, so that the first call runs at once."""
        return tuple(lowered.compile() for lowered in self.lower(*args))


class GradientSums(flax.struct.PyTreeNode):
    """What a step reduces over the devices, all of it sums over rows and all float32."""

    gradient: Any
    batch_sums: Any
    metrics: StepSums


@dataclass(frozen=True)
class Part:
    """Which part of the global batch a call of the step sees.

    Attributes:
      index: number of the part, a traced int32 or 0.
      count: number of equal parts.
      axis: mesh axis over which parts lie, None where XLA alone knows about devices.
      communicate: whether a layer may communicate over the axis.
    """

    index: Any = 0
    count: int = 1
    axis: str | None = None
    communicate: bool = True


def stream_key(seed: int, stream: int, step: Any) -> jax.Array:
    """The key of all draws of one kind in one step."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), step)


def local_sums(task: Task, state: TrainState, batch: Batch, part: Part) -> GradientSums:
    """Sums of loss and gradient over the rows of one part; communicates nothing.

    Microbatch a of A holds the rows r ≡ a (mod A), which is the same set of rows on any number of
    devices.
    """
    b = batch.label.shape[0]
    index = part.index * b + jnp.arange(b, dtype=jnp.int32)
    # Under shard_map with check_vma the gradient with respect to a replicated value comes back
    # summed over all devices already; made "varying", it stays local and is reduced just once.
    params, batch_stats = varying((state.params, state.batch_stats), part.axis)

    def sums_of(micro: tuple[Batch, jax.Array]) -> GradientSums:
        rows_batch, rows = micro
        mask = rows_batch.mask
        keys = Rows(
            index=rows,
            mask=mask,
            key=stream_key(task.seed, MODEL_STREAM, state.step),
            parts=part.count,
            axis=part.axis,
            communicate=part.communicate,
        )
        images = _masked(rows_batch.image, mask)
        if task.augment is not None:
            key = stream_key(task.seed, AUGMENT_STREAM, state.step)
            images = task.augment(images, fold_rows(key, rows))

        def loss_sum(params: Any) -> tuple[jax.Array, Any]:
            logits, batch_sums = task.apply(params, batch_stats, images, keys)
            losses = task.loss(logits, rows_batch.label)
            metrics = step_sums(losses, logits, rows_batch.label, mask)
            return metrics.loss, (batch_sums, metrics)

        gradient, (batch_sums, metrics) = jax.grad(loss_sum, has_aux=True)(params)
        return GradientSums(gradient=gradient, batch_sums=batch_sums, metrics=metrics)

    with jax.default_matmul_precision(task.matmul_precision):
        if task.accumulate == 1:
            return sums_of((batch, index))
        return _accumulated(sums_of, (batch, index), task, part.axis)


def _accumulated(sums_of: Callable[[Any], Any], rows: Any, task: Task, axis: str | None) -> Any:
    """Sum of `sums_of` over microbatches, a loop over them unless it is unrolled."""
    a = task.accumulate
    stacked = jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(x.shape[0] // a, a, *x.shape[1:]), 1, 0), rows
    )
    if task.unroll:
        # Not scan(unroll=a): the slices must be static for XLA to keep every row on its device.
        parts = (sums_of(jax.tree.map(lambda x, i=i: x[i], stacked)) for i in range(a))
        return functools.reduce(lambda total, part: jax.tree.map(jnp.add, total, part), parts)
    shapes = jax.eval_shape(sums_of, jax.tree.map(lambda x: x[0], stacked))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def add(total: Any, micro: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, varying(sums_of(micro), axis)), None

    return jax.lax.scan(add, varying(zeros, axis), stacked)[0]


def varying(tree: Any, axis: str | None) -> Any:
    """The same values, marked as differing from device to device; no operation."""
    if axis is None:
        return tree

    def mark(x: jax.Array) -> jax.Array:
        if axis in jax.typeof(x).manual_axis_type.varying:
            return x
        return jax.lax.pcast(x, axis, to="varying")

    return jax.tree.map(mark, tree)


def _sum_over_devices(sums: GradientSums, axis: str) -> GradientSums:
    """The one all-reduce: small arrays go as one vector, large ones as they are.

    CPU devices meet once for each array of an all-reduce, and a meeting takes as long as a copy of
    some 2**16 numbers, about 60 us.
    """
    leaves, treedef = jax.tree.flatten(sums)
    large = [x if x.size > _SMALL else None for x in leaves]
    vector, unravel = ravel_pytree([None if x.size > _SMALL else x for x in leaves])
    vector, large = jax.lax.psum((vector, large), axis)
    pairs = zip(unravel(vector), large, strict=True)
    return jax.tree.unflatten(treedef, [a if b is None else b for a, b in pairs])


def apply_update(task: Task, state: TrainState, sums: GradientSums) -> tuple[TrainState, StepSums]:
    """The state after the step, from sums over the whole global batch."""
    metrics = sums.metrics
    # One division and then products: XLA may turn divisions by one number into products where it
    # likes, and the bits must not depend on that.
    share = 1.0 / metrics.count
    gradient = jax.tree.map(lambda g: g * share, sums.gradient)
    updates, opt_state = task.tx.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if task.ema_decay is not None:
        d = task.ema_decay
        ema = jax.tree.map(lambda old, new: d * old + (1.0 - d) * new, ema, params)
    finite = jnp.isfinite(metrics.loss) & jnp.isfinite(optax.tree.norm(params))
    bad = jnp.where((state.first_bad_step < 0) & ~finite, state.step + 1, state.first_bad_step)
    new_state = TrainState(
        step=state.step + 1,
        params=params,
        batch_stats=_moved(state.batch_stats, sums.batch_sums),
        opt_state=opt_state,
        ema=ema,
        window=state.window.add(metrics, task.schedule(state.step)),
        first_bad_step=bad,
    )
    return new_state, metrics


def _moved(batch_stats: Any, batch_sums: Any) -> Any:
    """Running statistics moved by the mean report of all groups; as they were without a report."""

    def leaf(old: jax.Array, report: Any) -> jax.Array:
        weight = report["weight"]
        return jnp.where(weight > 0, old + report["move"] / jnp.maximum(weight, 1.0), old)

    return jax.tree.map(leaf, batch_stats, batch_sums) if batch_sums else batch_stats


def local_train_step(
    task: Task, state: TrainState, batch: Any, part: Part
) -> tuple[TrainState, StepSums]:
    """The whole step, or `Several`, as one device sees it, with one all-reduce a step."""
    if isinstance(batch, Several):
        return _local_train_steps(task, state, batch, part)
    if isinstance(batch, Indexed):
        image, label = (jnp.take(x, batch.index, axis=0, mode="clip") for x in batch.table)
        batch = Batch(image=image, label=label, mask=batch.mask)
    sums = local_sums(task, state, batch, part)
    if part.axis is not None:
        sums = _sum_over_devices(sums, part.axis)
    return apply_update(task, state, sums)


def _local_train_steps(
    task: Task, state: TrainState, several: Several, part: Part
) -> tuple[TrainState, StepSums]:
    """The number of steps is traced: one program, and the same bits, wherever a call is cut."""

    def one(i: jax.Array, carry: Any) -> Any:
        rows = several.batches
        if isinstance(rows, Indexed):
            batch = rows._replace(index=rows.index[i], mask=rows.mask[i])
        else:
            batch = jax.tree.map(lambda x: x[i], rows)
        return local_train_step(task, carry[0], batch, part)

    zero = jnp.zeros((), jnp.float32)
    nothing = StepSums(loss=zero, correct=zero, count=zero)
    return jax.lax.fori_loop(0, several.count, one, (state, nothing))


class EvalSums(NamedTuple):
    """Sums over the rows of one evaluation batch: loss float32, confusion float32 [k, k]."""

    loss: jax.Array
    confusion: jax.Array


def local_eval_step(
    task: Task, params: Any, batch_stats: Any, batch: Batch, axis: str | None
) -> EvalSums:
    """Loss and confusion counts of the rows that are not padding, over all devices."""
    with jax.default_matmul_precision(task.matmul_precision):
        logits, _ = task.apply(params, batch_stats, _masked(batch.image, batch.mask), None)
        losses = task.loss(logits, batch.label)
    sums = EvalSums(
        loss=jnp.where(batch.mask, losses, 0.0).sum(),
        confusion=confusion_sums(logits, batch.label, batch.mask),
    )
    return sums if axis is None else jax.lax.psum(sums, axis)


def _masked(images: jax.Array, mask: jax.Array) -> jax.Array:
    # where, not a product: NaN × 0 is NaN.
    return jnp.where(mask[:, None, None, None], images, jnp.zeros_like(images))
