"""Several steps in one call are refused on CPUs for every model that runs XLA's convolution."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxmnist
from jaxmnist.errors import ConfigError
from jaxmnist.models import make_model, model_functions
from jaxmnist.zoo.loops import check_loop
from support import Tiny, small_config, small_data

DEEP = "jaxmnist.zoo.deep_cnn:DeepCNN"


def check(name, conv="xla", **kwargs):
    model = make_model(name, kwargs=kwargs, classes=10, dtype=jnp.float32, conv=conv)
    image = np.zeros((28, 28, 1), np.uint8)
    check_loop(model_functions(model, image, classes=10), image.shape, 5)


@pytest.mark.parametrize("name", ["cnn", "simple_cnn", "resnet", DEEP])
def test_models_with_the_convolution_of_xla_are_refused(name):
    text = "train.steps_per_call=5 makes XLA's convolution ten times slower .*: set it to 1, or"
    with pytest.raises(ConfigError, match=text):
        check(name)


@pytest.mark.parametrize(
    ("name", "conv"), [("mlp", "xla"), ("cnn", "winograd"), (DEEP, "winograd")]
)
def test_models_without_it_are_not(name, conv):
    check(name, conv)


def test_so_is_a_model_of_the_users_own_before_anything_is_written(tmp_path):
    keys = {"train__steps_per_call": 2}
    with pytest.raises(ConfigError, match=r"train.steps_per_call=2 makes XLA's convolution"):
        jaxmnist.train(small_config(**keys), tmp_path / "run", dataset=small_data(), model=Tiny())
    assert not (tmp_path / "run").exists()
