"""One block on a microbatch [h, w, b, c]: by Winograd's transforms, or directly for one channel."""

import functools
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
_PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))  # the pixels of a pooling window


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


def _tiles(x: Array) -> Tiles:
    """Slices out the 4x4 inputs of each pooling window: [4][4] arrays [h // 2, w // 2, b, c]."""
    h, w = x.shape[:2]
    x = jnp.pad(x, ((1, 1 - h % 2), (1, 1 - w % 2), (0, 0), (0, 0)))
    rows, columns = h // 2 * 2 - 1, w // 2 * 2 - 1
    return [[x[i : i + rows : 2, j : j + columns : 2] for j in range(4)] for i in range(4)]


def _add_tiles(tiles: Tiles, shape: Sequence[int]) -> Array:
    """The transpose of `_tiles`: adds up what overlaps, for x of that shape."""
    h, w, b, c = shape

    def shifted(i: int, j: int) -> Array:
        return jnp.pad(tiles[i][j], ((i // 2, 1 - i // 2), (j // 2, 1 - j // 2), (0, 0), (0, 0)))

    # Padded rows 2s hold row 0 of tile s and row 2 of tile s - 1; rows 2s + 1 hold rows 1 and 3.
    parity = [
        [
            shifted(p, q) + shifted(p, q + 2) + shifted(p + 2, q) + shifted(p + 2, q + 2)
            for q in (0, 1)
        ]
        for p in (0, 1)
    ]
    x = jnp.stack([jnp.stack(row, axis=2) for row in parity], axis=1)
    return x.reshape(h // 2 * 2 + 2, w // 2 * 2 + 2, b, c)[1 : h + 1, 1 : w + 1]


def _sandwich(matrix: Matrix, tiles: Tiles) -> Tiles:
    """Computes matrix @ tiles @ matrix^T, elementwise over the arrays of the tiles."""
    columns = [_multiply(matrix, list(column)) for column in zip(*tiles, strict=True)]
    return [_multiply(matrix, list(row)) for row in zip(*columns, strict=True)]


def _dense_sandwich(matrix: Matrix, stacked: Array) -> Array:
    """The same as one matrix product: [n * n, ...] to [m * m, ...]."""
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


def _stack(tiles: Tiles) -> Array:
    """[n][n] arrays [h, w, b, c] to one [n * n, h * w * b, c]."""
    return jnp.stack([tile.reshape(-1, tile.shape[-1]) for row in tiles for tile in row])


def _unstack(stacked: Array, shape: Sequence[int]) -> Tiles:
    return [[stacked[4 * i + j].reshape(shape) for j in range(4)] for i in range(4)]


def _winograd_weights(kernel: Array) -> Array:
    """U = G g G^T: [3, 3, c, k] to [16, c, k]."""
    return _dense_sandwich(_KERNEL, kernel.reshape(9, *kernel.shape[2:]))


def _winograd_forward(x: Array, weights: Array, bias: Array) -> tuple[Array, Array]:
    h, w, b, _ = x.shape
    shape = (h // 2, w // 2, b, weights.shape[-1])
    products = _stack(_sandwich(_INPUT, _tiles(x))) @ weights
    y = [tile + bias for row in _sandwich(_OUTPUT, _unstack(products, shape)) for tile in row]
    pooled = functools.reduce(operator.add, (jnp.maximum(pixel, 0) for pixel in y)) / 4
    return pooled, jnp.stack([pixel > 0 for pixel in y])


def _winograd_backward(
    gradient: Array, x: Array, active: Array, weights: Array, bias: Array
) -> tuple[Array, Array, Array]:
    # Elementwise, XLA would find the mask anew in each of sixteen loops, a fifth of the step.
    dm = _dense_sandwich(_transpose(_OUTPUT), jnp.where(active, gradient / 4, 0))
    dm = dm.reshape(16, -1, dm.shape[-1])
    v = _stack(_sandwich(_INPUT, _tiles(x)))
    dweights = jnp.einsum("tnc,tnk->tck", v, dm)
    dv = jnp.einsum("tnk,tck->tnc", dm, weights)
    tile_shape = (*gradient.shape[:3], x.shape[3])
    dx = _add_tiles(_sandwich(_transpose(_INPUT), _unstack(dv, tile_shape)), x.shape)
    # Row 1 of A is (1, 1), so that product 1, 1 of a tile has the sum of its four dY.
    return dx, dweights, dm[5].sum(axis=0)


def _direct_weights(kernel: Array) -> Array:
    """The kernel where each pixel of a window sees it in the tile: [3, 3, 1, k] to [16, 4 * k]."""
    placed = [jnp.pad(kernel[:, :, 0], ((p, 1 - p), (q, 1 - q), (0, 0))) for p, q in _PHASES]
    return jnp.stack(placed, axis=2).reshape(16, -1)


def _direct_pixels(tiles: Tiles, weights: Array, bias: Array) -> list[Array]:
    kernel = weights.reshape(4, 4, 4, -1)[:3, :3, 0]
    return [
        functools.reduce(
            operator.add, (tiles[p + i][q + j] * kernel[i, j] for i in range(3) for j in range(3))
        )
        + bias
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
    dy = jnp.stack([jnp.where(pixel > 0, gradient / 4, 0) for pixel in pixels], axis=3)
    dy = dy.reshape(-1, weights.shape[1])
    slots = _stack(tiles)[..., 0]
    ones = jnp.ones_like(slots[:1])
    sums = jnp.concatenate([slots, ones]) @ dy
    dv = (dy @ weights.T).T[..., None]
    dx = _add_tiles(_unstack(dv, (*gradient.shape[:3], 1)), x.shape)
    return dx, sums[:16], sums[16].reshape(4, -1).sum(axis=0)


WINOGRAD = Block(_winograd_weights, _winograd_forward, _winograd_backward)
DIRECT = Block(_direct_weights, _direct_forward, _direct_backward)
