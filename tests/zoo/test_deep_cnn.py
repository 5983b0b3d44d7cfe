"""The deep network is the mathematics it says it is, on any devices, whatever the convolution."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmnist
from jaxmnist.mesh import replicate
from jaxmnist.models import make_model, model_functions
from jaxmnist.state import create_state, parameter_count
from jaxmnist.step import make_train_step, place_batch
from jaxmnist.testing import assert_equal_across_devices
from jaxmnist.zoo.deep_cnn import DeepCNN
from support import relative, small_batch, small_task

quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


class PlainCNN(nn.Module):
    """The same network in evaluation, as anybody would write it."""

    channels: tuple[int, ...]
    hidden: int

    @nn.compact
    def __call__(self, x):
        x = x.astype(jnp.float32) / 255
        for index, features in enumerate(self.channels):
            x = nn.relu(nn.Conv(features, (3, 3), name=f"Conv_{index}")(x))
            x = nn.avg_pool(x, (2, 2), strides=(2, 2))
            x = nn.BatchNorm(use_running_average=True, epsilon=1e-5)(x)
        x = nn.relu(nn.Dense(self.hidden)(x.reshape(x.shape[0], -1)))
        return nn.Dense(10)(x)


@pytest.mark.parametrize("conv", ["xla", "winograd"])
@pytest.mark.parametrize("shape", [(3, 9, 13, 1), (2, 8, 8, 3)])
def test_logits_equal_those_of_a_plain_network(conv, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    sizes = {"channels": (3, 5, 4), "hidden": 7}
    model = DeepCNN(conv=conv, **sizes)
    variables = jax.device_get(quick_jit(model.init)(jax.random.key(0), images))
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda v: v + rng.uniform(0, 0.2, v.shape).astype("f"), variables)
    logits = quick_jit(model.apply)(variables, images)
    plain = quick_jit(PlainCNN(**sizes).apply)(variables, images)
    assert relative(logits, plain) < 1e-5


def test_in_training_every_block_reports_its_statistics():
    model = DeepCNN(channels=(2, 3), hidden=8)
    images = np.zeros((8, 8, 8, 1), np.uint8)
    shapes = model_functions(model, images[0], classes=10).variables
    trained = functools.partial(model.apply, train=True, mutable=["batch_sums"])
    _, reports = jax.eval_shape(trained, shapes, images)
    moves = {name: part["mean"]["move"].shape for name, part in reports["batch_sums"].items()}
    assert moves == {"BatchNorm_0": (2,), "BatchNorm_1": (3,)}


@pytest.mark.slow
def test_a_step_is_the_same_on_many_devices():
    task, init = small_task(DeepCNN(channels=(2, 3), hidden=4, conv="winograd"))
    variables = jax.device_get(quick_jit(init)(jax.random.key(0)))

    def step(mesh):
        state = replicate(create_state(variables, task.tx, ema=False), mesh)
        return make_train_step(task, mesh)(state, place_batch(small_batch(), mesh))[0].params

    assert_equal_across_devices(step, devices=(1, 4))


def test_the_best_configuration_trains_this_network_of_390858_parameters():
    config = jaxmnist.get_config("best")
    kwargs = config.model.kwargs.to_dict()
    model = make_model(config.model.name, kwargs=kwargs, classes=10, dtype=jnp.float32, conv="xla")
    assert isinstance(model, DeepCNN)
    image = jax.ShapeDtypeStruct((1, 28, 28, 1), np.uint8)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    assert parameter_count(variables["params"]) == 390_858
