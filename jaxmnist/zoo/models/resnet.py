"""A small residual network (arXiv:1512.03385, section 4.2)."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmnist.models import BatchNorm, normalize


class ResNet(nn.Module):
    """A convolution, stages of residual blocks, mean over all pixels, Dense.

    A block is twice [conv 3×3, batch norm], added to its input before the last relu. The first
    block of each stage but the first halves the image, and where shapes differ its input goes
    through a convolution 1×1 with batch norm. With 28×28 images of one channel it has 77,754
    parameters; `blocks=3` makes it the paper's network of 20 layers.

    Attributes:
      classes: number of logits.
      channels: of each stage.
      blocks: in each stage.
      groups: of batch norm, see `jaxmnist.models.BatchNorm`.
      dtype: dtype of the computation; parameters and logits are float32.
    """

    classes: int = 10
    channels: Sequence[int] = (16, 32, 64)
    blocks: int = 1
    groups: int = 8
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps images [b, h, w, c], uint8 or float in [0, 1], to logits float32 [b, classes]."""
        conv = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = functools.partial(
            BatchNorm, use_running_average=not train, momentum=0.9, groups=self.groups
        )
        x = conv(self.channels[0], (3, 3))(normalize(images, self.dtype))
        x = nn.relu(norm()(x))
        for stage, channels in enumerate(self.channels):
            for block in range(self.blocks):
                strides = 2 if stage and not block else 1
                y = nn.relu(norm()(conv(channels, (3, 3), strides=strides)(x)))
                y = norm()(conv(channels, (3, 3))(y))
                if x.shape != y.shape:
                    x = norm()(conv(channels, (1, 1), strides=strides)(x))
                x = nn.relu(x + y)
        x = x.astype(jnp.float32).mean((1, 2))
        return nn.Dense(self.classes, dtype=self.dtype)(x).astype(jnp.float32)
