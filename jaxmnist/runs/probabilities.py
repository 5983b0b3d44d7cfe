"""What a loaded run says of images that are given as arrays: log-probabilities, on one device."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmnist.runs.setup import Setup
from jaxmnist.state import TrainState

Array = np.ndarray[Any, Any]
# Images in one call of the model.
_BATCH_SIZE = 500


def log_probabilities(setup: Setup, state: TrainState) -> Callable[[Array], Array]:
    """The model of a run as a function of images, compiled when it is first called.

    One device is enough, and every process of several may use it by itself.

    Args:
      setup: of the run.
      state: of the run; the moving average of the parameters is used where there is one.

    Returns:
      A function from images [n, h, w, c], n > 0, to logarithms of probabilities, float32 [n, k].
    """

    @jax.jit
    def run(variables: Any, images: jax.Array) -> jax.Array:
        with jax.default_matmul_precision(setup.task.matmul_precision):
            logits, _ = setup.task.apply(*variables, images, None)
        return jax.nn.log_softmax(logits.astype(jnp.float32))

    variables = jax.device_put(jax.device_get((state.inference_params, state.batch_stats)))

    def batched(images: Array) -> Array:
        n, size = len(images), min(len(images), _BATCH_SIZE)
        # A whole number of batches: some examples come once more, and are cut off.
        padded = np.resize(images, (-(-n // size) * size, *images.shape[1:]))
        starts = range(0, len(padded), size)
        return np.concatenate([run(variables, padded[i : i + size]) for i in starts])[:n]

    return batched
