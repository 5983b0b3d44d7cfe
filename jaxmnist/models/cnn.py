"""The convolutional network of the Flax examples and of many blog posts: 824,458 parameters."""

import importlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmnist.models.layers import Dropout

# Modules with `features`, which computes the trunk, and `obstacle`, which says why it cannot.
CONVOLUTIONS = {"winograd": "jaxmnist.zoo.winograd"}


def normalize(images: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
    """Brings images [b, h, w, c] to [0, 1]: uint8 is divided by 255, floats stay as they are."""
    if jnp.issubdtype(images.dtype, jnp.integer):
        return images.astype(dtype) / jnp.asarray(255, dtype)
    return images.astype(dtype)


class ConvParameters(nn.Module):
    """Kernel [3, 3, c_in, features] and bias [features], named and initialised as in `nn.Conv`."""

    features: int

    @nn.compact
    def __call__(self, channels: int) -> tuple[jax.Array, jax.Array]:
        """Returns the two parameters for an input of that many channels."""
        shape = (3, 3, channels, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)


class CNN(nn.Module):
    """Conv 32 3×3, relu, avg-pool 2, Conv 64 3×3, relu, avg-pool 2, Dense 256, relu, Dense.

    Attributes:
      classes: number of logits.
      dropout: rate before the last layer.
      conv: "xla" for XLA's convolution, "winograd" for the same mathematics made for CPUs
        (`jaxmnist.zoo.winograd`). The parameters are the same.
      dtype: dtype of the computation; parameters and logits are float32.
    """

    classes: int = 10
    dropout: float = 0.0
    conv: str = "xla"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps images [b, h, w, c], uint8 or float in [0, 1], to logits float32 [b, classes]."""
        x = normalize(images, self.dtype)
        first = ConvParameters(32, name="Conv_0")(x.shape[-1])
        second = ConvParameters(64, name="Conv_1")(32)
        if self.conv in CONVOLUTIONS:
            x = importlib.import_module(CONVOLUTIONS[self.conv]).features(x, *first, *second)
        else:
            for kernel, bias in (first, second):
                layout = ("NHWC", "HWIO", "NHWC")
                kernel = kernel.astype(self.dtype)
                x = jax.lax.conv_general_dilated(
                    x, kernel, (1, 1), "SAME", dimension_numbers=layout
                )
                x = nn.relu(x + bias.astype(self.dtype))
                x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(256, dtype=self.dtype)(x))
        x = Dropout(self.dropout)(x, deterministic=not train)
        return nn.Dense(self.classes, dtype=self.dtype)(x).astype(jnp.float32)
