"""How many steps a call makes; several are refused on CPUs for models with XLA's convolution."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmnist
from jaxmnist.config import apply_overrides
from jaxmnist.errors import ConfigError
from jaxmnist.models import make_model, model_functions
from jaxmnist.zoo.loops import steps_per_call
from support import Tiny, small_config, small_data

DEEP = "jaxmnist.zoo.deep_cnn:DeepCNN"


def choose(name, conv="xla", *, steps=100, on_cpu=True, callbacks=False, **keys):
    model = make_model(name, kwargs={}, classes=10, dtype=jnp.float32, conv=conv)
    functions = model_functions(model, np.zeros((28, 28, 1), np.uint8), classes=10)
    config = apply_overrides(jaxmnist.get_config(), keys)
    facts = {"steps": steps, "on_cpu": on_cpu, "callbacks": callbacks}
    return steps_per_call(config, functions, (28, 28, 1), conv=conv, **facts)


def check(name, conv="xla"):
    assert choose(name, conv, **{"train.steps_per_call": "5"}) == 5


@pytest.mark.parametrize("name", ["cnn", "simple_cnn", "resnet", DEEP])
def test_models_with_the_convolution_of_xla_are_refused(name):
    text = "train.steps_per_call=5 makes XLA's convolution ten times slower .*: set it to 1, or"
    with pytest.raises(ConfigError, match=text):
        check(name)


@pytest.mark.parametrize(("batch", "steps"), [(64, 20), (256, 20), (1000, 5), (8192, 1)])
def test_a_call_is_chosen_to_hold_some_thousand_examples(batch, steps):
    assert choose("cnn", "winograd", batch_size=str(batch)) == steps


@pytest.mark.parametrize(
    "facts",
    [
        {"on_cpu": False},
        {"callbacks": True},
        {"steps": 10**9},
        {"conv": "xla"},
        {"parallel.deterministic": "True"},
        {"train.steps_per_call": "1"},
    ],
)
def test_one_step_a_call_is_chosen_where_several_are_of_no_use(facts):
    assert choose(**{"name": "cnn", "conv": "winograd"} | facts) == 1


def test_a_model_with_another_convolution_of_xla_makes_one_step_a_call():
    class Both(nn.Module):
        @nn.compact
        def __call__(self, images):
            x = nn.Conv(2, (5, 5))(images).mean(axis=(1, 2))
            return nn.Dense(10)(x)

    functions = model_functions(Both(), np.zeros((28, 28, 1), np.uint8), classes=10)
    facts = {"conv": "winograd", "steps": 100, "on_cpu": True, "callbacks": False}
    assert steps_per_call(jaxmnist.get_config(), functions, (28, 28, 1), **facts) == 1


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
