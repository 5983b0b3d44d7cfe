"""A multi-layer perceptron."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmnist.models import Dropout, normalize


class MLP(nn.Module):
    """Dense layers, each with relu and dropout, on all pixels at once, then Dense.

    With 28×28 images of one channel it has 535,818 parameters.

    Attributes:
      classes: number of logits.
      hidden: widths of the layers before the last.
      dropout: rate after each of them.
      dtype: dtype of the computation; parameters and logits are float32.
    """

    classes: int = 10
    hidden: Sequence[int] = (512, 256)
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps images [b, h, w, c], uint8 or float in [0, 1], to logits float32 [b, classes]."""
        x = normalize(images, self.dtype).reshape(images.shape[0], -1)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width, dtype=self.dtype)(x))
            x = Dropout(self.dropout)(x, deterministic=not train)
        return nn.Dense(self.classes, dtype=self.dtype)(x).astype(jnp.float32)
