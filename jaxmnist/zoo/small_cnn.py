"""A small convolutional network for digits, made to learn in the least time on a CPU."""

import importlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmnist.models import CONVOLUTIONS, normalize
from jaxmnist.models.cnn import ConvParameters

# No side of the image is cut below this.
_SMALLEST_SIDE = 4


class SmallCNN(nn.Module):
    """Cut the margin, twice [conv 3×3, relu, avg-pool 2], Dense, relu, Dense.

    The default network with half of its channels and half of its pixels: the digits of MNIST are
    scaled into 20×20 of the 28×28 pixels, and most of what lies around them is blank. With 28×28
    images of one channel it has 108,618 parameters.

    Attributes:
      classes: number of logits.
      channels: of the two convolutions.
      hidden: width of the dense layer between.
      margin: pixels cut from each edge of the image, fewer where less than 4 would be left.
      conv: "xla" for XLA's convolution, "winograd" for the same mathematics made for CPUs
        (`jaxmnist.zoo.winograd`). The parameters are the same.
      dtype: dtype of the computation; parameters and logits are float32.
    """

    classes: int = 10
    channels: tuple[int, int] = (16, 32)
    hidden: int = 128
    margin: int = 4
    conv: str = "xla"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images [b, h, w, c], uint8 or float in [0, 1], to logits float32 [b, classes].

        h and w are at least 4.
        """
        x = normalize(self._without_margin(images), self.dtype)
        first, second = self.channels
        layers = (
            ConvParameters(first, name="Conv_0")(x.shape[-1]),
            ConvParameters(second, name="Conv_1")(first),
        )
        if self.conv in CONVOLUTIONS:
            x = importlib.import_module(CONVOLUTIONS[self.conv]).conv_relu_pool_chain(x, layers)
        else:
            for kernel, bias in layers:
                x = _conv_relu_pool(x, kernel.astype(self.dtype), bias.astype(self.dtype))
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(self.hidden, dtype=self.dtype)(x))
        return nn.Dense(self.classes, dtype=self.dtype)(x).astype(jnp.float32)

    def _without_margin(self, images: jax.Array) -> jax.Array:
        h, w = images.shape[1:3]
        top, left = (max(0, min(self.margin, (side - _SMALLEST_SIDE) // 2)) for side in (h, w))
        return images[:, top : h - top, left : w - left]


def _conv_relu_pool(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    layout = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
    pooled: jax.Array = nn.avg_pool(nn.relu(x + bias), (2, 2), strides=(2, 2))
    return pooled
