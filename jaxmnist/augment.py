"""On-device augmentation, each draw keyed by the example's row in the global batch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Augment = Callable[[jax.Array, jax.Array], jax.Array]


def shift(images: jax.Array, keys: jax.Array, *, pixels: int) -> jax.Array:
    """Moves each image by up to `pixels` in both directions and fills up with zeros.

    Args:
      images: [b, h, w, c], any dtype.
      keys: one random key a row, [b].
      pixels: largest move.

    Returns:
      Images of the same shape and dtype.
    """
    h, w, c = images.shape[1:]
    padded = jnp.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))

    def one(image: jax.Array, key: jax.Array) -> jax.Array:
        top, left = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
        return jax.lax.dynamic_slice(image, (top, left, jnp.zeros_like(top)), (h, w, c))

    return jax.vmap(one)(padded, keys)


def make_augment(*, shift_pixels: int) -> Augment | None:
    """The augmentation of a configuration: a function of images and row keys, or None."""
    if not shift_pixels:
        return None
    return lambda images, keys: shift(images, keys, pixels=shift_pixels)
