"""The small network is the mathematics it says it is, whatever the image size and convolution."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmnist
from jaxmnist.mesh import replicate
from jaxmnist.metrics import cross_entropy
from jaxmnist.models import make_model
from jaxmnist.state import create_state, parameter_count
from jaxmnist.step import make_train_step, place_batch
from jaxmnist.testing import assert_equal_across_devices
from jaxmnist.zoo.small_cnn import SmallCNN
from support import relative, small_batch, small_task

quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


class PlainCNN(nn.Module):
    """The same network as anybody would write it, on images that have lost their margin."""

    channels: tuple[int, int]
    hidden: int

    @nn.compact
    def __call__(self, x):
        x = x.astype(jnp.float32) / 255
        for features in self.channels:
            x = nn.relu(nn.Conv(features, (3, 3))(x))
            x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(nn.Dense(self.hidden)(x.reshape(x.shape[0], -1)))
        return nn.Dense(10)(x)


def digits(*shape):
    """Random images with a blank frame, where relu has ties."""
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    images[:, 0] = images[:, -1] = 0
    return images


def initial_params(model, images):
    """Kernels as they are at first, and biases that are not zero."""
    params = quick_jit(model.init)(jax.random.key(0), images)["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda p: p if p.ndim > 1 else rng.normal(0, 0.1, p.shape).astype(np.float32), params
    )


def loss_and_gradient(model, params, images):
    labels = np.arange(len(images)) % 10

    @quick_jit
    @jax.value_and_grad
    def loss(params):
        return cross_entropy(model.apply({"params": params}, images), labels).mean()

    return loss(params)


@pytest.mark.parametrize("conv", ["xla", "winograd"])
@pytest.mark.parametrize(
    ("shape", "kept"),
    [
        ((9, 13, 11, 1), (slice(4, -4), slice(3, -3))),  # to 5×5: not below 4, and odd
        ((3, 4, 5, 3), (slice(None), slice(None))),  # nothing to spare; colour
    ],
)
def test_loss_and_every_gradient_equal_a_plain_network_on_the_inner_pixels(conv, shape, kept):
    images, sizes = digits(*shape), {"channels": (3, 5), "hidden": 7}
    model = SmallCNN(conv=conv, **sizes)
    params = initial_params(model, images)
    inner = images[:, kept[0], kept[1]]
    loss, gradient = loss_and_gradient(model, params, images)
    plain_loss, plain_gradient = loss_and_gradient(PlainCNN(**sizes), params, inner)
    assert float(loss) == pytest.approx(float(plain_loss), rel=1e-6)
    worst = jax.tree.map(relative, gradient, plain_gradient)
    assert max(jax.tree.leaves(worst)) < 1e-5, worst


def test_pixels_of_the_margin_change_nothing_and_the_next_ones_do():
    images = digits(2, 28, 28, 1)
    model = SmallCNN(channels=(2, 2), hidden=8)
    apply = quick_jit(lambda x: model.apply(variables, x))
    variables = quick_jit(model.init)(jax.random.key(0), images)
    for distance, changes in ((3, False), (4, True)):
        other = images.copy()
        other[:, distance] = 255 - other[:, distance]
        assert bool((apply(other) != apply(images)).any()) is changes


@pytest.mark.slow
def test_a_step_is_the_same_on_many_devices():
    task, init = small_task(SmallCNN(channels=(2, 3), hidden=4, margin=1, conv="winograd"))
    variables = jax.device_get(quick_jit(init)(jax.random.key(0)))

    def step(mesh):
        state = replicate(create_state(variables, task.tx, ema=False), mesh)
        return make_train_step(task, mesh)(state, place_batch(small_batch(), mesh))[0].params

    assert_equal_across_devices(step, devices=(1, 4))


def test_the_speedrun_trains_this_network_of_108618_parameters():
    config = jaxmnist.get_config("speedrun")
    kwargs = config.model.kwargs.to_dict()
    model = make_model(config.model.name, kwargs=kwargs, classes=10, dtype=jnp.float32, conv="xla")
    assert isinstance(model, SmallCNN)
    image = jax.ShapeDtypeStruct((1, 28, 28, 1), np.uint8)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    assert parameter_count(variables["params"]) == 108_618
