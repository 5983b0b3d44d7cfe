"""An augmentation of one's own: images and one random key a row in, images out."""

import jax
import jax.numpy as jnp


def mirror(images: jax.Array, keys: jax.Array, *, share: float = 0.5) -> jax.Array:
    """Mirrors a share of the images left to right; shape [b, h, w, c] and dtype stay."""
    draws = jax.vmap(jax.random.uniform)(keys)
    return jnp.where((draws < share)[:, None, None, None], images[:, :, ::-1], images)
