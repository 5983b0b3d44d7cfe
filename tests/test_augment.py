"""Augmentations are put together so that each draws from keys of its own."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmnist.augment import make_augment
from jaxmnist.step.body import fold_rows

B = 29


def keys():
    return fold_rows(jax.random.key(7), np.arange(B, dtype=np.int32))


def draw(images, keys):
    """Writes what it draws into the first pixel that is zero."""
    drawn = jax.vmap(lambda key: jax.random.randint(key, (), 1, 2**30))(keys)
    flat = jnp.asarray(images).reshape(B, -1)
    first = (flat == 0).argmax(1)
    return flat.at[np.arange(B), first].set(drawn).reshape(images.shape)


def test_no_augmentation_is_none():
    assert make_augment([]) is None


def test_each_draws_from_keys_of_its_own_in_their_order():
    images = np.zeros((B, 1, 3, 1), np.int32)
    drawn = np.asarray(make_augment([draw, draw, draw])(images, keys())).reshape(B, 3)
    assert len(np.unique(drawn)) == 3 * B
    (first,) = np.asarray(make_augment([draw])(images, keys())).reshape(B, 3).T[:1]
    np.testing.assert_array_equal(drawn[:, 0], first)


def test_none_draws_from_the_key_that_the_others_are_folded_from():
    images = np.zeros((B, 1, 1, 1), np.int32)
    raw = np.asarray(draw(images, keys())).ravel()
    assert not np.intersect1d(raw, make_augment([draw])(images, keys())).size
