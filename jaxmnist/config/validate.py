"""First stage of validation, without devices: keys, types, ranges, rules over several keys."""

from collections.abc import Mapping
from typing import Any, Final

from ml_collections import ConfigDict

from jaxmnist.config.default import KEYS
from jaxmnist.config.values import LENGTH_KEYS, flatten, unknown_key
from jaxmnist.errors import ConfigError

VIRTUAL_SHARDS: Final = 8
"""Parts into which `parallel.deterministic` cuts every microbatch, on any number of devices."""


def validate(config: ConfigDict) -> None:
    """Checks all that can be checked without devices and without the user's modules.

    Raises:
      ConfigError: every fault there is.
    """
    if faults := value_faults(flatten(config)):
        raise ConfigError(faults)


def value_faults(values: Mapping[str, Any]) -> list[str]:
    """Returns a sentence for every fault of the values by dotted key; empty when there is none."""
    faults = [unknown_key(name) for name in values if name not in KEYS]
    good: dict[str, Any] = {}
    for name, key in KEYS.items():
        if name not in values:
            faults.append(f"{name} is missing; set the keys of a group one by one, not the group")
        elif not key.rule.allows(values[name]):
            faults.append(key.fault(name, values[name]))
        else:
            good[name] = values[name]
    for names, rule in _TOGETHER:
        # A rule over several keys says nothing useful about a key that is wrong by itself.
        if all(name in good for name in names) and (text := rule(good)):
            faults.append(text)
    return faults


def nearest_multiples(value: int, multiple: int) -> str:
    """Returns the positive multiples on either side of a value, for a message: "96 or 104"."""
    below = value // multiple * multiple
    return " or ".join(str(near) for near in (below, below + multiple) if near)


def _one_length(values: Mapping[str, Any]) -> str:
    given = [f"{name} = {values[name]}" for name in LENGTH_KEYS if values[name] is not None]
    if len(given) == 1:
        return ""
    said = f"{' and '.join(given)} are set together" if given else "no length of training is set"
    return f"{said}; set exactly one of {', '.join(LENGTH_KEYS)} and the others to None"


def _whole_parts(values: Mapping[str, Any]) -> str:
    batch_size, multiple = values["batch_size"], values["train.accumulate"]
    reason = f"train.accumulate = {multiple}"
    if values["parallel.deterministic"]:
        multiple *= VIRTUAL_SHARDS
        reason += f", times {VIRTUAL_SHARDS} parts of parallel.deterministic"
    if batch_size % multiple == 0:
        return ""
    nearest = nearest_multiples(batch_size, multiple)
    text = f"batch_size = {batch_size} must be a multiple of {multiple} ({reason})"
    return f"{text}; the nearest valid values are {nearest}"


def _deterministic_strategy(values: Mapping[str, Any]) -> str:
    strategy = values["parallel.strategy"]
    if not values["parallel.deterministic"] or strategy == "shard_map":
        return ""
    return (
        f"parallel.deterministic = True needs parallel.strategy = 'shard_map', not {strategy!r}:"
        " only there is the order of the sum over devices ours to fix; change one of the two"
    )


def _winograd_strategy(values: Mapping[str, Any]) -> str:
    if values["model.conv"] != "winograd" or values["parallel.strategy"] != "jit":
        return ""
    return (
        "model.conv = 'winograd' is refused under parallel.strategy = 'jit': a scan over a sharded"
        " batch makes every device compute the whole of it; use 'shard_map' or 'pmap', or"
        " model.conv = 'auto' or 'xla'"
    )


_TOGETHER: Final = (
    (LENGTH_KEYS, _one_length),
    (("batch_size", "train.accumulate", "parallel.deterministic"), _whole_parts),
    (("parallel.deterministic", "parallel.strategy"), _deterministic_strategy),
    (("model.conv", "parallel.strategy"), _winograd_strategy),
)
