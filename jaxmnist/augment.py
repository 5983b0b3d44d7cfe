"""Puts on-device augmentations together; each draw is keyed by the row in the global batch."""

from collections.abc import Callable, Sequence

import jax

# Images [b, h, w, c] and a random key for each row [b] give images of the same shape and dtype.
Augment = Callable[[jax.Array, jax.Array], jax.Array]
# Makes those of the configuration; found by name.
SHIPPED = "jaxmnist.zoo.augment:shipped"


def make_augment(functions: Sequence[Augment]) -> Augment | None:
    """One augmentation that applies several in their order, each with keys of its own.

    Args:
      functions: of images [b, h, w, c] and row keys [b]; each may draw from its keys as it likes.

    Returns:
      The function, or None for none.
    """
    if not functions:
        return None

    def augment(images: jax.Array, keys: jax.Array) -> jax.Array:
        for number, function in enumerate(functions):
            own = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)
            images = function(images, own)
        return images

    return augment
