"""A model is found by name; one that breaks the contract of the step is refused at the start."""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmnist.errors import ConfigError, ModelError
from jaxmnist.models import CNN, BatchNorm, Dropout, make_model, model_functions
from jaxmnist.models.rows import Rows


class Linear(nn.Module):
    """A user's model without the argument `train`."""

    classes: int = 10
    width: int = 3

    @nn.compact
    def __call__(self, images):
        return nn.Dense(self.classes)(images.reshape(images.shape[0], -1) / 255)


class Layer(nn.Module):
    """A model around one layer, given as a function of its input and of `train`."""

    layer: object = None

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.Dense(10)(images.reshape(images.shape[0], -1) / 255)
        return self.layer(self, x, train)


class NoParameters(nn.Module):
    @nn.compact
    def __call__(self, images):
        return images.reshape(images.shape[0], -1)[:, :10].astype(jnp.float32)


class WithoutTrain(nn.Module):
    """Its batch norm never learns that it trains: that is Flax's own complaint."""

    @nn.compact
    def __call__(self, images):
        return BatchNorm()(nn.Dense(10)(images.reshape(images.shape[0], -1) / 255))


def functions_of(model, *, classes=10):
    return model_functions(model, np.zeros((5, 7, 1), np.uint8), classes=classes)


def stateful(module, x, train):
    count = module.variable("counters", "calls", jnp.zeros, ())
    return x + count.value


def changing(module, x, train):
    mean = module.variable("batch_stats", "mean", jnp.zeros, (10,))
    if train:
        mean.value = x.mean(0)
    return x - mean.value


class TestMakeModel:
    def test_a_name_gives_the_shipped_class_with_what_it_takes(self):
        model = make_model("cnn", kwargs={"dropout": 0.25}, classes=7, conv="xla", dtype="bfloat16")
        assert model == CNN(classes=7, dropout=0.25, conv="xla", dtype="bfloat16")

    def test_a_dotted_path_gives_the_users_class_with_the_fields_it_has(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "mine", sys.modules[__name__])
        model = make_model("mine:Linear", kwargs={"width": 5}, classes=7, conv="xla", dtype="x")
        assert model == Linear(classes=7, width=5)

    @pytest.mark.parametrize(
        ("name", "kwargs", "sentence"),
        [
            ("cmm", {}, r"model.name='cmm' is not one of cnn, .*: .* 'package.module:Class'"),
            (
                "no.such:Net",
                {},
                r"'no.such:Net' cannot be imported: ModuleNotFoundError: No module named 'no'",
            ),
            (
                "math:Net",
                {},
                r"'math:Net' cannot be imported: AttributeError: module 'math' has no attribute",
            ),
            (":Net", {}, r"':Net' cannot be imported: ValueError: Empty module name"),
            ("math:pi", {}, r"'math:pi' is 3.14\d+: it must be a flax.linen.Module class"),
            ("pathlib:Path", {}, r"is <class 'pathlib.*Path'>: it must be a flax.linen.Module cl"),
            ("cnn", {"width": 3}, r"has width, which CNN does not take: its fields are .*dropout"),
            ("cnn", {"conv": "x"}, r"model.kwargs has conv, which have keys of their own: set mod"),
            ("cnn", {"parent": 3}, r"model.kwargs has parent, which CNN does not take"),
        ],
    )
    def test_what_cannot_be_made_is_a_fault_of_the_configuration(self, name, kwargs, sentence):
        with pytest.raises(ConfigError, match=sentence):
            make_model(name, kwargs=kwargs, classes=10, conv="xla", dtype=jnp.float32)


class TestModelFunctions:
    def test_a_model_without_train_is_called_without(self):
        functions = functions_of(Linear())
        variables = functions.init(jax.random.key(0))
        images = np.full((3, 5, 7, 1), 9, np.uint8)
        fed = Rows(jnp.arange(3), jnp.ones(3, bool), jax.random.key(0))
        for rows in (None, fed):
            logits, reports = functions.apply(variables["params"], {}, images, rows)
            assert logits.shape == (3, 10)
            assert reports == {}
        assert set(functions.variables) == {"params"}

    def test_rows_decide_whether_the_model_trains(self):
        functions = functions_of(Layer(lambda _, x, train: x * 0 + train))
        params = functions.init(jax.random.key(0))["params"]
        images = np.zeros((3, 5, 7, 1), np.uint8)
        fed = Rows(jnp.arange(3), jnp.ones(3, bool), jax.random.key(0))
        assert functions.apply(params, {}, images, fed)[0].all()
        assert not functions.apply(params, {}, images, None)[0].any()

    def test_the_librarys_own_layers_pass(self):
        def layers(module, x, train):
            x = BatchNorm(parent=module)(x, use_running_average=not train)
            return Dropout(0.5, parent=module)(x, deterministic=not train)

        functions = functions_of(Layer(layers))
        assert set(functions.variables) == {"params", "batch_stats"}
        assert set(functions.init(jax.random.key(0))) == {"params", "batch_stats"}

    def test_logits_are_float32_whatever_the_model_computes_in(self):
        functions = functions_of(Layer(lambda _, x, train: x.astype(jnp.bfloat16)))
        params = functions.init(jax.random.key(0))["params"]
        logits, _ = functions.apply(params, {}, np.zeros((3, 5, 7, 1), np.uint8), None)
        assert logits.dtype == jnp.float32

    @pytest.mark.parametrize(
        ("model", "sentence"),
        [
            (
                Layer(lambda m, x, train: nn.Dropout(0.5, parent=m)(x, deterministic=not train)),
                r"flax.linen.Dropout gives results that depend on the number of devices: use "
                r"jaxmnist.models.Dropout, which takes the same arguments",
            ),
            (
                Layer(lambda m, x, train: nn.BatchNorm(not train, parent=m)(x)),
                r"flax.linen.BatchNorm .* number of devices: use jaxmnist.models.BatchNorm",
            ),
            (
                Layer(lambda m, x, train: x + jax.random.normal(m.make_rng("noise"), (10,))),
                r"model Layer draws random numbers through make_rng.*jaxmnist.models.row_keys",
            ),
            (
                Layer(stateful),
                r"model Layer keeps the collections counters: only params and batch_stats can",
            ),
            (
                Layer(changing),
                r"changes variables of its own while training: only .*jaxmnist.models.BatchNorm",
            ),
            (NoParameters(), "model NoParameters has no parameters: there is nothing to train"),
            (
                Linear(classes=11),
                r"model Linear gives logits of shape \(8, 11\) for 8 images of 10 classes: "
                r"\(8, 10\) is expected; check its last layer",
            ),
            (
                Layer(lambda m, x, train: x[None] if train else x),
                r"gives logits of shape \(1, 8, 10\) for 8 images",
            ),
            (
                Layer(lambda m, x, train: x @ jnp.ones((3, 10))),
                r"model Layer fails on images uint8 \(8, 5, 7, 1\): TypeError: dot_general",
            ),
            (WithoutTrain(), r"model WithoutTrain fails on images .*use_running_average"),
        ],
    )
    def test_a_model_that_breaks_the_contract_is_refused_with_the_reason(self, model, sentence):
        with pytest.raises(ModelError, match=sentence):
            functions_of(model)
