"""The augmentations that ship: shift, rotation, scale, shear and cutout, on the devices.

What a row's key draws is turned into pixels by integer arithmetic on tables that the host has made,
so that uint8 images are equal bit for bit on every kind and number of devices.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxmnist.augment import Augment
from jaxmnist.errors import ConfigError

# A draw takes one of so many evenly spread values, the middle one among them.
_LEVELS = 1025
# Matrices are fixed-point numbers of so many fractional bits. Their entries are below 4, and their
# products with a side of up to 8,192 pixels fit into 32 bits.
_BITS = 14
_LARGEST_SIDE = 2**13
# So are the two weights of a pixel, from 0 to 1.
_WEIGHT_BITS = 8


def shipped(
    image_shape: Sequence[int],
    *,
    shift: int = 0,
    rotation: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
    cutout: int = 0,
) -> list[Augment]:
    """The augmentations that are asked for, in the order of their use; 0 asks for none.

    Args:
      image_shape: height, width and channels.
      shift: largest move in pixels.
      rotation: largest angle in degrees.
      scale: largest growth of the size, as a share of it; shrinks to as many times less, too.
      shear: largest slant in degrees.
      cutout: side in pixels of the square that is blanked.

    Raises:
      ConfigError: images of this size would always or often be blank, or are too large.
    """
    side, faults = min(image_shape[:2]), []
    if shift >= side:
        fault = f"moves images of {side} pixels out of sight: choose at most {side - 1}"
        faults.append(f"augment.shift={shift} {fault}")
    if cutout >= side:
        fault = f"can blank images of {side} pixels altogether: choose at most {side - 1}"
        faults.append(f"augment.cutout={cutout} {fault}")
    bent = bool(rotation or scale or shear)
    if bent and max(image_shape[:2]) > _LARGEST_SIDE:
        rule = f"resample images of up to {_LARGEST_SIDE} pixels a side: set them to 0"
        faults.append(f"augment.rotation, scale and shear {rule} for {tuple(image_shape)}")
    if faults:
        raise ConfigError(faults)
    made: list[Augment] = []
    if bent:
        made.append(functools.partial(bend, rotation=rotation, scale=scale, shear=shear))
    if shift:
        made.append(functools.partial(move, pixels=shift))
    if cutout:
        made.append(functools.partial(cut_out, size=cutout))
    return made


def move(images: jax.Array, keys: jax.Array, *, pixels: int) -> jax.Array:
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


def cut_out(images: jax.Array, keys: jax.Array, *, size: int) -> jax.Array:
    """Sets a square of each image to zero (arXiv:1708.04552).

    Its centre lies anywhere on the image, so that a part of it may lie outside.

    Args:
      images: [b, h, w, c], any dtype.
      keys: one random key a row, [b].
      size: side of the square in pixels.

    Returns:
      Images of the same shape and dtype.
    """
    h, w = images.shape[1:3]

    def one(image: jax.Array, key: jax.Array) -> jax.Array:
        centre = jax.random.randint(key, (2,), 0, np.array([h, w]))
        top, left = centre - size // 2
        y, x = jnp.arange(h)[:, None] - top, jnp.arange(w) - left
        inside = (y >= 0) & (y < size) & (x >= 0) & (x < size)
        return jnp.where(inside[..., None], jnp.zeros_like(image), image)

    return jax.vmap(one)(images, keys)


def bend(
    images: jax.Array, keys: jax.Array, *, rotation: float, scale: float, shear: float
) -> jax.Array:
    """Slants, scales and turns each image about its centre, in one bilinear resampling.

    Args:
      images: [b, h, w, c], integers or floats; what comes in from outside is zero.
      keys: one random key a row, [b].
      rotation: largest angle in degrees, either way.
      scale: the size is multiplied by 1 / (1 + scale) to 1 + scale, evenly in its logarithm.
      shear: largest angle in degrees by which columns slant, either way; below 90.

    Returns:
      Images of the same shape and dtype; integers are rounded.
    """
    draw = np.linspace(-1.0, 1.0, _LEVELS)
    angle = np.radians(rotation * draw)
    tables = np.cos(angle), np.sin(angle), np.tan(np.radians(shear * draw)), (1 + scale) ** -draw
    cos, sin, tan, size = (np.rint(table * 2**_BITS).astype(np.int32) for table in tables)

    def one(image: jax.Array, key: jax.Array) -> jax.Array:
        i, j, k = jax.random.randint(key, (3,), 0, _LEVELS)
        c, s, t, z = (jnp.asarray(x)[at] for x, at in ((cos, i), (sin, i), (tan, j), (size, k)))
        # Where a pixel comes from: the inverse of turning the scaled and slanted image.
        rows = (c + (t * s >> _BITS), s - (t * c >> _BITS)), (-s, c)
        return _resampled(image, [[z * entry >> _BITS for entry in row] for row in rows])

    return jax.vmap(one)(images, keys)


def _resampled(image: jax.Array, matrix: list[list[jax.Array]]) -> jax.Array:
    """The image [h, w, c] whose pixel at (x, y) from the centre is the one at `matrix` (x, y)."""
    h, w, c = image.shape
    # From the centre in half pixels, which are whole numbers for even and odd sides.
    x, y = 2 * jnp.arange(w) - (w - 1), (2 * jnp.arange(h) - (h - 1))[:, None]
    (column, right), (row, down) = (
        _place(a * x + b * y, side) for (a, b), side in zip(matrix, (w, h), strict=True)
    )
    # A frame of two zeros: what lies farther out is read from it.
    width = w + 4
    pixels = jnp.pad(image, ((2, 2), (2, 2), (0, 0))).reshape(-1, c)
    first = (row + 2) * width + column + 2
    one, whole = 2**_WEIGHT_BITS, jnp.issubdtype(image.dtype, jnp.integer)
    total = jnp.zeros(image.shape, jnp.int32 if whole else image.dtype)
    for below in (0, 1):
        for beside in (0, 1):
            # Clipped: the default fills with NaN or the largest number outside, if only in name.
            pixel = jnp.take(pixels, first + below * width + beside, axis=0, mode="clip")
            weight = (down if below else one - down) * (right if beside else one - right)
            total += pixel.astype(total.dtype) * weight[..., None].astype(total.dtype)
    if not whole:
        return total * jnp.asarray(one**-2, total.dtype)
    return ((total + one**2 // 2) >> 2 * _WEIGHT_BITS).astype(image.dtype)


def _place(offset: jax.Array, side: int) -> tuple[jax.Array, jax.Array]:
    """The pixel before a place, -2 to `side`, and the weight of the next one.

    Args:
      offset: from the centre in half pixels, fixed-point.
      side: pixels.
    """
    place = offset + (side - 1) * 2**_BITS
    before = jnp.clip(place >> (_BITS + 1), -2, side)
    return before, (place & (2 ** (_BITS + 1) - 1)) >> (_BITS + 1 - _WEIGHT_BITS)
