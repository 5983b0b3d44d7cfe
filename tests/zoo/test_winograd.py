"""The fast blocks compute what XLA's convolution, relu and pooling compute, gradients included."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxmnist.errors import ModelError
from jaxmnist.zoo import winograd

P = PartitionSpec
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def xla_block(x, kernel, bias):
    y = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return nn.avg_pool(jax.nn.relu(y + bias), (2, 2), (2, 2))


def xla_features(x, kernel1, bias1, kernel2, bias2):
    return xla_block(xla_block(x, kernel1, bias1), kernel2, bias2)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def parameters(channels, *, bias=0.1):
    """Kernel and bias of a block for each two neighbours in channels."""
    arrays = []
    for index, (c, k) in enumerate(itertools.pairwise(channels)):
        arrays += [normal(index, 3, 3, c, k) / np.sqrt(9 * c), bias * normal(9 + index, k)]
    return tuple(arrays)


def black_border(x):
    """Blanks the border, as digits have it, so widely that the relus of two blocks meet zeros."""
    x[:, :5] = x[:, -5:] = x[:, :, :7] = x[:, :, -7:] = 0
    return x


def value_and_gradients(function, x, arrays, *, jit=quick_jit):
    """Loss, and gradients with respect to x and every array, for some uneven loss."""

    def loss(x, arrays):
        y = function(x, *arrays)
        return (y * jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)).sum()

    return jit(jax.value_and_grad(loss, argnums=(0, 1)))(x, arrays)


def assert_leaves_close(actual, expected, *, tolerance=1e-5):
    chained = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    for index, (a, b) in enumerate(chained):
        assert a.shape == b.shape
        error = np.abs(a - b).max() / np.abs(b).max()
        assert error < tolerance, f"leaf {index} is off by {error:.1e}"


@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        ((9, 11, 7, 1), (1, 4, 3)),  # a row of padding; odd, odd; the second block odd, odd
        ((2, 4, 5, 3), (3, 4, 2)),  # the smallest size; odd; the second block even, even; colour
    ],
)
def test_features_and_all_their_gradients_equal_xla(shape, channels):
    x, arrays = normal(42, *shape), parameters(channels)
    assert_leaves_close(
        value_and_gradients(winograd.features, x, arrays),
        value_and_gradients(xla_features, x, arrays),
    )


def test_gradients_at_ties_of_relu_are_zero_like_xla_in_the_network_of_28_by_28():
    x, arrays = black_border(normal(42, 5, 28, 28, 1)), parameters((1, 32, 64), bias=0.0)
    hidden = quick_jit(xla_block)(x, *arrays[:2])
    assert not hidden[:, :2].any(), "the second block must have ties too, one in part of a tile"
    assert hidden[:, 2].any()
    assert_leaves_close(
        value_and_gradients(winograd.features, x, arrays, jit=jax.jit),
        value_and_gradients(xla_features, x, arrays, jit=jax.jit),
    )


def test_a_chain_may_have_three_blocks():
    x, arrays = normal(42, 2, 9, 8, 1), parameters((1, 3, 4, 2))
    layers = tuple(zip(arrays[::2], arrays[1::2], strict=True))
    actual = quick_jit(winograd.conv_relu_pool_chain)(x, layers)
    expected = quick_jit(
        lambda x, layers: functools.reduce(lambda y, layer: xla_block(y, *layer), layers, x)
    )(x, layers)
    assert actual.shape == (2, 1, 1, 2)
    assert_leaves_close(actual, expected)


@pytest.mark.parametrize(("batch", "microbatch"), [(1, 8), (7, 3), (13, 4), (5, 1), (0, 8)])
def test_the_batch_need_not_be_a_multiple_of_the_microbatch(batch, microbatch):
    x, (kernel, bias) = normal(42, batch, 4, 6, 1), parameters((1, 3))
    actual = quick_jit(functools.partial(winograd.conv_relu_pool, microbatch=microbatch))(
        x, kernel, bias
    )
    np.testing.assert_allclose(actual, quick_jit(xla_block)(x, kernel, bias), atol=1e-6)


def test_other_dtypes_are_computed_in_float32_and_get_gradients_of_their_own():
    x, (kernel, bias) = normal(42, 2, 4, 4, 1), parameters((1, 3))
    half = jnp.asarray(kernel, jnp.bfloat16)
    gradient = jax.grad(lambda k: winograd.conv_relu_pool(x, k, bias).sum())
    pooled = jax.eval_shape(winograd.conv_relu_pool, x.astype(np.uint8), half, bias)
    assert pooled.dtype == jnp.float32
    assert jax.eval_shape(gradient, half).dtype == jnp.bfloat16


def test_no_convolution_is_left_which_a_scan_would_make_ten_times_slower():
    x, arrays = normal(42, 2, 8, 8, 1), parameters((1, 3, 2))
    lowered = {
        f: jax.jit(jax.grad(lambda a, f=f: f(x, *a).sum())).lower(arrays).as_text()
        for f in (winograd.features, xla_features)
    }
    assert "convolution" in lowered[xla_features]
    assert "convolution" not in lowered[winograd.features]


def sharded_problem(count, channels):
    return normal(42, 6 * count, 4, 5, channels[0]), parameters(channels)


def whole_batch_gradients(function, count, channels):
    x, arrays = sharded_problem(count, channels)
    return quick_jit(jax.grad(lambda a: (function(x, *a) ** 2).sum()))(arrays)


def sharded_gradients(function, strategy, count, channels, *, cast):
    """The same by a scan over two microbatches of each device's shard."""
    x, arrays = sharded_problem(count, channels)
    devices = jax.devices()[:count]
    if len(devices) < count:
        pytest.skip(f"needs {count} devices")

    def local(arrays, x):
        if cast:
            arrays = jax.lax.pcast(arrays, "data", to="varying")

        def body(total, part):
            gradient = jax.grad(lambda a: (function(part, *a) ** 2).sum())(arrays)
            return jax.tree.map(jnp.add, total, gradient), None

        zeros = jax.tree.map(jnp.zeros_like, arrays)
        total, _ = jax.lax.scan(body, zeros, x.reshape(2, -1, *x.shape[1:]))
        return jax.lax.psum(total, "data") if cast else total

    if strategy == "pmap":
        shards = x.reshape(count, -1, *x.shape[1:])
        mapped = jax.pmap(local, "data", in_axes=(None, 0), out_axes=None, devices=devices)
        return mapped(arrays, shards)
    mesh = Mesh(np.array(devices), ("data",))
    mapped = jax.shard_map(
        local, mesh=mesh, in_specs=(P(), P("data")), out_specs=P(), check_vma=True
    )
    return quick_jit(mapped)(arrays, x)


@pytest.mark.parametrize(("strategy", "count"), [("shard_map", 1), ("shard_map", 8), ("pmap", 8)])
def test_local_gradients_summed_over_devices_equal_the_whole_batch(strategy, count):
    assert_leaves_close(
        sharded_gradients(winograd.conv_relu_pool, strategy, count, (2, 3), cast=True),
        whole_batch_gradients(xla_block, count, (2, 3)),
    )


def test_without_the_cast_gradients_of_replicated_kernels_come_summed_as_from_any_operation():
    assert_leaves_close(
        sharded_gradients(winograd.features, "shard_map", 8, (1, 3, 2), cast=False),
        whole_batch_gradients(xla_features, 8, (1, 3, 2)),
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, None),
        ({"image_shape": (5, 7, 3)}, None),
        ({"image_shape": (9, 2, 2, 1), "blocks": 1}, None),
        ({"image_shape": (28, 3, 1)}, "images of 28x3 leave no pixel after 2 poolings by 2"),
        ({"image_shape": (7, 8, 1), "blocks": 3}, "images of 7x8 leave no pixel after 3"),
        ({"kernel_size": (5, 5)}, "the kernels are 5x5 and only 3x3 is supported"),
        ({"dtype": "bfloat16"}, "the model computes in bfloat16 and only float32 is supported"),
    ],
)
def test_obstacle_tells_why_the_blocks_do_not_apply(arguments, reason):
    actual = winograd.obstacle(**{"image_shape": (28, 28, 1), **arguments})
    assert actual is None if reason is None else actual.startswith(reason)


def test_shapes_that_do_not_fit_are_errors_that_tell_the_repair():
    x, (kernel, bias) = np.zeros((2, 6, 6, 2), np.float32), parameters((2, 3))
    with pytest.raises(ModelError, match=r"x has shape \(6, 6, 2\); it must be \[b, h, w, c\]"):
        winograd.conv_relu_pool(x[0], kernel, bias)
    with pytest.raises(ModelError, match="leave no pixel after 2 poolings by 2; use larger images"):
        winograd.features(x[:, :3], kernel, bias, kernel, bias)
    with pytest.raises(ModelError, match=r"block 1 has kernel \(3, 3, 2, 3\).* for 1 input"):
        winograd.conv_relu_pool(x[..., :1], kernel, bias)
    with pytest.raises(ModelError, match=r"block 2 has .* must be \(3, 3, 3, k\) and \(k,\)"):
        winograd.features(x, kernel, bias, kernel, bias)
    with pytest.raises(ModelError, match=r"bias \(2,\); for 2 input channels"):
        winograd.conv_relu_pool(x, kernel, bias[:2])
    with pytest.raises(ModelError, match="microbatch is 0; it must be at least 1"):
        winograd.conv_relu_pool(x, kernel, bias, microbatch=0)
    with pytest.raises(ModelError, match="layers is empty; give the kernel and bias"):
        winograd.conv_relu_pool_chain(x, ())
