"""The blocks of a chain, forward and backward, in a scan over microbatches."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

from jaxmnist.errors import ModelError
from jaxmnist.zoo.winograd.blocks import DIRECT, WINOGRAD, Block

Layers = tuple[tuple[Array, Array], ...]


def features(
    images: Array,
    kernel1: Array,
    bias1: Array,
    kernel2: Array,
    bias2: Array,
    *,
    microbatch: int = 4,
) -> Array:
    """Two blocks in one pass: the trunk of the blog-post CNN.

    Args:
      images: [b, h, w, c], normalised; h and w at least 4.
      kernel1: [3, 3, c, c1], laid out as `flax.linen.Conv` does.
      bias1: [c1].
      kernel2: [3, 3, c1, c2].
      bias2: [c2].
      microbatch: the most images worked on at once.

    Returns:
      [b, h // 4, w // 4, c2] float32.

    Raises:
      ModelError: shapes that do not fit together.
    """
    return conv_relu_pool_chain(images, ((kernel1, bias1), (kernel2, bias2)), microbatch=microbatch)


def conv_relu_pool(x: Array, kernel: Array, bias: Array, *, microbatch: int = 4) -> Array:
    """One block: avg_pool(relu(conv3x3(x) + bias)), [b, h, w, c] to [b, h // 2, w // 2, k] float32.

    Arguments and errors are those of `features`.
    """
    return conv_relu_pool_chain(x, ((kernel, bias),), microbatch=microbatch)


def conv_relu_pool_chain(
    x: Array, layers: Sequence[tuple[Array, Array]], *, microbatch: int = 4
) -> Array:
    """Any number of blocks in one pass over the microbatches.

    Differentiable in every argument by reverse mode. Computed in float32 whatever the dtypes of the
    arguments and, like any JAX operation, varying over the mesh axes over which an argument varies.

    Args:
      x: [b, h, w, c].
      layers: (kernel [3, 3, c, k], bias [k]) of each block, first to last.
      microbatch: the most images worked on at once.

    Returns:
      [b, h // 2**n, w // 2**n, k] float32 for n blocks.

    Raises:
      ModelError: shapes that do not fit together.
    """
    if microbatch < 1:
        raise ModelError(f"microbatch is {microbatch}; it must be at least 1")
    _check_shapes(x.shape, layers)
    arrays = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (x, tuple(map(tuple, layers))))
    x, layers = jax.tree.map(_varying_like(arrays), arrays)
    b = x.shape[0]
    count = max(1, -(-b // microbatch))
    size = max(1, -(-b // count))  # as even as can be: the fewest rows of padding
    x = jnp.pad(x, ((0, count * size - b), (0, 0), (0, 0), (0, 0)))
    y = _chain(x.reshape(count, size, *x.shape[1:]), layers)
    return y.reshape(count * size, *y.shape[2:])[:b]


def obstacle(
    image_shape: Sequence[int],
    *,
    blocks: int = 2,
    kernel_size: Sequence[int] = (3, 3),
    dtype: DTypeLike = jnp.float32,
) -> str | None:
    """Says why a chain of blocks cannot be computed here, in a clause without a full stop, or None.

    Args:
      image_shape: [..., h, w, c].
      blocks: number of blocks.
      kernel_size: of the convolutions.
      dtype: in which the model computes.
    """
    h, w = image_shape[-3:-1]
    if tuple(kernel_size) != (3, 3):
        return f"the kernels are {'x'.join(map(str, kernel_size))} and only 3x3 is supported"
    if jnp.dtype(dtype) != jnp.float32:
        return f"the model computes in {jnp.dtype(dtype).name} and only float32 is supported"
    if min(h, w) < 2**blocks:
        return f"images of {h}x{w} leave no pixel after {blocks} poolings by 2"
    return None


def _check_shapes(shape: Sequence[int], layers: Sequence[tuple[Array, Array]]) -> None:
    if not layers:
        raise ModelError("layers is empty; give the kernel and bias of at least one block")
    if len(shape) != 4:
        raise ModelError(
            f"x has shape {tuple(shape)}; it must be [b, h, w, c]: add the missing axes"
        )
    if reason := obstacle(shape, blocks=len(layers)):
        raise ModelError(f"{reason}; use larger images or fewer blocks")
    c = shape[3]
    for index, (kernel, bias) in enumerate(layers, 1):
        if kernel.shape[:-1] != (3, 3, c) or bias.shape != kernel.shape[-1:]:
            raise ModelError(
                f"block {index} has kernel {kernel.shape} and bias {bias.shape}; for {c} input "
                f"channels they must be (3, 3, {c}, k) and (k,): initialise them for that input"
            )
        c = kernel.shape[-1]


def _varying_like(tree: Any) -> Callable[[Array], Array]:
    """Returns a cast of an array to the union of the mesh axes over which the leaves vary.

    Under `shard_map` a custom gradient must vary as its argument does: with this cast outside, the
    sum over devices for an argument that does not vary is the cast's own gradient.
    """
    axes = frozenset().union(*(_varying_axes(leaf) for leaf in jax.tree.leaves(tree)))
    return lambda a: lax.pcast(a, tuple(sorted(axes - _varying_axes(a))), to="varying")


def _varying_axes(x: Array) -> frozenset[str]:
    return frozenset(jax.typeof(x).manual_axis_type.varying)


def _blocks(layers: Layers) -> list[tuple[Block, Array, Array, Any]]:
    """Returns (block, weights, bias, pullback of the weights to the kernel) for each layer."""
    blocks = []
    for kernel, bias in layers:
        block = DIRECT if kernel.shape[2] == 1 else WINOGRAD
        weights, pullback = jax.vjp(block.prepare, kernel)
        blocks.append((block, weights, bias, pullback))
    return blocks


@jax.custom_vjp
def _chain(x: Array, layers: Layers) -> Array:
    """Maps microbatches [count, b, h, w, c] to [count, b, h // 2**n, w // 2**n, k]."""
    return _chain_forward(x, layers)[0]


def _chain_forward(x: Array, layers: Layers) -> tuple[Array, Any]:
    inputs, residuals = [], []
    # A scan for each block: in one of all, XLA would compute what a block makes twice, once to
    # store it and once more in the loop of the next block that reads it.
    for index, (block, weights, bias, _) in enumerate(_blocks(layers)):
        first, last = index == 0, index == len(layers) - 1
        inputs.append(x)
        x, residual = _block_forward(block, x, weights, bias, first=first, last=last)
        residuals.append(residual)
    return x, (inputs, residuals, layers)


def _block_forward(
    block: Block, x: Array, weights: Array, bias: Array, *, first: bool, last: bool
) -> tuple[Array, Any]:
    """Scans over microbatches; gives (y, residual) of all.

    Between blocks a microbatch is [h, w, b, c]; the first takes and the last gives [b, h, w, c].
    """

    def body(_: None, x: Array) -> tuple[None, Any]:
        y, residual = block.forward(jnp.moveaxis(x, 0, 2) if first else x, weights, bias)
        return None, (jnp.moveaxis(y, 2, 0) if last else y, residual)

    return lax.scan(body, None, x)[1]


def _chain_backward(saved: Any, gradient: Array) -> tuple[Array, Layers]:
    inputs, residuals, layers = saved
    blocks = _blocks(layers)

    def body(sums: Any, slices: Any) -> tuple[Any, Array]:
        inputs, residuals, g = slices
        inputs = [jnp.moveaxis(inputs[0], 0, 2), *inputs[1:]]
        terms: list[list[Array]] = []
        for index in reversed(range(len(blocks))):
            block, weights, bias, _ = blocks[index]
            g, *term = block.backward(g, inputs[index], residuals[index], weights, bias)
            terms.insert(0, term)
        return jax.tree.map(jnp.add, sums, terms), jnp.moveaxis(g, 2, 0)

    zeros = [[jnp.zeros_like(weights), jnp.zeros_like(bias)] for _, weights, bias, _ in blocks]
    # The gradient's axes move here: within the loop, XLA would not vectorise what reads it.
    sums, dx = lax.scan(body, zeros, (inputs, residuals, jnp.moveaxis(gradient, 1, 3)))
    pairs = zip(blocks, sums, strict=True)
    return dx, tuple((pullback(dw)[0], db) for (*_, pullback), (dw, db) in pairs)


_chain.defvjp(_chain_forward, _chain_backward)
