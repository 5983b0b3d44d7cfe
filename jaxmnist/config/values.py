"""Configurations as ConfigDicts, flat values, plain dicts and text, and how two differ."""

import json
import re
from pathlib import Path
from typing import Any, Final

from ml_collections import ConfigDict, FieldReference

from jaxmnist.config.default import KEYS

LENGTH_KEYS: Final = ("train.epochs", "train.steps", "train.examples")

_RESUME = (
    "seed|batch_size|parallel.deterministic|train|loss|model|optimizer|schedule|dataset|augment"
)


def default_config(values: dict[str, Any] | None = None) -> ConfigDict:
    """Returns a new configuration with every default.

    A key that may be None holds its type nevertheless: a value of another type raises TypeError.
    A key that does not exist is found by `validate`.

    Args:
      values: what differs from the default, by dotted key; valid.
    """
    config = ConfigDict({name.partition(".")[0]: {} if "." in name else None for name in KEYS})
    for name, key in KEYS.items():
        value = (values or {}).get(name, key.default)
        # A bare None would let the first assignment fix the type of the key.
        typed = value if key.rule.kind is dict else FieldReference(value, field_type=key.rule.kind)
        config.update_from_flattened_dict({name: typed})
    return config


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested values by dotted key, unknown ones too; a `*.kwargs` is one dict."""
    flat: dict[str, Any] = {}
    for part, value in values.items():
        name = f"{prefix}{part}"
        group = isinstance(value, dict) and name not in KEYS
        flat |= flatten(value, f"{name}.") if group else {name: value}
    return flat


def to_dict(config: ConfigDict) -> dict[str, Any]:
    """Returns a valid configuration as the nested dict that JSON holds; tuples become lists."""
    return dict(json.loads(config.to_json()))


def to_text(config: ConfigDict) -> str:
    """Returns the configuration for people: each key under its comment, changed ones marked.

    The lines are Python that a config file can hold.
    """
    text, values = "", flatten(config.to_dict())
    source = Path(__file__).with_name("default.py").read_text(encoding="utf-8")
    for comment, name in re.findall(r'((?: +#: .+\n)+) +"([\w.]+)": Key\(', source):
        value, default = values[name], KEYS[name].default
        mark = "" if value == default else f"  # changed; the default is {default!r}"
        text += f"{comment.replace('    #:', '#')}config.{name} = {value!r}{mark}\n\n"
    return text


def resume_difference(a: ConfigDict, b: ConfigDict) -> list[tuple[str, Any, Any]]:
    """Returns (key, value in a, value in b) for each difference that forbids a to go on as b.

    These keys decide what is computed; the others only where, and what is written of it.
    """
    old, new = flatten(to_dict(a)), flatten(to_dict(b))
    return [(k, old[k], new[k]) for k in KEYS if re.match(_RESUME, k) and old[k] != new[k]]
