"""Calls of several steps: how many, where they begin and end, how their batches get there."""

from collections.abc import Callable, Collection
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from jaxmnist.errors import ConfigError
from jaxmnist.models import ModelFunctions

# Where the number is chosen here: about half a second on two cores, so that a signal is seen soon,
# and not beyond the next line of the default log.
_EXAMPLES, _STEPS = 5120, 20
# A longer training makes one step a call: to list its calls would take seconds.
_LONGEST = 200_000
# Of arrays that XLA uses in place on CPUs, in bytes.
_ALIGNMENT = 64


def steps_per_call(
    config: ConfigDict,
    functions: ModelFunctions,
    image_shape: tuple[int, ...],
    *,
    conv: str,
    steps: int,
    on_cpu: bool,
    callbacks: bool,
) -> int:
    """The most steps of a call, as configured, or chosen where that is None.

    More than one are chosen for Winograd's convolution on CPUs: such steps are short, and devices
    that share cores lose time between two calls.

    Args:
      config: the whole configuration.
      functions: of the model; nothing of it is compiled.
      image_shape: height, width and channels.
      conv: the model's choice of convolution; empty for a model that has none.
      steps: length of the training.
      on_cpu: whether the devices are CPUs.
      callbacks: whether something expects to be called after every step.

    Raises:
      ConfigError: several steps are configured where the model uses XLA's convolution on CPUs.
    """
    several = config.train.steps_per_call
    if several is None:
        if not on_cpu or conv != "winograd" or _convolves(functions, image_shape):
            return 1
        one = config.parallel.deterministic or callbacks or steps > _LONGEST
        return 1 if one else min(_STEPS, max(1, _EXAMPLES // config.batch_size))
    if several > 1 and on_cpu and _convolves(functions, image_shape):
        rule = "makes XLA's convolution ten times slower on a CPU, where it runs in a loop"
        repair = "set it to 1, or choose a model without it (cnn has model.conv='winograd')"
        raise ConfigError([f"train.steps_per_call={several} {rule}: {repair}"])
    return int(several)


def call_bounds(
    start: int,
    steps: int,
    several: int,
    every: Collection[int | str],
    next_due: Callable[[int, int | str], int],
) -> list[int]:
    """Where calls of several steps begin and end.

    Args:
      start: finished steps before the first call.
      steps: length of the training.
      several: the most steps of a call.
      every: a call ends where one of these durations does, and after the first step.
      next_due: the first step after a step at whose end a duration does.
    """
    bounds, dues = [start], dict.fromkeys(every, start)
    while start < steps:
        dues = {d: at if at > start else next_due(start, d) for d, at in dues.items()}
        first = 1 if start == 0 else steps
        start = min(start + several, steps, first, *dues.values())
        bounds.append(start)
    return bounds


def put(batch: Any, sharding: NamedSharding) -> Any:
    """Lays the batches of several steps on the devices of this process, while a call runs there.

    On CPUs a copy of rows that do not lie together waits for a thread of XLA's pool, all of which
    the call keeps until its end. Pieces that lie together at a multiple of 64 bytes are used where
    they are.

    Args:
      batch: a tree of host arrays.
      sharding: of all of them.
    """
    if sharding.mesh.devices.flat[0].platform != "cpu":
        return jax.device_put(batch, sharding)

    def lay(x: np.ndarray[Any, Any]) -> jax.Array:
        places = sharding.addressable_devices_indices_map(x.shape)
        pieces = jax.device_put([_aligned(x[i]) for i in places.values()], [*places])
        return jax.make_array_from_single_device_arrays(x.shape, sharding, pieces)

    return jax.tree.map(lay, batch)


def _aligned(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A copy in memory of its own."""
    memory = np.empty(x.nbytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    copy = memory[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


def _convolves(functions: ModelFunctions, image_shape: tuple[int, ...]) -> bool:
    """Whether a model uses XLA's convolution."""

    def run(variables: dict[str, object], images: jax.Array) -> jax.Array:
        stats = variables.get("batch_stats", {})
        return functions.apply(variables["params"], stats, images, None)[0]

    images = jax.ShapeDtypeStruct((1, *image_shape), np.uint8)
    return "conv_general_dilated" in str(jax.make_jaxpr(run)(functions.variables, images))
