"""A shift moves each image by what its key says, and what comes in is zero."""

import jax
import numpy as np
import pytest

from jaxmnist.augment import make_augment, shift
from jaxmnist.step.body import fold_rows

B = 29


def images(dtype=np.uint8, channels=1):
    # No pixel is zero, so that every move can be told.
    return np.random.default_rng(0).integers(1, 256, (B, 6, 9, channels)).astype(dtype)


def keys(index=range(B)):
    return fold_rows(jax.random.key(7), np.asarray(index, np.int32))


def moved(image, down, right):
    """The image rolled, with zeros where it came in from the other side."""
    rolled = np.roll(image, (down, right), axis=(0, 1))
    h, w = image.shape[:2]
    rows, columns = np.arange(h) - down, np.arange(w) - right
    inside = ((rows >= 0) & (rows < h))[:, None] & ((columns >= 0) & (columns < w))
    return np.where(inside[..., None], rolled, 0)


def moves_of(result, given, pixels):
    """The move that each image made: exactly one fits."""
    span = range(-pixels, pixels + 1)
    found = []
    for image, shifted in zip(given, result, strict=True):
        fits = [(d, r) for d in span for r in span if np.array_equal(shifted, moved(image, d, r))]
        assert len(fits) == 1
        found += fits
    return found


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_is_rolled_with_zeros(dtype, channels):
    given = images(dtype, channels)
    result = np.asarray(jax.jit(lambda x, k: shift(x, k, pixels=2))(given, keys()))
    assert result.dtype == dtype
    found = moves_of(result, given, 2)
    assert len(set(found)) > 10
    assert {d for d, _ in found} == {r for _, r in found} == {-2, -1, 0, 1, 2}


@pytest.mark.parametrize("index", [range(7), range(28, -1, -4)])
def test_a_row_moves_as_its_key_says_whatever_its_company(index):
    augment = make_augment(shift_pixels=3)
    whole = np.asarray(augment(images(), keys()))
    some = augment(images()[list(index)], keys(index))
    np.testing.assert_array_equal(some, whole[list(index)])


def test_a_shift_of_0_is_no_augmentation():
    assert make_augment(shift_pixels=0) is None
