"""What a layer may know of the rows it is fed, so that no device count changes its draws."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import flax.linen as nn
import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Rows:
    """The rows of a batch that one call of a model sees.

    Attributes:
      index: int32 [b], the rows' places in the global batch.
      mask: bool [b], False where a row is padding.
      key: key of (seed, stream, step), the same on all devices.
      parts: into how many equal runs of rows the global batch is split, one a call.
      axis: mesh axis over which the parts lie, or None where a layer sees all rows at once.
      communicate: whether a layer may communicate over the parts.
    """

    index: jax.Array
    mask: jax.Array
    key: jax.Array
    parts: int = 1
    axis: str | None = None
    communicate: bool = True
    calls: dict[tuple[str, ...], int] = field(default_factory=dict)


_current: ContextVar[Rows | None] = ContextVar("rows", default=None)


@contextmanager
def feeding(rows: Rows) -> Iterator[None]:
    """Makes `rows` known to the layers called in the block, while JAX traces them."""
    token = _current.set(rows)
    try:
        yield
    finally:
        _current.reset(token)


def current(batch: int) -> Rows:
    """The rows being fed; outside of a training step, rows 0 … batch - 1 with a fixed key."""
    rows = _current.get()
    if rows is not None:
        return rows
    index = jnp.arange(batch, dtype=jnp.int32)
    return Rows(index=index, mask=jnp.ones(batch, bool), key=jax.random.key(0))


def row_keys(module: nn.Module, batch: int) -> jax.Array:
    """One random key for each row, for a layer of one's own that draws at random.

    A draw is keyed by (seed, step, layer, call, row in the global batch), so it is the same on any
    number of devices, under accumulation and in every strategy.

    Args:
      module: the bound layer that draws; its path in the model is part of the key.
      batch: number of rows the layer sees.

    Returns:
      Keys [batch].
    """
    rows = current(batch)
    path = tuple(module.path)
    call = rows.calls[path] = rows.calls.get(path, -1) + 1
    # crc32 and not hash(): Python's differs from process to process.
    key = jax.random.fold_in(rows.key, zlib.crc32("/".join((*path, str(call))).encode()))
    return fold_rows(key, rows.index)


def fold_rows(key: jax.Array, index: jax.Array) -> jax.Array:
    """Keys [b] from one key and int32 row numbers [b]."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
