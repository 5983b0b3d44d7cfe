"""First stage of validation, without devices: keys, types, ranges, rules over several keys."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ml_collections import ConfigDict

from jaxmnist.config.default import KEYS
from jaxmnist.config.suggest import did_you_mean
from jaxmnist.config.values import LENGTH_KEYS, default_config, flatten
from jaxmnist.errors import ConfigError

#: Parts into which `parallel.deterministic` cuts every microbatch, on any number of devices.
VIRTUAL_SHARDS: Final = 8


def validate(config: ConfigDict) -> None:
    """Checks all that can be checked without devices and without the user's modules.

    Raises:
      ConfigError: every fault there is.
    """
    checked(flatten(config.to_dict()))


def checked(values: dict[str, Any], *, source: str = "") -> ConfigDict:
    """Returns the configuration of the values by dotted key; `source` begins each fault.

    Raises:
      ConfigError: every fault there is.
    """
    faults = [unknown_key(name) for name in values if name not in KEYS]
    good = {k: v for k, v in values.items() if k in KEYS and KEYS[k].rule.allows(v)}
    for name, key in KEYS.items():
        if name not in good:
            found = f"= {values[name]!r:.80}" if name in values else "is missing: it"
            rule = f"{key.rule.expected}, such as {key.example or repr(key.default)}"
            faults.append(f"{name} {found} must be {rule}")
    if faults := [*faults, *_faults_together(good)]:
        raise ConfigError([f"{source}{fault}" for fault in faults])
    return default_config(values)


def nearest_multiples(value: int, multiple: int) -> str:
    """Returns the positive multiples on either side of a value, for a message: "96 or 104"."""
    below = value // multiple * multiple
    return " or ".join(str(near) for near in (below, below + multiple) if near)


def unknown_key(name: str) -> str:
    """Returns the sentence for a key that does not exist, with the nearest that does."""
    if inside := [other for other in KEYS if other.startswith(f"{name}.")]:
        return f"{name!r} is a group of keys; set one of them: {', '.join(inside)}"
    hint = did_you_mean(name, [*KEYS, *(key.partition(".")[0] for key in KEYS)])
    return f"there is no key {name!r}{hint or '; the command `jaxmnist config` prints all keys'}"


def _faults_together(good: Mapping[str, Any]) -> Iterator[str]:
    # Nothing useful can be said together with a key that is wrong by itself: it is absent here.
    given = [f"{name} = {good[name]}" for name in LENGTH_KEYS if good.get(name) is not None]
    if len(given) != 1 and good.keys() >= {*LENGTH_KEYS}:
        said = f"{' and '.join(given) or 'none'} are set as the length of training"
        yield f"{said}; set exactly one of {', '.join(LENGTH_KEYS)} and the others to None"
    strategy = good.get("parallel.strategy")
    if good.get("parallel.deterministic") and strategy in ("pmap", "jit"):
        rule = f"parallel.deterministic needs parallel.strategy = 'shard_map', not {strategy!r}"
        yield f"{rule}: only there is the order of the sum over devices ours to fix"
    if good.get("parallel.deterministic"):
        for name, neutral in (("train.steps_per_call", 1), ("pipeline.resident", "auto")):
            if good.get(name) not in (None, neutral, "off"):
                rule = f"{name} = {good[name]!r} is refused under parallel.deterministic"
                yield f"{rule}, whose step is several programs: set it to {neutral!r}"
    if strategy == "jit" and good.get("model.conv") == "winograd":
        reason = "a scan over a sharded batch makes every device compute the whole of it"
        rule = f"model.conv = 'winograd' is refused under parallel.strategy = 'jit': {reason}"
        yield f"{rule}; use 'shard_map' or 'pmap', or model.conv = 'auto' or 'xla'"
