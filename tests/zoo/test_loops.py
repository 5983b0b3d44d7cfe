"""How many steps a call makes; several are refused on CPUs for models with XLA's convolution."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jaxmnist
from jaxmnist.config import apply_overrides
from jaxmnist.errors import ConfigError
from jaxmnist.mesh import data_mesh
from jaxmnist.models import make_model, model_functions
from jaxmnist.zoo import loops
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


@pytest.mark.parametrize("rows", [8, 512])
def test_batches_of_a_call_are_used_where_they_are_put(rows, monkeypatch):
    """A copy by XLA would wait until the call that is under way has ended."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, rows, 28, 28, 1), np.uint8)
    batch = {"image": images, "label": rng.integers(0, 10, (20, rows), np.int32)}
    aligned, made = loops._aligned, []
    monkeypatch.setattr(loops, "_aligned", lambda x: made.append(aligned(x)) or made[-1])
    sharding = NamedSharding(data_mesh(4), P(None, "data"))
    placed = loops.put(batch, sharding)
    shards = [s.data for x in (placed["image"], placed["label"]) for s in x.addressable_shards]
    assert [s.unsafe_buffer_pointer() for s in shards] == [x.ctypes.data for x in made]
    assert not any(x.ctypes.data % 64 for x in made)
    for name, given in batch.items():
        assert placed[name].sharding == sharding and placed[name].dtype == given.dtype
        np.testing.assert_array_equal(placed[name], given)


def test_on_accelerators_jax_lays_them(monkeypatch):
    mesh = SimpleNamespace(devices=np.array([SimpleNamespace(platform="gpu")]))
    sharding, seen = SimpleNamespace(mesh=mesh), []
    monkeypatch.setattr(jax, "device_put", lambda *args: seen.append(args) or "placed")
    assert loops.put({"image": 1}, sharding) == "placed" and seen == [({"image": 1}, sharding)]
