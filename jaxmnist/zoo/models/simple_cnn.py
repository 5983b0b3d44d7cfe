"""The simple convolutional networks M3, M5 and M7 of arXiv:2008.10400."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmnist.errors import ModelError
from jaxmnist.models import BatchNorm, normalize

# Channels of the convolutions by side of their kernel: M3, M5 and M7.
_CHANNELS: Mapping[int, Sequence[int]] = {
    3: (32, 48, 64, 80, 96, 112, 128, 144, 160, 176),
    5: (32, 64, 96, 128, 160),
    7: (48, 96, 144, 192),
}


class SimpleCNN(nn.Module):
    """Convolutions without padding or pooling, each with batch norm and relu, then Dense.

    The images are brought to [-1, 1]. With 28×28 images of one channel M3, M5 and M7 have
    1,124,170, 1,128,170 and 2,291,962 parameters.

    Attributes:
      classes: number of logits.
      kernel: side of the kernels: 3, 5 or 7, or any with `channels`.
      channels: of the convolutions; None for those of the paper.
      groups: of batch norm, see `jaxmnist.models.BatchNorm`.
      norm_logits: whether batch norm follows the last layer, too, as in the paper. It wants groups
        of many rows: over few of them the logits say little more than which is the largest.
      dtype: dtype of the computation; parameters and logits are float32.
    """

    classes: int = 10
    kernel: int = 5
    channels: Sequence[int] | None = None
    groups: int = 8
    norm_logits: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps images [b, h, w, c], uint8 or float in [0, 1], to logits float32 [b, classes].

        Raises:
          ModelError: the images are too small, or nothing says how many channels there are.
        """
        norm = functools.partial(
            BatchNorm, use_running_average=not train, momentum=0.9, groups=self.groups
        )
        k, x = (self.kernel, self.kernel), 2 * normalize(images, self.dtype) - 1
        for channels in self._checked_channels(images.shape[1:3]):
            x = nn.Conv(channels, k, padding="VALID", use_bias=False, dtype=self.dtype)(x)
            x = nn.relu(norm()(x))
        bias, x = not self.norm_logits, x.reshape(x.shape[0], -1)
        x = nn.Dense(self.classes, use_bias=bias, dtype=self.dtype)(x).astype(jnp.float32)
        return norm()(x) if self.norm_logits else x

    def _checked_channels(self, size: Sequence[int]) -> Sequence[int]:
        known, k = ", ".join(map(str, _CHANNELS)), self.kernel
        if self.channels is None and k not in _CHANNELS:
            repair = f"choose one of {known}, or give model.kwargs.channels, too"
            raise ModelError(f"model.kwargs.kernel={k!r} of simple_cnn has no channels: {repair}")
        channels = _CHANNELS[k] if self.channels is None else self.channels
        least, most = 1 + len(channels) * (k - 1), (min(size) - 1) // max(k - 1, 1)
        if min(size) < least:
            fault = f"{len(channels)} convolutions {k}×{k} without padding need images of {least}"
            rule = f"pixels a side, these have {size[0]}×{size[1]}, on which {most} fit"
            repair = "set model.kwargs.channels to no more numbers, or choose another model"
            raise ModelError(f"simple_cnn: {fault} {rule}: {repair}")
        return channels
