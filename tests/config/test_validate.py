"""Stage one of validation: each kind of fault has its sentence, and all are reported at once."""

import pytest

from jaxmnist.config import default_config, nearest_multiples, validate
from jaxmnist.config.validate import checked
from jaxmnist.config.values import flatten
from jaxmnist.errors import ConfigError

CIRCLE: list = [object()]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"seed": -1}, r"seed = -1 must be an integer in 0\.\.4294967295, such as 0"),
        ({"seed": 2**32}, "seed = 4294967296 must be"),
        ({"batch_size": 0}, "batch_size = 0 must be an integer >= 1, such as 256"),
        ({"batch_size": 2.5}, "batch_size = 2.5 must be an integer"),
        ({"batch_size": True}, "batch_size = True must be an integer"),
        ({"batch_size": None}, "batch_size = None must be an integer >= 1, such as 256"),
        ({"train.epochs": 0}, "train.epochs = 0 must be a number > 0 or None, such as 0.5"),
        ({"train.epochs": float("inf")}, "train.epochs = inf must be"),
        ({"train.epochs": 10**400}, "train.epochs = 1000.* must be a number > 0"),
        ({"train.epochs": True}, "train.epochs = True must be"),
        ({"train.ema_decay": 1.0}, r"train.ema_decay = 1.0 must be a number in \(0, 1\) or None"),
        ({"train.ema_decay": 0.0}, r"train.ema_decay = 0.0 must be a number in \(0, 1\) or None"),
        ({"train.label_smoothing": 1.0}, r"train.label_smoothing = 1.0 must be .* in \[0, 1\)"),
        ({"train.label_smoothing": float("nan")}, "train.label_smoothing = nan must be"),
        ({"train.accumulate": 0}, "train.accumulate = 0 must be an integer >= 1"),
        ({"parallel.strategy": "ddp"}, "'ddp' must be one of 'shard_map', 'pmap', 'jit'"),
        ({"parallel.devices": 0}, "parallel.devices = 0 must be an integer >= 1 or None"),
        ({"parallel.deterministic": 1}, "parallel.deterministic = 1 must be true or false"),
        ({"dataset.name": " "}, "dataset.name = ' ' must be a string that is not empty"),
        ({"dataset.validation": -1}, "dataset.validation = -1 must be an integer >= 0"),
        ({"model.dtype": "float16"}, "'float16' must be one of 'float32', 'bfloat16'"),
        ({"model.kwargs": 3}, "model.kwargs = 3 must be a dict of JSON values"),
        ({"model.kwargs": {"a": CIRCLE}}, "model.kwargs = .* must be a dict of JSON values"),
        ({"model.kwargs": {"a": (1, float("inf"))}}, "model.kwargs = .* must be a dict of JSON"),
        ({"optimizer.learning_rate": 0.0}, "optimizer.learning_rate = 0.0 must be a number > 0"),
        ({"optimizer.weight_decay": -0.1}, "optimizer.weight_decay = -0.1 must be a number >= 0"),
        ({"augment.shift": -1}, "augment.shift = -1 must be an integer >= 0"),
        ({"augment.rotation": 181}, r"augment.rotation = 181 must be degrees in 0\.\.180, such as"),
        (
            {"augment.scale": -0.1},
            r"augment.scale = -0.1 must be a number in \[0, 1\], such as 0.1",
        ),
        ({"augment.shear": 46.0}, r"augment.shear = 46.0 must be degrees in 0\.\.45, such as 10"),
        ({"augment.cutout": 0.5}, "augment.cutout = 0.5 must be an integer >= 0"),
        ({"checkpoint.every": 0}, "checkpoint.every = 0 must be a duration"),
        ({"checkpoint.keep": 0}, "checkpoint.keep = 0 must be an integer >= 1"),
        (
            {"log.every": "2 weeks"},
            "log.every = '2 weeks' must be a duration.*'2 epochs' or .*such as 20",
        ),
        ({"eval.every": "0.5 steps"}, "eval.every = '0.5 steps' must be a duration"),
        (
            {"train.steps": 60},
            "train.epochs = 5 and train.steps = 60 are set as the length of .*; set exactly one of",
        ),
        (
            {"train.epochs": None},
            "none are set as the length of training; set exactly one of train.epochs",
        ),
        (
            {"parallel.deterministic": True, "parallel.strategy": "pmap"},
            "parallel.deterministic needs parallel.strategy = 'shard_map', not 'pmap'",
        ),
        (
            {"parallel.strategy": "jit", "model.conv": "winograd"},
            "'winograd' is refused under .*'jit': a scan .* makes every device compute the whole",
        ),
    ],
)
def test_each_fault_is_one_sentence_with_value_rule_and_repair(values, sentence):
    with pytest.raises(ConfigError, match=sentence) as raised:
        checked(flatten(default_config().to_dict()) | values)
    assert len(raised.value.faults) == 1


@pytest.mark.parametrize(
    "values",
    [
        {"train.epochs": 0.5, "train.ema_decay": 0.999, "train.label_smoothing": 0.999},
        {"train.epochs": None, "train.examples": 1},
        {"seed": 2**32 - 1, "batch_size": 1, "dataset.classes": 1},
        {"batch_size": 240, "train.accumulate": 5, "parallel.deterministic": True},
        {"parallel.strategy": "pmap", "model.conv": "winograd"},
        {"parallel.strategy": "jit", "model.conv": "auto"},
        {"model.kwargs": {"widths": (3, 5), "deep": {"names": ["a", None, True, 0.5]}}},
        {"checkpoint.every": "1e5 examples", "log.every": 1, "eval.every": "0.1 epochs"},
    ],
)
def test_what_lies_within_the_rules_passes(values):
    validate(default_config(values))


def test_all_faults_are_reported_at_once_in_the_order_of_the_default():
    config = default_config()
    config.batch_size = 0
    config.train.steps = 3
    config.model.dtype = "half"
    config.parallel.deterministic = True
    config.parallel.strategy = "jit"
    with pytest.raises(ConfigError, match="4 faults") as raised:
        validate(config)
    starts = ["batch_size = 0", "model.dtype", "train.epochs = 5 and", "parallel.deterministic"]
    assert len(raised.value.faults) == 4
    assert all(map(str.startswith, raised.value.faults, starts))


def test_keys_that_were_added_or_lost_are_named():
    config = default_config()
    config.train.stepz = 3
    config.log = {}
    with pytest.raises(ConfigError) as raised:
        validate(config)
    assert raised.value.faults == (
        "there is no key 'train.stepz'; did you mean 'train.steps'?",
        "log.every is missing: it must be a duration: steps, '2 epochs' or '1e5 examples', "
        "such as 20",
        "log.writers is missing: it must be a string that is not empty or None, such as "
        "tensorboard,my_package.writers:Mine",
    )


@pytest.mark.parametrize(
    ("value", "multiple", "said"), [(100, 8, "96 or 104"), (5, 8, "8"), (7, 3, "6 or 9")]
)
def test_the_nearest_multiples_are_positive(value, multiple, said):
    assert nearest_multiples(value, multiple) == said
