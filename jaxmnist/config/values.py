"""Configurations as ConfigDicts, flat values, plain dicts and text, and how two differ."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ml_collections import ConfigDict, FieldReference

from jaxmnist.config.default import KEYS
from jaxmnist.config.suggest import did_you_mean

LENGTH_KEYS: Final = ("train.epochs", "train.steps", "train.examples")

_RESUME = "seed|batch_size|parallel.deterministic|train|model|optimizer|schedule|dataset|augment"


def default_config(values: Mapping[str, Any] | None = None) -> ConfigDict:
    """Returns a new configuration with every default, locked but for the free `*.kwargs`.

    A key that may be None holds its type nevertheless: a value of another type raises TypeError.

    Args:
      values: what differs from the default, by dotted key; unchecked.
    """
    config = ConfigDict({name.partition(".")[0]: {} if "." in name else None for name in KEYS})
    for name, key in KEYS.items():
        # A bare None would let the first assignment fix the type of the key.
        field = FieldReference(key.default, field_type=key.rule.kind) if key.default != {} else {}
        config.update_from_flattened_dict({name: field})
    with config.ignore_type():
        config.update_from_flattened_dict(values or {})
    config.lock()
    for name in KEYS:
        if isinstance(config[name], ConfigDict):
            config[name].unlock()
    return config


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested values by dotted key, unknown ones too; a `*.kwargs` is one dict."""
    flat: dict[str, Any] = {}
    for part, value in values.items():
        name = f"{prefix}{part}"
        group = isinstance(value, dict) and name not in KEYS
        flat |= flatten(value, f"{name}.") if group else {name: value}
    return flat


def unknown_key(name: str) -> str:
    """Returns the sentence for a key that does not exist, with the nearest that does."""
    if inside := [other for other in KEYS if other.startswith(f"{name}.")]:
        return f"{name!r} is a group of keys; set one of them: {', '.join(inside)}"
    hint = did_you_mean(name, [*KEYS, *(key.partition(".")[0] for key in KEYS)])
    return f"there is no key {name!r}{hint or '; the command `jaxmnist config` prints all keys'}"


def to_dict(config: ConfigDict) -> dict[str, Any]:
    """Returns a valid configuration as the nested dict that JSON holds; tuples become lists."""
    return dict(json.loads(config.to_json()))


def to_text(config: ConfigDict) -> str:
    """Returns the configuration for people: each key under its comment, changed ones marked.

    The lines are Python that a config file can hold.
    """
    changed = {name: normal for name, normal, _ in difference(default_config(), config)}
    values = flatten(config.to_dict())
    lines: list[str] = []
    for name, comment in key_comments().items():
        mark = f"  # changed; the default is {changed[name]!r}" if name in changed else ""
        lines += [*(f"# {line}" for line in comment), f"config.{name} = {values[name]!r}{mark}", ""]
    return "\n".join(lines)


def key_comments() -> dict[str, tuple[str, ...]]:
    """Returns the comment lines of each key, read from the source of the default."""
    source = Path(__file__).with_name("default.py").read_text(encoding="utf-8")
    entries = re.findall(r'((?: +#: .+\n)+) +"([\w.]+)": Key\(', source)
    return {name: tuple(re.findall("#: (.+)", lines)) for lines, name in entries}


def difference(a: ConfigDict, b: ConfigDict) -> list[tuple[str, Any, Any]]:
    """Returns (key, value in a, value in b) for each key that differs, in the default's order."""
    first, second = flatten(to_dict(a)), flatten(to_dict(b))
    return [(key, first[key], second[key]) for key in KEYS if first[key] != second[key]]


def resume_difference(a: ConfigDict, b: ConfigDict) -> list[tuple[str, Any, Any]]:
    """Returns the part of `difference` that forbids a run of `a` to go on as `b`.

    These keys decide what is computed; the others only where, and what is written of it.
    """
    return [entry for entry in difference(a, b) if re.match(_RESUME, entry[0])]
