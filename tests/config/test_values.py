"""Plain dicts and text of a configuration, and the keys in which two differ."""

import json

import pytest

from jaxmnist.config import (
    apply_overrides,
    default_config,
    from_dict,
    get_config,
    resume_difference,
    to_dict,
    to_text,
    validate,
)
from jaxmnist.config.default import KEYS
from jaxmnist.config.values import flatten
from jaxmnist.errors import ConfigError


def difference(a, b):
    """(key, value in a, value in b) of all keys that differ."""
    a, b = flatten(to_dict(a)), flatten(to_dict(b))
    return [(key, a[key], b[key]) for key in KEYS if a[key] != b[key]]


def test_a_configuration_survives_json():
    config = get_config("debug")
    config.model.kwargs = {"widths": (3, 5), "deep": {"a": [1, None, True]}}
    plain = to_dict(config)
    assert list(plain)[:3] == ["seed", "batch_size", "train"]
    assert plain["train"]["steps"] == 60
    assert plain["model"]["kwargs"]["widths"] == [3, 5]
    back = from_dict(json.loads(json.dumps(plain)))
    assert difference(config, back) == []
    assert to_dict(back) == plain
    back.train.steps = None
    back.train.epochs = 0.5
    back.optimizer.kwargs.momentum = 0.5
    validate(back)


def test_keys_that_were_not_written_have_their_default():
    plain = to_dict(get_config("seed"))
    del plain["augment"], plain["eval"]["every"]
    assert difference(get_config("seed"), from_dict(plain)) == []


def test_keys_of_another_version_and_values_are_refused_all_at_once():
    plain = to_dict(default_config()) | {"fancy": {"a": 1, "b": 2}, "train": 3, "seed": "x"}
    plain["model"]["kwargs"] = {"a": float("inf")}
    with pytest.raises(ConfigError, match=r"'train'.*(.|\n)*'fancy.a'(.|\n)*'fancy.b'") as raised:
        from_dict(plain)
    said = "written by another version of jaxmnist: "
    assert all(fault.startswith(said) for fault in raised.value.faults)
    assert len(raised.value.faults) == 5
    assert "seed = 'x' must be" in str(raised.value) and "model.kwargs = " in str(raised.value)


def test_the_text_has_every_key_under_its_comment_and_marks_what_was_changed():
    config = apply_overrides(default_config(), {"batch_size": "61", "train.steps": "7"})
    lines = to_text(config).splitlines()
    settings = [line.split(" = ")[0].removeprefix("config.") for line in lines if " = " in line]
    assert settings == list(KEYS)
    assert "config.batch_size = 61  # changed; the default is 256" in lines
    assert "config.train.epochs = None  # changed; the default is 5" in lines
    assert "config.seed = 0" in lines
    above = lines[lines.index("config.seed = 0") - 1]
    assert above.startswith("# Seed of everything random")
    assert sum("# changed" in line for line in lines) == 3


def test_the_text_is_a_config_file():
    config = apply_overrides(get_config("debug"), {"dataset.dir": "it's", "model.kwargs.a": "(1,)"})
    again = default_config()
    exec(to_text(config), {"config": again})
    assert difference(config, again) == []


def test_differences_name_key_and_both_values():
    config = default_config()
    config.log.every = "1 epochs"
    config.model.kwargs.a = 1
    config.seed = 3
    expected = [("seed", 0, 3), ("model.kwargs", {}, {"a": 1})]
    assert resume_difference(default_config(), config) == expected
    assert resume_difference(config, config) == []


CHANGES = {
    "seed": "1",
    "batch_size": "64",
    "train.steps": "7",
    "train.accumulate": "2",
    "parallel.strategy": "jit",
    "parallel.devices": "2",
    "parallel.deterministic": "true",
    "dataset.validation": "5",
    "model.dtype": "bfloat16",
    "optimizer.kwargs.b1": "0.8",
    "schedule.name": "constant",
    "augment.shift": "1",
    "checkpoint.keep": "2",
    "log.every": "1",
    "eval.batch_size": "7",
}


@pytest.mark.parametrize("key", CHANGES)
def test_a_resumed_run_may_change_only_what_does_not_decide_the_result(key):
    free = {"parallel.strategy", "parallel.devices", "checkpoint.keep", "log.every"}
    config = apply_overrides(default_config(), {key: CHANGES[key]})
    found = resume_difference(default_config(), config)
    assert bool(found) == (key not in free | {"eval.batch_size"})
    assert difference(default_config(), config)
