"""First stage of validation, without devices: keys, types, ranges, rules over several keys."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ml_collections import ConfigDict

from jaxmnist.config.default import KEYS
from jaxmnist.config.values import LENGTH_KEYS, flatten, unknown_key
from jaxmnist.errors import ConfigError

#: Parts into which `parallel.deterministic` cuts every microbatch, on any number of devices.
VIRTUAL_SHARDS: Final = 8


def validate(config: ConfigDict) -> None:
    """Checks all that can be checked without devices and without the user's modules.

    Raises:
      ConfigError: every fault there is.
    """
    if faults := value_faults(flatten(config.to_dict())):
        raise ConfigError(faults)


def value_faults(values: Mapping[str, Any]) -> list[str]:
    """Returns a sentence for every fault of the values by dotted key; empty when there is none."""
    faults = [unknown_key(name) for name in values if name not in KEYS]
    good: dict[str, Any] = {}
    for name, key in KEYS.items():
        if name not in values:
            faults.append(f"{name} is missing; set the keys of a group one by one, not the group")
        elif key.rule.allows(value := values[name]):
            good[name] = value
        else:
            rule = f"{key.rule.expected}, such as {key.example or repr(key.default)}"
            faults.append(f"{name} = {value!r:.80} must be {rule}")
    return [*faults, *_faults_together(good)]


def nearest_multiples(value: int, multiple: int) -> str:
    """Returns the positive multiples on either side of a value, for a message: "96 or 104"."""
    below = value // multiple * multiple
    return " or ".join(str(near) for near in (below, below + multiple) if near)


def _faults_together(good: Mapping[str, Any]) -> Iterator[str]:
    # Nothing useful can be said together with a key that is wrong by itself: it is absent here.
    given = [f"{name} = {good[name]}" for name in LENGTH_KEYS if good.get(name) is not None]
    if len(given) != 1 and good.keys() >= {*LENGTH_KEYS}:
        said = f"{' and '.join(given) or 'none'} are set as the length of training"
        yield f"{said}; set exactly one of {', '.join(LENGTH_KEYS)} and the others to None"
    strategy, deterministic = good.get("parallel.strategy"), good.get("parallel.deterministic")
    batch_size, accumulate = good.get("batch_size", 0), good.get("train.accumulate", 1)
    multiple = accumulate * VIRTUAL_SHARDS if deterministic else accumulate
    if batch_size % multiple:
        parts = f", times {VIRTUAL_SHARDS} parts of parallel.deterministic" if deterministic else ""
        rule = f"must be a multiple of {multiple} (train.accumulate = {accumulate}{parts})"
        nearest = nearest_multiples(batch_size, multiple)
        yield f"batch_size = {batch_size} {rule}; the nearest valid values are {nearest}"
    if deterministic and strategy not in (None, "shard_map"):
        rule = "parallel.deterministic = True needs parallel.strategy = 'shard_map'"
        reason = "only there is the order of the sum over devices ours to fix"
        yield f"{rule}, not {strategy!r}: {reason}; change one of the two"
    if strategy == "jit" and good.get("model.conv") == "winograd":
        rule = "model.conv = 'winograd' is refused under parallel.strategy = 'jit'"
        reason = "a scan over a sharded batch makes every device compute the whole of it"
        yield f"{rule}: {reason}; use 'shard_map' or 'pmap', or model.conv = 'auto' or 'xla'"
