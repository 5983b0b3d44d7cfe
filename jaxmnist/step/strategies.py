"""Three ways to run one body on many devices: shard_map, pmap and jit."""

import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxmnist.mesh import DATA_AXIS, as_global, replicated, row_sharded
from jaxmnist.step import deterministic
from jaxmnist.step.body import Batch, Part, Task, local_eval_step, local_train_step
from jaxmnist.step.call import Step, single


def make_train_step(
    task: Task, mesh: Mesh, *, strategy: str = "shard_map", deterministic_bits: bool = False
) -> Step:
    """The step `(state, batch) -> (state, sums)`; the state is donated.

    Args:
      task: what is trained.
      mesh: one axis, "data".
      strategy: "shard_map", "pmap" or "jit".
      deterministic_bits: whether results are bit-equal on every number of devices that divides 8,
        by way of virtual shards (shard_map only).
    """
    if deterministic_bits:
        return deterministic.make_train_step(task, mesh)
    if strategy == "jit":
        body = functools.partial(_whole, task)
        rep, rows = replicated(mesh), row_sharded(mesh)
        return single(
            jax.jit(
                body,
                in_shardings=(rep, rows),
                out_shardings=(rep, rep),
                donate_argnums=0,
            )
        )
    body = functools.partial(_part, task, mesh.size)
    if strategy == "pmap":
        return _pmapped(body, mesh, state_arguments=1, donate=(0,))
    mapped = jax.shard_map(body, mesh=mesh, in_specs=(P(), P(DATA_AXIS)), out_specs=(P(), P()))
    return single(jax.jit(mapped, donate_argnums=0))


def make_eval_step(task: Task, mesh: Mesh, *, strategy: str = "shard_map") -> Step:
    """The step `(params, batch_stats, batch) -> sums` over the whole batch; nothing is donated."""
    if strategy == "jit":
        rep = replicated(mesh)
        body = functools.partial(local_eval_step, task, axis=None)
        return single(
            jax.jit(
                lambda params, stats, batch: body(params, stats, batch),
                in_shardings=(rep, rep, row_sharded(mesh)),
                out_shardings=rep,
            )
        )

    def part(params: Any, stats: Any, batch: Batch) -> Any:
        return local_eval_step(task, params, stats, batch, DATA_AXIS)

    if strategy == "pmap":
        return _pmapped(part, mesh, state_arguments=2, donate=())
    mapped = jax.shard_map(part, mesh=mesh, in_specs=(P(), P(), P(DATA_AXIS)), out_specs=P())
    return single(jax.jit(mapped))


def _whole(task: Task, state: Any, batch: Batch) -> Any:
    """The step over all rows at once; XLA shares it out and adds the all-reduce."""
    return local_train_step(task, state, batch, Part())


def _part(task: Task, parts: int, state: Any, batch: Batch) -> Any:
    """The step of one device."""
    index = jax.lax.axis_index(DATA_AXIS)
    return local_train_step(task, state, batch, Part(index=index, count=parts, axis=DATA_AXIS))


def _pmapped(body: Any, mesh: Mesh, *, state_arguments: int, donate: tuple[int, ...]) -> Step:
    """`jax.pmap` without a stacked state: replicated arrays in, replicated arrays out."""
    function = jax.pmap(
        body,
        axis_name=DATA_AXIS,
        in_axes=(None,) * state_arguments + (0,),
        out_axes=None,
        devices=list(mesh.devices.flat),
        donate_argnums=donate,
    )
    call = function
    if jax.process_count() > 1:

        def call(*args: Any) -> Any:
            return as_global(function(*args), mesh)

    return Step(call=call, lower=lambda *args: (function.lower(*args),))


def place_batch(batch: Batch, mesh: Mesh, *, strategy: str = "shard_map") -> Batch:
    """This process's rows of a batch, laid on its devices.

    Args:
      batch: host arrays [b / processes, ...], this process's contiguous rows.
      mesh: where to.
      strategy: pmap wants a leading axis of devices, [devices, b / devices, ...].
    """
    sharding = row_sharded(mesh)
    local = mesh.local_devices

    def place(x: Any) -> jax.Array:
        x = np.asarray(x)
        if strategy == "pmap":
            x = x.reshape(len(local), x.shape[0] // len(local), *x.shape[1:])
        return jax.make_array_from_process_local_data(sharding, x)

    return Batch(*(place(x) for x in batch))
