"""A train step whose bits do not depend on the number of devices: a fixed number of virtual shards.

Floating-point addition is not associative, so an all-reduce over 2 devices and one over 8 round
differently, and XLA compiles a batch of 32 rows other than one of 256. Here a batch is always cut
into eight virtual shards. Three programs run one after the other:

1. `shard_gradients` computes the gradient sums of one virtual shard a device, without any
   communication and with the same shapes on every number of devices: 8 / devices calls.
2. `gather` brings the results to all devices: one all-gather of raw bits, no arithmetic.
3. `update` adds them in a fixed order and updates the state.

Kept apart, because within one program XLA may fuse across the borders and round anew.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxmnist.config import VIRTUAL_SHARDS
from jaxmnist.mesh import DATA_AXIS, replicate, replicated, row_sharded
from jaxmnist.metrics import StepSums
from jaxmnist.state import TrainState
from jaxmnist.step.body import Batch, GradientSums, Part, Step, Task, apply_update, local_sums


def make_train_step(task: Task, mesh: Mesh) -> Step:
    """The step `(state, batch) -> (state, sums)` over virtual shards; the state is donated."""
    calls = VIRTUAL_SHARDS // mesh.size
    over_devices = functools.partial(jax.shard_map, mesh=mesh)
    replicas = replicated(mesh)

    @jax.jit
    @functools.partial(over_devices, in_specs=(P(DATA_AXIS), P()), out_specs=P(DATA_AXIS))
    def pick(batch: Batch, call: jax.Array) -> Batch:
        b = batch.label.shape[0] // calls
        return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, call * b, b), batch)

    @jax.jit
    @functools.partial(over_devices, in_specs=(P(), P(DATA_AXIS), P()), out_specs=P(DATA_AXIS))
    def shard_gradients(state: TrainState, shard: Batch, call: jax.Array) -> GradientSums:
        index = jax.lax.axis_index(DATA_AXIS) * calls + call
        part = Part(index=index, count=VIRTUAL_SHARDS, axis=DATA_AXIS, communicate=False)
        return jax.tree.map(lambda x: x[None], local_sums(task, state, shard, part))

    @functools.partial(jax.jit, out_shardings=replicas)
    # Nothing here is differentiated, and all_gather gives every device the same: unchecked.
    @functools.partial(over_devices, in_specs=P(DATA_AXIS), out_specs=P(), check_vma=False)
    def gather(shards: tuple[GradientSums, ...]) -> GradientSums:
        flat, unravel = zip(*(ravel_pytree(shard) for shard in shards), strict=True)
        rows = jax.lax.all_gather(jnp.stack(flat), DATA_AXIS, tiled=True)
        one = jax.vmap(unravel[0])(rows)
        return jax.tree.map(lambda x: x[:, 0], one)

    @functools.partial(jax.jit, in_shardings=replicas, out_shardings=replicas, donate_argnums=0)
    def update(state: TrainState, shards: GradientSums) -> tuple[TrainState, StepSums]:
        def ordered_sum(x: jax.Array) -> jax.Array:
            return functools.reduce(jnp.add, [x[i] for i in range(VIRTUAL_SHARDS)])

        return apply_update(task, state, jax.tree.map(ordered_sum, shards))

    @functools.cache
    def numbers() -> list[jax.Array]:
        return [replicate(np.int32(i), mesh) for i in range(calls)]

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, StepSums]:
        shards = tuple(
            shard_gradients(state, batch if calls == 1 else pick(batch, i), i) for i in numbers()
        )
        return update(state, gather(shards))

    def lower(state: TrainState, batch: Batch) -> tuple[jax.stages.Lowered, ...]:
        def placed(shapes: Any, sharding: Any) -> Any:
            return jax.tree.map(
                lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding), shapes
            )

        number = placed(jax.ShapeDtypeStruct((), jnp.int32), replicas)
        picked = batch
        programs = []
        if calls > 1:
            programs += [pick.lower(batch, number)] * calls
            picked = placed(jax.eval_shape(pick, batch, number), row_sharded(mesh))
        programs += [shard_gradients.lower(state, picked, number)] * calls
        shard = placed(jax.eval_shape(shard_gradients, state, picked, number), row_sharded(mesh))
        programs.append(gather.lower((shard,) * calls))
        gathered = placed(jax.eval_shape(gather, (shard,) * calls), replicas)
        return (*programs, update.lower(state, gathered))

    return Step(call=step, lower=lower)
