"""An augmentation of the user's own, by dotted path, after those that ship."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxmnist.augment import Augment
from jaxmnist.errors import ConfigError
from jaxmnist.names import find
from jaxmnist.zoo.own.trial import ROWS, try_rows


def own_augment(path: str | None, *, kwargs: Mapping[str, Any], image: Any) -> Augment:
    """The user's function, tried on a few rows.

    Args:
      path: "package.module:function" of `function(images, keys, **kwargs)`: images [b, h, w, c] as
        the data set has them, and one random key a row [b]; None where no function is named.
      kwargs: further arguments of the function.
      image: one image [h, w, c], for the trial.

    Raises:
      ConfigError: arguments for no function; it cannot be imported, changes shape or dtype, or
        mixes rows.
    """
    if path is None:
        rule = "belongs to augment.custom, which is not set: set it, or leave the arguments out"
        raise ConfigError([f"augment.kwargs={dict(kwargs)} {rule}"])
    function = find(path, {}, key="augment.custom")
    custom = functools.partial(function, **kwargs) if kwargs else function
    top = 255 if image.dtype == np.uint8 else 1
    noise = np.random.default_rng(0).random((ROWS, *image.shape)) * top
    images = noise.astype(image.dtype)
    keys = jax.random.split(jax.random.key(0), ROWS)
    try_rows(f"augment.custom={path!r}", custom, (images, keys), like=images)
    return custom
