"""Configurations by name and path: shipped ones are valid, a file fails in one sentence."""

import shutil
from pathlib import Path

import pytest

import jaxmnist.config.load as load
from jaxmnist.config import default_config, get_config, validate
from jaxmnist.config.load import shipped_configs
from jaxmnist.config.values import flatten
from jaxmnist.errors import ConfigError

START = "from jaxmnist.config import default_config\ndef get_config():\n  c = default_config()\n"


@pytest.fixture
def mine(tmp_path):
    """Returns a function that writes a config file and gives its path."""
    path = tmp_path / "mine.py"

    def write(text):
        path.write_text(text)
        return path

    return write


def changes(config):
    values, normal = flatten(config.to_dict()), flatten(default_config().to_dict())
    return {name: value for name, value in values.items() if value != normal[name]}


@pytest.mark.parametrize("name", ["best", "debug", "default", "seed", "speedrun"])
def test_a_shipped_configuration_is_valid_and_has_a_run_card(name):
    validate(get_config(name))
    card = shipped_configs()[name].read_text().split('"""')[1]
    assert f"Command: jaxmnist train --config={name}" in card or name == "default"
    assert "Run:" in card


def test_the_shipped_configurations_are_these():
    assert list(shipped_configs()) == ["best", "debug", "default", "seed", "speedrun"]
    assert changes(get_config("default")) == {}
    assert changes(get_config("seed")) == {
        "batch_size": 64,
        "train.epochs": 10,
        "optimizer.learning_rate": 1e-3,
        "schedule.name": "constant",
    }
    debug = changes(get_config("debug"))
    assert (debug["train.epochs"], debug["train.steps"]) == (None, 60)
    assert debug["optimizer.kwargs"] == {"momentum": 0.9}


def test_an_installed_package_carries_its_configurations_inside(tmp_path, monkeypatch):
    package = tmp_path / "site" / "jaxmnist"
    (package / "config").mkdir(parents=True)
    monkeypatch.setattr(load, "__file__", str(package / "config" / "load.py"))
    assert shipped_configs() == {}
    shutil.copytree(Path(__file__).parents[2] / "configs", package / "configs")
    assert shipped_configs()["seed"] == package / "configs" / "seed.py"
    assert get_config("seed").batch_size == 64


def test_a_file_of_ones_own_is_a_delta_on_the_default(mine):
    path = mine(START + "  c.batch_size = 61\n  c.model.kwargs.a = (1, 2)\n  return c\n")
    config = get_config(path)
    assert changes(config) == {"batch_size": 61, "model.kwargs": {"a": (1, 2)}}
    assert changes(get_config(str(path))) == changes(config)


def test_a_file_that_fills_its_own_configdict_gets_the_other_keys_by_default(mine):
    text = "from ml_collections import ConfigDict\ndef get_config():\n  return ConfigDict({})\n"
    assert changes(get_config(mine(text))) == {}
    text = text.replace("{}", "{'train': {'steps': 7}, 'optimizer': {'name': 'sgd'}}")
    assert changes(get_config(mine(text))) == {
        "train.epochs": None,
        "train.steps": 7,
        "optimizer.name": "sgd",
    }


def test_a_file_that_sets_one_length_of_training_clears_the_default_one(mine):
    config = get_config(mine(START + "  c.train.steps = 7\n  return c\n"))
    assert changes(config) == {"train.epochs": None, "train.steps": 7}
    validate(config)


def test_a_file_that_sets_two_lengths_of_training_is_at_fault(mine):
    path = mine(START + "  c.train.steps = 7\n  c.train.epochs = 3\n  return c\n")
    with pytest.raises(ConfigError, match=r"mine.py: train.epochs = 3 and train.steps = 7 are set"):
        get_config(path)


def test_all_faults_of_a_file_come_at_once(mine):
    text = "  c.bach_size = 3\n  c.train.stps = 3\n  c.seed = -1\n  return c\n"
    with pytest.raises(ConfigError, match="3 faults") as raised:
        get_config(mine(START + text))
    said = ["did you mean 'batch_size'", "did you mean 'train.steps'", "seed = -1 must be"]
    for fault, part in zip(raised.value.faults, said, strict=True):
        assert "mine.py: " in fault and part in fault


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            START + "  c.trian.steps = 3\n",
            r"mine.py, line 4: .*'trian'; did you mean 'train'.*; it",
        ),
        (
            START + "  c.train.steps = 'x'\n",
            r"line 4: TypeError: (.|\n)*'steps'.*; it must define get_config",
        ),
        (START + "\n  return helper()\n\ndef helper():\n  1 / 0\n", r"line 8: ZeroDivisionError"),
        ("x = (\n", r"mine.py: SyntaxError: '\(' was never closed \(mine.py, line 1\)"),
        ("import no_such_module\n", r"line 1: ModuleNotFoundError: No module named 'no_such_"),
        ("raise SystemExit\n", r"line 1: SystemExit: ; it must define"),
        (
            "def config(): ...\n",
            r"KeyError: 'get_config'; it must define get_config\(\), which ret",
        ),
        ("get_config = 3\n", r"mine.py: .*'int' .*; it must define get_config\(\), which returns"),
        ("def get_config(): return {'seed': 3}\n", r"'dict' .* which returns jaxmnist.get_config"),
        ("def get_config(): pass\n", r"'NoneType' .* which returns jaxmnist.get_config\(\) with"),
        (
            "from ml_collections import ConfigDict\n"
            "def get_config(): return ConfigDict({'sead': 1, 'train': {'stps': 1}})\n",
            r"2 faults:(.|\n)*'sead'; did you mean 'seed'(.|\n)*'train.stps'; did you mean",
        ),
    ],
)
def test_a_file_that_fails_is_named_with_its_line(mine, text, sentence):
    with pytest.raises(ConfigError, match=sentence) as raised:
        get_config(mine(text))
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
    assert "Traceback" not in str(raised.value)


def test_a_name_that_does_not_exist_is_answered_with_those_that_do():
    with pytest.raises(
        ConfigError, match=r"'sede'; did you mean 'seed'.*shipped: best, debug, defaul"
    ):
        get_config("sede")


def test_a_file_that_does_not_exist_is_answered_with_the_shipped_names(tmp_path):
    with pytest.raises(
        ConfigError, match=r"none is named '.*nope.py' .shipped: best, debug, defau.*path of a"
    ):
        get_config(tmp_path / "nope.py")
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(ConfigError, match=r"none is named '.*folder.py'"):
        get_config(tmp_path / "folder.py")
