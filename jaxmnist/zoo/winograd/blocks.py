"""One block on a microbatch [h, w, b, c]: by Winograd's transforms, or directly for one channel."""

import functools
import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Tiles = list[list[Array]]
Matrix = tuple[tuple[float, ...], ...]

_INPUT: Matrix = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))  # B^T
_KERNEL: Matrix = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))  # G
_OUTPUT: Matrix = ((1, 1, 1, 0), (0, 1, -1, -1))  # A^T
_IDENTITY: Matrix = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
_PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))  # the pixels of a pooling window
_TAPS = tuple(itertools.product(range(3), range(3)))  # of a kernel


class Block(NamedTuple):
    """A way to compute a block.

    Attributes:
      prepare: kernel -> weights, a linear map, applied once for all microbatches.
      forward: (x, weights, bias) -> (pooled, residual).
      backward: (gradient, x, residual, weights, bias) -> (dx, dweights, dbias).
    """

    prepare: Callable[[Array], Array]
    forward: Callable[[Array, Array, Array], tuple[Array, Any]]
    backward: Callable[[Array, Array, Any, Array, Array], tuple[Array, Array, Array]]


def _padded(x: Array) -> Array:
    """Puts a line of zeros around [h, w, b, c], but none where pooling drops the last."""
    h, w = x.shape[:2]
    return jnp.pad(x, ((1, 1 - h % 2), (1, 1 - w % 2), (0, 0), (0, 0)))


def _tiles(x: Array) -> Tiles:
    """Slices out the 4x4 inputs of each pooling window: [4][4] arrays [h // 2, w // 2, b, c]."""
    h, w = x.shape[:2]
    x = _padded(x)
    rows, columns = h // 2 * 2 - 1, w // 2 * 2 - 1
    return [[x[i : i + rows : 2, j : j + columns : 2] for j in range(4)] for i in range(4)]


def _input_transform(x: Array) -> Array:
    """V = B^T d B of the tiles of [h, w, b, c]: [16, h // 2 * w // 2 * b, c].

    Along one axis after the other, and each result in one array, so that XLA computes it in one
    loop that reads and writes long runs; a loop for each of the sixteen takes twice as long.
    """
    h, w, b, c = x.shape
    x = _padded(x).reshape(h // 2 * 2 + 2, w // 2 * 2 + 2, b * c)
    rows = jnp.stack(_multiply(_INPUT, [x[i : i + h // 2 * 2 - 1 : 2] for i in range(4)]))
    slices = [rows[:, :, j : j + w // 2 * 2 - 1 : 2] for j in range(4)]
    return jnp.stack(_multiply(_INPUT, slices), axis=1).reshape(16, -1, c)


def _add_tiles(matrix: Matrix, tiles: Array, shape: Sequence[int]) -> Array:
    """Matrix @ tile @ matrix^T of tiles [16, h // 2 * w // 2 * b, c], added up where they overlap.

    For x of that shape, [h, w, b, c]; with B it is dd = B dV B^T, the transpose of the above.
    """
    h, w, b, c = shape
    tiles = tiles.reshape(4, 4, h // 2, w // 2, b * c)
    rows = _overlap_add(_multiply(matrix, [tile.swapaxes(0, 1) for tile in tiles]), h)
    columns = [rows[:, j].swapaxes(0, 1) for j in range(4)]
    return _overlap_add(_multiply(matrix, columns), w).swapaxes(0, 1).reshape(shape)


def _overlap_add(lines: Sequence[Array], size: int) -> Array:
    """Adds up lines 0 to 3 of tiles that begin at every other line, one line above the first.

    Args:
      lines: four arrays [size // 2, ...], a tile's lines.
      size: number of lines wanted.

    Returns:
      [size, ...]
    """
    first, second, third, fourth = lines
    # Concatenated, as pads are conditions within the loop, of which XLA makes a slow one.
    zero = jnp.zeros_like(first[:1])
    even = second + jnp.concatenate([zero, fourth[:-1]])
    odd = third + jnp.concatenate([first[1:], zero])
    sums = jnp.stack([even, odd], axis=1).reshape(-1, *first.shape[1:])
    return jnp.concatenate([sums, fourth[-1:]]) if size % 2 else sums


def _dense_sandwich(matrix: Matrix, stacked: Array) -> Array:
    """Matrix @ tile @ matrix^T as one matrix product: [n * n, ...] to [m * m, ...]."""
    product = jnp.dot(
        np.kron(matrix, matrix).astype(np.float32),
        stacked.reshape(len(stacked), -1),
        precision=lax.Precision.HIGHEST,
    )
    return product.reshape(-1, *stacked.shape[1:])


def _multiply(matrix: Matrix, terms: list[Array]) -> list[Array]:
    products = [
        [
            term if factor == 1 else factor * term
            for factor, term in zip(row, terms, strict=True)
            if factor
        ]
        for row in matrix
    ]
    return [functools.reduce(operator.add, row) for row in products]


def _transpose(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


def _winograd_weights(kernel: Array) -> Array:
    """U = G g G^T: [3, 3, c, k] to [16, c, k]."""
    return _dense_sandwich(_KERNEL, kernel.reshape(9, *kernel.shape[2:]))


def _winograd_forward(x: Array, weights: Array, bias: Array) -> tuple[Array, Array]:
    h, w, b, _ = x.shape
    shape = (h // 2, w // 2, b, weights.shape[-1])
    products = (_input_transform(x) @ weights).reshape(4, 4, *shape)
    rows = _multiply(_OUTPUT, list(products))
    y = [pixel + bias for row in rows for pixel in _multiply(_OUTPUT, list(row))]
    pooled = functools.reduce(operator.add, (jnp.maximum(pixel, 0) for pixel in y)) / 4
    return pooled, jnp.stack([pixel > 0 for pixel in y])


def _winograd_backward(
    gradient: Array, x: Array, active: Array, weights: Array, bias: Array
) -> tuple[Array, Array, Array]:
    # Elementwise, XLA would find the mask anew in each of sixteen loops, a fifth of the step.
    dm = _dense_sandwich(_transpose(_OUTPUT), jnp.where(active, gradient / 4, 0))
    dm = dm.reshape(16, -1, dm.shape[-1])
    dweights = jnp.einsum("tnc,tnk->tck", _input_transform(x), dm)
    dv = jnp.einsum("tnk,tck->tnc", dm, weights)
    dx = _add_tiles(_transpose(_INPUT), dv, x.shape)
    # Row 1 of A is (1, 1), so that product 1, 1 of a tile has the sum of its four dY.
    return dx, dweights, dm[5].sum(axis=0)


def _direct_weights(kernel: Array) -> Array:
    """[3, 3, 1, k] to [9, k]."""
    return kernel.reshape(9, -1)


def _direct_pixels(tiles: Tiles, weights: Array, bias: Array) -> list[Array]:
    taps = list(zip(_TAPS, weights, strict=True))
    return [
        functools.reduce(operator.add, (tiles[p + i][q + j] * tap for (i, j), tap in taps)) + bias
        for p, q in _PHASES
    ]


def _direct_forward(x: Array, weights: Array, bias: Array) -> tuple[Array, None]:
    pixels = _direct_pixels(_tiles(x), weights, bias)
    return functools.reduce(operator.add, (jnp.maximum(pixel, 0) for pixel in pixels)) / 4, None


def _direct_backward(
    gradient: Array, x: Array, _: None, weights: Array, bias: Array
) -> tuple[Array, Array, Array]:
    tiles = _tiles(x)
    # Nine multiply-adds a pixel cost less than the storage of its sign.
    pixels = _direct_pixels(tiles, weights, bias)
    dy = jnp.stack([jnp.where(pixel > 0, gradient / 4, 0) for pixel in pixels])
    dy = dy.reshape(4, -1, weights.shape[1])
    seen = [jnp.stack([tiles[p + i][q + j] for p, q in _PHASES]).reshape(-1) for i, j in _TAPS]
    sums = jnp.stack([*seen, jnp.ones_like(seen[0])]) @ dy.reshape(-1, weights.shape[1])
    # The kernel where each pixel of a window has it in the tile.
    kernel = weights.reshape(3, 3, -1)
    placed = jnp.stack([jnp.pad(kernel, ((p, 1 - p), (q, 1 - q), (0, 0))) for p, q in _PHASES])
    dtiles = jnp.einsum("pnk,pijk->ijn", dy, placed)
    return _add_tiles(_IDENTITY, dtiles.reshape(16, -1, 1), x.shape), sums[:9], sums[9]


WINOGRAD = Block(_winograd_weights, _winograd_forward, _winograd_backward)
DIRECT = Block(_direct_weights, _direct_forward, _direct_backward)
