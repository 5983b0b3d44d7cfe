"""Refuses several steps in one call where the loop that they make is slow."""

import jax
import numpy as np

from jaxmnist.errors import ConfigError
from jaxmnist.models import ModelFunctions


def check_loop(
    functions: ModelFunctions, image_shape: tuple[int, ...], steps_per_call: int
) -> None:
    """Looks at what a model is made of; nothing is compiled.

    Args:
      functions: of the model, which is to run on CPUs.
      image_shape: height, width and channels.
      steps_per_call: more than 1.

    Raises:
      ConfigError: the model uses XLA's convolution.
    """

    def run(variables: dict[str, object], images: jax.Array) -> jax.Array:
        stats = variables.get("batch_stats", {})
        return functions.apply(variables["params"], stats, images, None)[0]

    images = jax.ShapeDtypeStruct((1, *image_shape), np.uint8)
    if "conv_general_dilated" in str(jax.make_jaxpr(run)(functions.variables, images)):
        rule = "makes XLA's convolution ten times slower on a CPU, where it runs in a loop"
        repair = "set it to 1, or choose a model without it (cnn has model.conv='winograd')"
        raise ConfigError([f"train.steps_per_call={steps_per_call} {rule}: {repair}"])
