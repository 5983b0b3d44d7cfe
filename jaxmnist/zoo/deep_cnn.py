"""A deeper convolutional network with batch norm, made to generalise best on a CPU's time."""

import importlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmnist.models import CONVOLUTIONS, BatchNorm, normalize
from jaxmnist.models.cnn import ConvParameters


class DeepCNN(nn.Module):
    """Blocks of [conv 3×3, relu, avg-pool 2, batch norm], then Dense, relu, Dense.

    Batch norm stands behind the pooling, where there is a quarter of the pixels. With 28×28 images
    of one channel it has 390,858 parameters.

    Attributes:
      classes: number of logits.
      channels: of the convolutions, one a block; images have at least 2**blocks pixels a side.
      hidden: width of the dense layer between.
      conv: "xla" for XLA's convolution, "winograd" for the same mathematics made for CPUs
        (`jaxmnist.zoo.winograd`). The parameters are the same.
      dtype: dtype of the computation; parameters and logits are float32.
    """

    classes: int = 10
    channels: tuple[int, ...] = (32, 64, 128)
    hidden: int = 256
    conv: str = "xla"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps images [b, h, w, c], uint8 or float in [0, 1], to logits float32 [b, classes]."""
        x = normalize(images, self.dtype)
        for index, features in enumerate(self.channels):
            kernel, bias = ConvParameters(features, name=f"Conv_{index}")(x.shape[-1])
            x = self._block(x, kernel.astype(self.dtype), bias.astype(self.dtype))
            # A short memory, so that the statistics are those of the last parameters.
            x = BatchNorm(momentum=0.98)(x, use_running_average=not train)
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(self.hidden, dtype=self.dtype)(x))
        return nn.Dense(self.classes, dtype=self.dtype)(x).astype(jnp.float32)

    def _block(self, x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        if self.conv in CONVOLUTIONS:
            module = importlib.import_module(CONVOLUTIONS[self.conv])
            fast: jax.Array = module.conv_relu_pool(x, kernel, bias)
            return fast
        layout = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
        pooled: jax.Array = nn.avg_pool(nn.relu(x + bias), (2, 2), strides=(2, 2))
        return pooled
