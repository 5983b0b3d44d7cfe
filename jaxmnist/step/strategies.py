"""Three ways to run one body on many devices: shard_map, pmap and jit."""

from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxmnist.mesh import DATA_AXIS, as_global, replicated
from jaxmnist.names import resolve
from jaxmnist.step.body import Indexed, Part, Several, Step, Task, local_eval_step, local_train_step

# Another step than those here, found by name: it is made of several programs.
DETERMINISTIC = "jaxmnist.zoo.deterministic:make_train_step"


def make_train_step(
    task: Task,
    mesh: Mesh,
    *,
    strategy: str = "shard_map",
    deterministic_bits: bool = False,
    steps_per_call: int = 1,
    resident: bool = False,
) -> Step:
    """The step `(state, batch) -> (state, sums)`; the state is donated.

    Args:
      task: what is trained.
      mesh: one axis, "data".
      strategy: "shard_map", "pmap" or "jit".
      deterministic_bits: whether results are bit-equal on every number of devices that divides 8,
        by way of virtual shards (shard_map only, one step a call, not resident).
      steps_per_call: most steps of one call; above 1 the step takes `Several` batches.
      resident: whether batches are `Indexed` rows of a data set on the devices.
    """
    if deterministic_bits:
        return resolve(DETERMINISTIC, key="parallel.deterministic")(task, mesh)

    def body(state: Any, batch: Any) -> Any:
        part = Part()  # of jit, which sees all rows at once; XLA shares them out
        if strategy != "jit":
            part = Part(index=jax.lax.axis_index(DATA_AXIS), count=mesh.size, axis=DATA_AXIS)
        return local_train_step(task, state, batch, part)

    spec: Any = P(DATA_AXIS) if steps_per_call == 1 else P(None, DATA_AXIS)
    spec = Indexed(index=spec, mask=spec, table=(P(), P())) if resident else spec
    spec = spec if steps_per_call == 1 else Several(batches=spec, count=P())
    return _on_devices(body, mesh, strategy=strategy, in_specs=(P(), spec), donate=(0,))


def make_eval_step(task: Task, mesh: Mesh, *, strategy: str = "shard_map") -> Step:
    """The step `(params, batch_stats, batch) -> sums` over the whole batch; nothing is donated."""
    axis = None if strategy == "jit" else DATA_AXIS
    body = partial(local_eval_step, task, axis=axis)
    specs = (P(), P(), P(DATA_AXIS))
    return _on_devices(body, mesh, strategy=strategy, in_specs=specs, donate=())


def _on_devices(
    body: Any, mesh: Mesh, *, strategy: str, in_specs: tuple[Any, ...], donate: tuple[int, ...]
) -> Step:
    """A function of what one device holds, run on all devices; its results are replicated."""
    if strategy == "jit":
        shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), in_specs)
        out = replicated(mesh)
        function = jax.jit(body, in_shardings=shardings, out_shardings=out, donate_argnums=donate)
    elif strategy == "shard_map":
        mapped = jax.shard_map(body, mesh=mesh, in_specs=in_specs, out_specs=P())
        function = jax.jit(mapped, donate_argnums=donate)
    else:
        # Without a stacked state: replicated arrays in, replicated arrays out.
        axes = jax.tree.map(lambda spec: len(spec) - 1 if spec else None, in_specs)
        options: Any = {"axis_name": DATA_AXIS, "devices": list(mesh.devices.flat)}
        function = jax.pmap(body, in_axes=axes, out_axes=None, donate_argnums=donate, **options)
    call: Any = function
    if strategy == "pmap" and jax.process_count() > 1:

        def call(*args: Any) -> Any:  # what pmap gives covers the local devices only
            return as_global(function(*args), mesh)

    return Step(call=call, lower=lambda *args: (function.lower(*args),))


def place_batch(batch: Any, mesh: Mesh, *, strategy: str = "shard_map", axis: int = 0) -> Any:
    """This process's rows of a batch, laid on its devices.

    Args:
      batch: a tree of host arrays, this process's contiguous rows along `axis`.
      mesh: where to.
      strategy: pmap splits that axis in two, [..., devices, rows a device, ...].
      axis: 1 for the batches of several steps, else 0.
    """
    sharding = NamedSharding(mesh, P(*[None] * axis, DATA_AXIS))
    shape = (len(mesh.local_devices), -1)

    def shaped(x: Any) -> Any:
        x = np.asarray(x)
        return x.reshape(*x.shape[:axis], *shape, *x.shape[axis + 1 :]) if strategy == "pmap" else x

    batch = jax.tree.map(shaped, batch)
    if jax.process_count() == 1:
        put = resolve("jaxmnist.zoo.loops:put") if axis else jax.device_put
        return put(batch, sharding)  # all at once takes a third of the time
    return jax.tree.map(partial(jax.make_array_from_process_local_data, sharding), batch)
