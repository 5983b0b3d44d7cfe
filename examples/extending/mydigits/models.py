"""A model of one's own: any Flax linen module that takes images and gives logits."""

import flax.linen as nn
import jax

from jaxmnist.models import BatchNorm, Dropout, normalize


class WideNet(nn.Module):
    """One wide convolution; `classes` is given by the library, the rest by model.kwargs."""

    classes: int
    width: int = 16
    dropout: float = 0.1

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits [b, classes] of images [b, h, w, c]."""
        x = nn.Conv(self.width, (3, 3), strides=(2, 2), use_bias=False)(normalize(images))
        x = nn.relu(BatchNorm()(x, use_running_average=not train))
        x = Dropout(self.dropout)(x.reshape(x.shape[0], -1), deterministic=not train)
        return nn.Dense(self.classes)(x)
