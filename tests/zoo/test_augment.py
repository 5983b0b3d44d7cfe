"""What each augmentation does to an image is what its key says, and what comes in is zero."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxmnist.augment import make_augment
from jaxmnist.errors import ConfigError
from jaxmnist.step.body import fold_rows
from jaxmnist.zoo.augment import bend, cut_out, move, shipped

B = 29
ALL = {"shift": 2, "rotation": 30.0, "scale": 0.3, "shear": 20.0, "cutout": 3}


def images(dtype=np.uint8, channels=1, size=(6, 9)):
    # No pixel is zero, so that every move can be told.
    return np.random.default_rng(0).integers(1, 256, (B, *size, channels)).astype(dtype)


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
def test_a_shift_rolls_each_image_with_zeros(dtype, channels):
    given = images(dtype, channels)
    result = np.asarray(jax.jit(lambda x, k: move(x, k, pixels=2))(given, keys()))
    assert result.dtype == dtype
    found = moves_of(result, given, 2)
    assert len(set(found)) > 10
    assert {d for d, _ in found} == {r for _, r in found} == {-2, -1, 0, 1, 2}


@pytest.mark.parametrize("size", [1, 3, 4])
def test_cutout_blanks_one_square_that_may_lie_partly_outside(size):
    given = images(np.float32, 3)
    result = np.asarray(jax.jit(lambda x, k: cut_out(x, k, size=size))(given, keys()))
    corners = set()
    for before, after in zip(given, result, strict=True):
        blank = (after == 0).all(-1)
        np.testing.assert_array_equal(after[~blank], before[~blank])
        rows, columns = np.flatnonzero(blank.any(1)), np.flatnonzero(blank.any(0))
        assert blank[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert 1 <= len(rows) <= size and 1 <= len(columns) <= size
        assert len(rows) == size or 0 in rows or 5 in rows
        assert len(columns) == size or 0 in columns or 8 in columns
        corners.add((rows[0], columns[0]))
    assert len(corners) > 10


def expected(image, angle, factor, slant):
    """The image slanted, scaled and turned, by another library, with float64 coordinates."""
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    forward = turn @ (factor * np.array([[1, 0], [math.tan(slant), 1]]))  # rows and columns
    back = np.linalg.inv(forward)
    centre = (np.array(image.shape[:2]) - 1) / 2
    offset = centre - back @ centre
    layers = [
        ndimage.affine_transform(layer, back, offset, order=1, mode="grid-constant")
        for layer in np.moveaxis(image.astype(np.float64), -1, 0)
    ]
    return np.stack(layers, -1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(
    ("rotation", "scale", "shear"),
    [(40.0, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, 0.0, 30.0), (180.0, 1.0, 45.0)],
)
def test_bending_is_the_affine_map_of_the_draws(rotation, scale, shear, dtype, channels):
    given = images(dtype, channels, (10, 13))
    facts = {"rotation": rotation, "scale": scale, "shear": shear}
    result = np.asarray(jax.jit(lambda x, k: bend(x, k, **facts))(given, keys()))
    assert result.dtype == dtype
    # As the implementation draws: three of the numbers from -1 to 1, evenly spread.
    draws = jax.vmap(lambda key: jax.random.randint(key, (3,), 0, 1025))(keys())
    draws = np.asarray(draws) / 512 - 1
    for before, after, (i, j, k) in zip(given, result, draws, strict=True):
        angle, slant = np.radians(rotation * i), np.radians(shear * j)
        wanted = expected(before, angle, (1 + scale) ** k, slant)
        # Weights have 8 bits: a pixel is off by at most one part of 256 of its neighbours' spread,
        # twice; and uint8 is rounded.
        np.testing.assert_allclose(after, wanted, atol=2.5)
    assert len({image.tobytes() for image in result}) == B


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_bending_by_nothing_is_the_image_itself(dtype):
    given = images(dtype, 3, (7, 10))
    result = bend(given, keys(), rotation=0.0, scale=0.0, shear=0.0)
    np.testing.assert_array_equal(result, given)


def test_what_lies_far_outside_is_zero_and_not_a_fill_value():
    given = images(np.float32, 1, (4, 31))
    result = np.asarray(bend(given, keys(), rotation=90.0, scale=0.0, shear=0.0))
    assert np.isfinite(result).all()
    assert result.min() == 0
    assert result.max() <= given.max()


@pytest.mark.parametrize("index", [range(7), range(28, -1, -4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_row_is_augmented_as_its_key_says_whatever_its_company(index, dtype):
    augment = make_augment(shipped((6, 9, 1), **ALL))
    whole = np.asarray(jax.jit(augment)(images(dtype), keys()))
    some = jax.jit(augment)(images(dtype)[list(index)], keys(index))
    np.testing.assert_allclose(some, whole[list(index)], rtol=1e-6, atol=1e-6)
    if dtype == np.uint8:
        np.testing.assert_array_equal(some, whole[list(index)])
        np.testing.assert_array_equal(augment(images(), keys()), whole)  # not compiled


@pytest.mark.parametrize("name", ALL)
def test_each_key_asks_for_its_own(name):
    (function,) = shipped((28, 28, 1), **{name: ALL[name]})
    given = images(size=(28, 28))
    assert (np.asarray(function(given, keys())) != given).any((1, 2, 3)).sum() > B / 2


def test_nothing_is_asked_for_by_default():
    assert shipped((28, 28, 1)) == []


def test_bfloat16_images_stay_so():
    given = images(np.float32).astype(jnp.bfloat16)
    for function in shipped((6, 9, 1), **ALL):
        assert function(given, keys()).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"shift": 6}, "augment.shift=6 moves images of 6 pixels out of sight: .* at most 5"),
        ({"cutout": 7}, "augment.cutout=7 can blank images of 6 pixels .*: choose at most 5"),
        ({"cutout": 6, "shift": 9}, r"2 faults:(.|\n)*augment.shift=9(.|\n)*augment.cutout=6"),
    ],
)
def test_what_would_leave_nothing_to_see_is_refused(asked, sentence):
    with pytest.raises(ConfigError, match=sentence):
        shipped((6, 9, 1), **asked)


def test_images_too_large_for_the_arithmetic_are_refused():
    rule = "augment.rotation, scale and shear resample images of up to 8192 pixels a side"
    with pytest.raises(ConfigError, match=rule):
        shipped((8193, 5, 1), rotation=1.0)
