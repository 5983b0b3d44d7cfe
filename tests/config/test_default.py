"""The default: every key is commented, accepted by its own rule, and written in one place."""

import subprocess
import sys

import pytest

from jaxmnist.config import default_config, get_config, to_text, validate
from jaxmnist.config.default import KEYS
from jaxmnist.config.values import flatten
from jaxmnist.errors import ConfigError


@pytest.mark.parametrize("name", KEYS)
def test_each_default_obeys_its_own_rule(name):
    assert KEYS[name].rule.allows(KEYS[name].default)


@pytest.mark.parametrize("name", [n for n in KEYS if KEYS[n].example])
def test_each_example_is_a_value_that_a_user_can_type(name):
    key = KEYS[name]
    assert key.rule.allows(key.rule.read(key.example.strip("'")))


def test_each_key_has_a_comment_that_a_reader_can_use():
    blocks = [block.splitlines() for block in to_text(default_config()).strip().split("\n\n")]
    assert [lines[-1].split(" = ")[0] for lines in blocks] == [f"config.{name}" for name in KEYS]
    for *comment, _ in blocks:
        assert comment and all(line.startswith("# ") for line in comment)
        assert comment[-1].endswith(".")
    assert blocks[2][0].startswith("# Length of training in passes")
    assert len(blocks[2]) == 3


def test_the_default_has_every_key_and_is_valid():
    config = default_config()
    assert flatten(config.to_dict()) == {name: key.default for name, key in KEYS.items()}
    validate(config)


def test_a_new_key_in_python_is_a_fault_but_kwargs_are_free():
    config = default_config()
    config.batch_sise = 3
    config.train.stepz = 3
    with pytest.raises(ConfigError, match=r"2 faults:(.|\n)*'batch_size'(.|\n)*'train.steps'"):
        validate(config)
    with pytest.raises(AttributeError, match='Did you mean "train"'):
        config.trian.steps = 3
    config = default_config()
    config.optimizer.kwargs.b1 = 0.8
    config.model.kwargs = {"widths": (3, 5)}
    assert config.optimizer.kwargs.to_dict() == {"b1": 0.8}
    assert config.model.kwargs.to_dict() == {"widths": (3, 5)}


def test_a_key_that_is_none_takes_values_of_its_type_and_none_again():
    config = default_config()
    config.train.steps = 60
    config.train.epochs = None
    config.train.ema_decay = 0.5
    config.train.ema_decay = None
    config.train.epochs = 2.5
    config.eval.every = 7
    config.eval.every = "3 epochs"
    assert (config.train.steps, config.train.epochs, config.train.ema_decay) == (60, 2.5, None)
    for section, key, wrong in [
        (config.train, "steps", "60"),
        (config.train, "ema_decay", "x"),
        (config.log, "every", 2.5),
        (config, "batch_size", 2.5),
    ]:
        with pytest.raises(TypeError, match=key):
            section[key] = wrong


def test_two_configurations_share_nothing():
    first = default_config()
    first.optimizer.kwargs.b1 = 0.8
    first.train.steps = 3
    assert default_config() == get_config()
    assert get_config().train.steps is None
    assert not default_config().optimizer.kwargs


def test_configuring_imports_neither_jax_nor_numpy():
    code = (
        "import sys, jaxmnist.config as c\n"
        "c.validate(c.get_config('seed'))\n"
        "heavy = {'jax', 'numpy', 'flax', 'optax', 'grain', 'orbax'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
