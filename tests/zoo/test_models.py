"""The models that ship are what they say they are, for any image size, channels and dtype."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmnist.errors import ConfigError, ModelError
from jaxmnist.models import make_model, model_functions
from jaxmnist.state import parameter_count

quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def functions(name, shape=(28, 28, 1), *, classes=10, dtype=jnp.float32, **kwargs):
    model = make_model(name, kwargs=kwargs, classes=classes, dtype=dtype, conv="xla")
    return model_functions(model, np.zeros(shape, np.uint8), classes=classes)


@pytest.mark.parametrize(
    ("name", "kwargs", "count"),
    [
        ("mlp", {}, 535_818),
        ("simple_cnn", {"kernel": 3}, 1_124_170),
        ("simple_cnn", {}, 1_128_170),
        # The paper's own: no bias, and batch norm of the logits.
        ("simple_cnn", {"kernel": 5, "norm_logits": True}, 1_128_180),
        ("simple_cnn", {"kernel": 7}, 2_291_962),
        ("resnet", {}, 77_754),
        ("resnet", {"blocks": 3}, 272_186),
    ],
)
def test_each_has_the_parameters_that_its_docstring_says(name, kwargs, count):
    assert parameter_count(functions(name, **kwargs).variables["params"]) == count


@pytest.mark.parametrize(("name", "side"), [("mlp", 4), ("resnet", 4), ("simple_cnn", 21)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_any_size_that_fits_colour_and_both_dtypes_train(name, side, dtype):
    """A trial of the contract: logits in training and evaluation, no array is made."""
    for shape in ((side, side, 1), (side + 10, side + 3, 3)):
        found = functions(name, shape, classes=7, dtype=jnp.dtype(dtype))
        assert {x.dtype for x in jax.tree.leaves(found.variables)} == {np.dtype(np.float32)}


class PlainM3(nn.Module):
    """M3 with one layer less, as anybody would write it, evaluated with fresh statistics."""

    @nn.compact
    def __call__(self, x):
        x = x.astype(jnp.float32) / 127.5 - 1
        for features in (3, 4):
            x = nn.Conv(features, (3, 3), padding="VALID", use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
        x = nn.Dense(10, use_bias=False)(x.reshape(x.shape[0], -1))
        return nn.BatchNorm(use_running_average=True)(x)


def test_the_simple_cnn_equals_a_plain_one():
    images = np.random.default_rng(0).integers(0, 256, (5, 9, 7, 3), dtype=np.uint8)
    arguments = {"kernel": 3, "channels": [3, 4], "norm_logits": True}
    model = make_model("simple_cnn", kwargs=arguments, classes=10)
    variables = quick_jit(PlainM3().init)(jax.random.key(0), images)
    expected = quick_jit(PlainM3().apply)(variables, images)
    found = quick_jit(model.apply)(variables, images)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected) > 0.1


class PlainResNet(nn.Module):
    """Two stages of one block, written out."""

    @nn.compact
    def __call__(self, x):
        def conv(features, side, strides=1):
            return nn.Conv(features, (side, side), strides=strides, use_bias=False)

        def norm(x):
            return nn.BatchNorm(use_running_average=True)(x)

        x = nn.relu(norm(conv(3, 3)(x.astype(jnp.float32) / 255)))
        y = nn.relu(norm(conv(3, 3)(x)))
        x = nn.relu(x + norm(conv(3, 3)(y)))
        y = nn.relu(norm(conv(4, 3, 2)(x)))
        y = norm(conv(4, 3)(y))
        x = nn.relu(norm(conv(4, 1, 2)(x)) + y)
        return nn.Dense(10)(x.mean((1, 2)))


def test_the_resnet_equals_a_plain_one():
    images = np.random.default_rng(0).integers(0, 256, (5, 9, 7, 1), dtype=np.uint8)
    model = make_model("resnet", kwargs={"channels": (3, 4)}, classes=10)
    variables = quick_jit(PlainResNet().init)(jax.random.key(0), images)
    expected = quick_jit(PlainResNet().apply)(variables, images)
    np.testing.assert_allclose(quick_jit(model.apply)(variables, images), expected, atol=1e-5)
    assert np.ptp(expected) > 0.1


@pytest.mark.parametrize(
    ("shape", "kwargs", "sentence"),
    [
        (
            (8, 30, 1),
            {},
            "simple_cnn: 5 convolutions 5×5 without padding need images of 21 pixels a side, these "
            "have 8×30, on which 1 fit: set model.kwargs.channels to no more numbers, or choose",
        ),
        ((24, 24, 1), {"kernel": 7}, "4 convolutions 7×7 .* images of 25 pixels .* on which 3 fit"),
        ((28, 28, 1), {"kernel": 4}, "kernel=4 of simple_cnn has no channels: .* 3, 5, 7, or give"),
        ((28, 28, 1), {"kernel": "5"}, "model.kwargs.kernel='5' of simple_cnn has no channels"),
    ],
)
def test_what_does_not_fit_is_one_sentence(shape, kwargs, sentence):
    with pytest.raises(ModelError, match=sentence) as raised:
        functions("simple_cnn", shape, **kwargs)
    assert "\n" not in str(raised.value)


def test_a_name_that_is_none_lists_those_that_are():
    with pytest.raises(ConfigError, match="'alexnet' is not one of cnn, mlp, resnet, simple_cnn"):
        make_model("alexnet")
