"""Overrides: arguments in any order, text typed by its key, every fault at once."""

import pytest

from jaxmnist.config import apply_overrides, default_config, get_config
from jaxmnist.config.values import flatten
from jaxmnist.errors import ConfigError


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("batch_size", "64", 64),
        ("batch_size", "1e3", 1000),
        ("batch_size", "1_024", 1024),
        ("train.examples", "1e5", 100_000),
        ("train.epochs", "0.5", 0.5),
        ("train.epochs", "3", 3),
        ("train.ema_decay", ".99", 0.99),
        ("train.ema_decay", "None", None),
        ("optimizer.learning_rate", "1", 1.0),
        ("optimizer.learning_rate", "1e-3", 1e-3),
        ("parallel.deterministic", "true", True),
        ("parallel.deterministic", "False", False),
        ("parallel.devices", "null", None),
        ("dataset.dir", "some where/x=y", "some where/x=y"),
        ("dataset.dir", "none", None),
        ("model.name", "3", "3"),
        ("log.every", "5", 5),
        ("log.every", "1e3", 1000),
        ("eval.every", "0.5 epochs", "0.5 epochs"),
        ("optimizer.kwargs", "{'b1': 0.8}", {"b1": 0.8}),
        ("optimizer.kwargs.b1", "0.8", {"b1": 0.8}),
        ("model.kwargs.widths", "(3, 5)", {"widths": (3, 5)}),
        ("model.kwargs.widths", "[3, 5]", {"widths": [3, 5]}),
        ("model.kwargs.pool", "max", {"pool": "max"}),
        ("model.kwargs.use_bias", "false", {"use_bias": False}),
        ("model.kwargs.use_bias", "none", {"use_bias": None}),
        ("model.kwargs.a", "{'b': 1}", {"a": {"b": 1}}),
    ],
)
def test_text_is_read_as_the_type_of_its_key(key, text, value):
    config = apply_overrides(default_config(), {key: text})
    name = ".".join(key.split(".")[:2])
    found = flatten(config.to_dict())[name]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "text", "sentence"),
    [
        ("batch_size", "abc", "batch_size = 'abc' must be an integer >= 1, such as 256"),
        ("batch_size", "1.5", "batch_size = 1.5 must be an integer"),
        ("batch_size", "", "batch_size = '' must be an integer"),
        ("batch_size", "None", "batch_size = None must be an integer"),
        ("batch_size", "-5", "batch_size = -5 must be an integer >= 1"),
        ("batch_size", "1e999999999", "batch_size = inf must be an integer"),
        ("optimizer.learning_rate", "fast", "'fast' must be a number > 0, such as 0.004"),
        ("optimizer.learning_rate", "inf", "'inf' must be a number > 0"),
        ("parallel.deterministic", "maybe", "'maybe' must be true or false, such as False"),
        ("model.name", "None", "model.name = None must be a string .*, such as 'cnn'"),
        ("parallel.strategy", "Pmap", "'Pmap' must be one of"),
        ("log.every", "often", "log.every = 'often' must be a duration"),
        ("optimizer.kwargs", "0.9", "optimizer.kwargs = 0.9 must be a dict .*such as {'b1'"),
        ("optimizer.kwargs", "{'a.b': 1}", "optimizer.kwargs = .* must be a dict of JSON values"),
        ("optimizer.kwargs.b1", "{1, 2}", "optimizer.kwargs = .* must be a dict of JSON values"),
        ("optimizer.kwarg.b1", "1", "no key 'optimizer.kwarg.b1'; did you mean 'optimizer.kwargs"),
        ("optimizer.kwargs.", "1", "no key 'optimizer.kwargs.'"),
        ("optimizer.kwargs.a.b", "1", "no key 'optimizer.kwargs.a.b'"),
        ("trian.steps", "1", "no key 'trian.steps'; did you mean 'train.steps'"),
        ("learning_rate", "1", "no key 'learning_rate'; did you mean 'optimizer.learning_rate'"),
        ("keep", "1", "no key 'keep'; did you mean 'checkpoint.keep'"),
        ("train", "1", "'train' is a group of keys; set one of them: train.epochs, train.steps"),
        ("zzz", "1", "no key 'zzz'; the command `jaxmnist config` prints all keys"),
    ],
)
def test_each_fault_names_the_text_the_rule_and_an_example(key, text, sentence):
    with pytest.raises(ConfigError, match=sentence) as raised:
        apply_overrides(default_config(), {key: text})
    assert len(raised.value.faults) == 1


def test_all_faults_come_at_once_with_those_of_the_configuration():
    wrong = {"batch_sise": "3", "seed": "x", "checkpoint.keep": "0", "model.name": "none"}
    with pytest.raises(ConfigError, match="4 faults") as raised:
        apply_overrides(default_config(), wrong)
    assert [fault.split(" = ")[0] for fault in raised.value.faults] == [
        "there is no key 'batch_sise'; did you mean 'batch_size'?",
        "seed",
        "model.name",
        "checkpoint.keep",
    ]


def test_the_configuration_given_is_not_changed():
    config = default_config()
    config.model.kwargs = {"deep": {"a": 1}}
    config.optimizer.kwargs = {"b": [1]}
    changed = apply_overrides(config, {"model.kwargs.wide": "2", "seed": "3"})
    assert (changed.seed, config.seed) == (3, 0)
    assert changed.model.kwargs.to_dict() == {"deep": {"a": 1}, "wide": 2}
    assert config.model.kwargs.to_dict() == {"deep": {"a": 1}}
    changed.optimizer.kwargs.b.append(2)
    assert config.optimizer.kwargs.b == [1]


@pytest.mark.parametrize("name", ["epochs", "steps", "examples"])
@pytest.mark.parametrize("base", ["default", "debug"])
def test_setting_one_length_of_training_clears_the_other_two(name, base):
    config = apply_overrides(get_config(base), {f"train.{name}": "9"})
    lengths = {key: config.train[key] for key in ("epochs", "steps", "examples")}
    assert lengths == {"epochs": None, "steps": None, "examples": None} | {name: 9}


def test_setting_two_lengths_of_training_is_a_fault():
    both = {"train.epochs": "3", "train.examples": "60"}
    with pytest.raises(ConfigError, match=r"train.epochs = 3 and train.examples = 60 are set as"):
        apply_overrides(default_config(), both)


def test_a_length_that_cannot_be_read_does_not_hide_the_other():
    both = {"train.steps": "x", "train.epochs": "3"}
    with pytest.raises(ConfigError) as raised:
        apply_overrides(get_config("debug"), both)
    assert len(raised.value.faults) == 1


def test_a_free_key_in_what_is_no_dict_is_a_fault():
    wrong = {"optimizer.kwargs": "3", "optimizer.kwargs.b1": "0.8"}
    with pytest.raises(ConfigError, match=r"optimizer.kwargs = 3 must be a dict"):
        apply_overrides(default_config(), wrong)


def test_free_keys_apply_in_order():
    first = {"optimizer.kwargs.b1": "0.8", "optimizer.kwargs": "{'b2': 0.9}"}
    assert apply_overrides(default_config(), first).optimizer.kwargs.to_dict() == {"b2": 0.9}
    second = dict(reversed(first.items()))
    both = apply_overrides(default_config(), second).optimizer.kwargs.to_dict()
    assert both == {"b2": 0.9, "b1": 0.8}
