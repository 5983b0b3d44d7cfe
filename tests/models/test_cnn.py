"""The shipped CNN is the mathematics it says it is: an independent NumPy computation agrees."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmnist.metrics import cross_entropy
from jaxmnist.models import CNN, model_functions
from jaxmnist.state import create_state, parameter_count
from jaxmnist.step.body import Batch, Part, Task, local_sums
from support import bits_equal, relative

ROWS = 17
IMAGES = jax.ShapeDtypeStruct((1, 28, 28, 1), np.uint8)


class PlainCNN(nn.Module):
    """The same network as anybody would write it."""

    @nn.compact
    def __call__(self, x):
        x = x.astype(jnp.float32) / 255
        for features in (32, 64):
            x = nn.relu(nn.Conv(features, (3, 3))(x))
            x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(nn.Dense(256)(x.reshape(x.shape[0], -1)))
        return nn.Dense(10)(x)


# ---- The network in NumPy, float64: each function returns its value and its transposed derivative.


def numpy_conv(x, kernel, bias):
    h, w = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = {(i, j): padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)}
    y = bias + sum(windows[i, j] @ kernel[i, j] for i, j in windows)

    def back(dy):
        dkernel, dpadded = np.zeros_like(kernel), np.zeros_like(padded)
        for i, j in windows:
            dkernel[i, j] = np.tensordot(windows[i, j], dy, axes=((0, 1, 2), (0, 1, 2)))
            dpadded[:, i : i + h, j : j + w] += dy @ kernel[i, j].T
        return dpadded[:, 1:-1, 1:-1], {"kernel": dkernel, "bias": dy.sum((0, 1, 2))}

    return y, back


def numpy_relu(x):
    return np.maximum(x, 0), lambda dy: dy * (x > 0)


def numpy_pool(x):
    y = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
    return y, lambda dy: dy.repeat(2, axis=1).repeat(2, axis=2) / 4


def numpy_dense(x, kernel, bias):
    return x @ kernel + bias, lambda dy: (dy @ kernel.T, {"kernel": x.T @ dy, "bias": dy.sum(0)})


def numpy_loss(logits, labels):
    """Mean cross-entropy and its gradient."""
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = shifted / shifted.sum(1, keepdims=True)
    rows = np.arange(len(labels))
    target = np.zeros_like(logits)
    target[rows, labels] = 1
    loss = -np.log(probabilities[rows, labels]).mean()
    return loss, (probabilities - target) / len(labels)


def numpy_loss_and_gradient(params, images, labels):
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    x, backs = images / 255.0, {}
    for layer in ("Conv_0", "Conv_1"):
        x, back_conv = numpy_conv(x, **params[layer])
        x, back_relu = numpy_relu(x)
        x, back_pool = numpy_pool(x)
        backs[layer] = back_conv, back_relu, back_pool
    trunk_shape = x.shape
    hidden, back_first = numpy_dense(x.reshape(len(x), -1), **params["Dense_0"])
    active, back_relu = numpy_relu(hidden)
    logits, back_last = numpy_dense(active, **params["Dense_1"])
    loss, dx = numpy_loss(logits, labels)
    gradient = {}
    dx, gradient["Dense_1"] = back_last(dx)
    dx, gradient["Dense_0"] = back_first(back_relu(dx))
    dx = dx.reshape(trunk_shape)
    for layer in ("Conv_1", "Conv_0"):
        conv, relu, pool = backs[layer]
        dx, gradient[layer] = conv(relu(pool(dx)))
    return loss, gradient


# ---- The library's own.


@functools.cache
def sums_of(conv):
    """The step's sums of loss and gradient for the shipped CNN, compiled."""
    functions = model_functions(CNN(conv=conv), np.zeros((28, 28, 1), np.uint8), classes=10)
    task = Task(
        apply=functions.apply,
        loss=cross_entropy,
        tx=optax.sgd(0.1),
        schedule=optax.constant_schedule(0.1),
        seed=0,
    )

    @jax.jit
    def compute(params, batch):
        state = create_state({"params": params}, task.tx, ema=False)
        return local_sums(task, state, batch, Part())

    return compute


def logits_of(model, params, batch, **kwargs):
    return jax.jit(lambda p, x: model.apply({"params": p}, x, **kwargs))(params, batch.image)


@pytest.fixture(scope="module")
def batch(mnist):
    index = np.random.default_rng(0).permutation(len(mnist.train))[:ROWS]
    images, labels = mnist.train.images[index], mnist.train.labels[index]
    return Batch(image=images, label=labels, mask=np.ones(ROWS, bool))


@pytest.fixture(scope="module")
def params():
    """Kernels of the size of initial ones, and biases that are not zero as they are at first."""
    shapes = jax.eval_shape(CNN().init, jax.random.key(0), IMAGES)["params"]
    rng = np.random.default_rng(1)

    def draw(p):
        scale = 0.1 if p.ndim == 1 else np.prod(p.shape[:-1]) ** -0.5
        return rng.normal(0, scale, p.shape).astype(np.float32)

    return jax.tree.map(draw, shapes)


@pytest.mark.parametrize("conv", ["xla", "winograd"])
@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_loss_and_every_gradient_leaf_agree_with_numpy(batch, params, conv, bias):
    params = jax.tree.map(lambda p: p * np.float32(bias) if p.ndim == 1 else p, params)
    sums = sums_of(conv)(params, batch)
    loss, gradient = numpy_loss_and_gradient(params, batch.image, batch.label)
    assert float(sums.metrics.count) == ROWS
    assert float(sums.metrics.loss) / ROWS == pytest.approx(loss, rel=1e-4)
    mean = jax.tree.map(lambda g: np.asarray(g) / ROWS, sums.gradient)
    worst = jax.tree.map(relative, mean, gradient)
    assert jax.tree.structure(mean) == jax.tree.structure(gradient)
    assert max(jax.tree.leaves(worst)) < 1e-4, worst


def test_the_network_of_the_blog_post_has_824458_parameters():
    functions = model_functions(CNN(), np.zeros((28, 28, 1), np.uint8), classes=10)
    assert parameter_count(functions.variables["params"]) == 824_458


@pytest.mark.parametrize("conv", ["xla", "winograd"])
def test_other_sizes_and_classes_shape_only_the_dense_layers(conv):
    functions = model_functions(
        CNN(classes=7, conv=conv), np.zeros((21, 26, 3), np.uint8), classes=7
    )
    shapes = jax.tree.map(lambda p: p.shape, functions.variables["params"])
    assert shapes["Conv_0"] == {"kernel": (3, 3, 3, 32), "bias": (32,)}
    assert shapes["Conv_1"] == {"kernel": (3, 3, 32, 64), "bias": (64,)}
    assert shapes["Dense_0"] == {"kernel": (5 * 6 * 64, 256), "bias": (256,)}
    assert shapes["Dense_1"] == {"kernel": (256, 7), "bias": (7,)}


def test_parameters_are_initialised_as_those_of_plain_flax():
    models = (PlainCNN(), CNN(conv="xla"), CNN(conv="winograd"))

    # Without XLA's optimisations, whose compilation takes ten times as long as this test.
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def init(key):
        return [model.init(key, jnp.zeros((1, 12, 8, 1), jnp.uint8)) for model in models]

    plain, *ours = init(jax.random.key(3))
    assert all(bits_equal(variables, plain) for variables in ours)


def test_logits_are_those_of_plain_flax(batch, params):
    assert relative(logits_of(CNN(), params, batch), logits_of(PlainCNN(), params, batch)) < 1e-5


def test_bfloat16_computes_in_bfloat16_between_float32_parameters_and_logits(batch, params):
    model = CNN(dtype=jnp.bfloat16)
    logits, layers = logits_of(model, params, batch, capture_intermediates=True)
    assert logits.dtype == jnp.float32
    assert layers["intermediates"]["Dense_0"]["__call__"][0].dtype == jnp.bfloat16
    assert 1e-4 < relative(logits, logits_of(CNN(), params, batch)) < 3e-2
    fresh = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    assert {p.dtype for p in jax.tree.leaves(fresh)} == {jnp.dtype(jnp.float32)}


def test_float_images_in_0_to_1_are_taken_as_they_are(batch, params):
    floats = batch._replace(image=batch.image.astype(np.float32) / 255)
    assert relative(logits_of(CNN(), params, floats), logits_of(CNN(), params, batch)) < 1e-6
