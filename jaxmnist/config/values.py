"""Configurations as ConfigDicts, flat values, plain dicts and text, and how two differ."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ml_collections import ConfigDict, FieldReference

from jaxmnist.config import default
from jaxmnist.config.default import KEYS
from jaxmnist.config.rules import Key
from jaxmnist.config.suggest import did_you_mean
from jaxmnist.errors import ConfigError

LENGTH_KEYS: Final = ("train.epochs", "train.steps", "train.examples")

_RESUME: Final = re.compile(
    r"seed|batch_size|(train|model|optimizer|schedule|dataset|augment)\..*|parallel\.deterministic"
)


def default_config() -> ConfigDict:
    """Returns a new configuration with every default, locked but for the free `*.kwargs`.

    A key that may be None holds its type nevertheless: a value of another type raises TypeError.
    """
    return build({})


def build(values: Mapping[str, Any]) -> ConfigDict:
    """Returns the default configuration with these values by dotted key, types unchecked.

    Raises:
      ConfigError: a key is unknown.
    """
    if faults := [unknown_key(name) for name in values if name not in KEYS]:
        raise ConfigError(faults)
    config = ConfigDict()
    for name, key in KEYS.items():
        *sections, last = name.split(".")
        section = config
        for part in sections:
            if part not in section:
                section[part] = ConfigDict()
            section = section[part]
        section[last] = _field(key)
        if name in values:
            with section.ignore_type():
                section[last] = values[name]
    config.lock()
    for name in KEYS:
        if isinstance(config[name], ConfigDict):
            config[name].unlock()
    return config


def flatten(config: Mapping[str, Any] | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Returns the values by dotted key, in the order of the default; a `*.kwargs` is one dict.

    Unknown keys are kept and come last.
    """
    flat: dict[str, Any] = {}
    for part in config:
        name, value = f"{prefix}{part}", config[part]
        if isinstance(value, (ConfigDict, dict)) and name not in KEYS:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value.to_dict() if isinstance(value, ConfigDict) else value
    return {name: flat[name] for name in (*KEYS, *flat) if name in flat}


def unknown_key(name: str) -> str:
    """Returns the sentence for a key that does not exist, with the nearest that does."""
    if inside := [other for other in KEYS if other.startswith(f"{name}.")]:
        return f"{name!r} is a group of keys; set one of them: {', '.join(inside)}"
    groups = {key.rpartition(".")[0] for key in KEYS} - {""}
    if hint := did_you_mean(name, (*KEYS, *sorted(groups))):
        return f"there is no key {name!r}{hint}"
    return f"there is no key {name!r}; the command `jaxmnist config` prints all keys"


def to_dict(config: ConfigDict) -> dict[str, Any]:
    """Returns the configuration as a nested dict that JSON can hold; tuples become lists."""
    nested: dict[str, Any] = {}
    for name, value in flatten(config).items():
        *sections, last = name.split(".")
        section = nested
        for part in sections:
            section = section.setdefault(part, {})
        section[last] = _listed(value)
    return nested


def from_dict(values: Mapping[str, Any]) -> ConfigDict:
    """Returns the configuration that `to_dict` wrote; keys that are missing have their default.

    Raises:
      ConfigError: not a dict, keys that this version does not know, or values it does not accept.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(
            [f"{values!r:.80} must be an object of keys and values, as a run writes it"]
        )
    flat = flatten(values)
    if unknown := [name for name in flat if name not in KEYS]:
        names = ", ".join(map(repr, unknown))
        text = f"the keys {names} are unknown here: written by another version of jaxmnist"
        raise ConfigError([f"{text}; use that version, or start in a new work directory"])
    if faults := [KEYS[n].fault(n, v) for n, v in flat.items() if not KEYS[n].rule.allows(v)]:
        raise ConfigError(faults)
    return build(flat)


def to_text(config: ConfigDict) -> str:
    """Returns the configuration for people: each key under its comment, changed ones marked.

    The lines are Python that a config file can hold.
    """
    changed = {name: normal for name, normal, _ in difference(default_config(), config)}
    lines: list[str] = []
    for name, value in flatten(config).items():
        mark = f"  # changed; the default is {changed[name]!r}" if name in changed else ""
        lines += [f"# {line}" for line in key_comments().get(name, ())]
        lines += [f"config.{name} = {value!r}{mark}", ""]
    return "\n".join(lines)


def key_comments() -> dict[str, tuple[str, ...]]:
    """Returns the comment lines of each key, read from the source of the default."""
    comments: dict[str, tuple[str, ...]] = {}
    lines: list[str] = []
    for line in Path(default.__file__).read_text(encoding="utf-8").splitlines():
        if line.strip().startswith("#: "):
            lines.append(line.strip().removeprefix("#: "))
        elif found := re.match(r'\s+"([\w.]+)": Key\(', line):
            comments[found[1]] = tuple(lines)
            lines = []
    return comments


def difference(a: ConfigDict, b: ConfigDict) -> list[tuple[str, Any, Any]]:
    """Returns (key, value in a, value in b) for each key that differs, in the default's order."""
    first, second = _listed(flatten(a)), _listed(flatten(b))
    names = first | second
    return [
        (name, first.get(name), second.get(name))
        for name in names
        if name not in first or name not in second or first[name] != second[name]
    ]


def resume_difference(a: ConfigDict, b: ConfigDict) -> list[tuple[str, Any, Any]]:
    """Returns the part of `difference` that forbids a run of `a` to go on as `b`.

    These keys decide what is computed; the others only where, and what is written of it.
    """
    return [entry for entry in difference(a, b) if _RESUME.fullmatch(entry[0])]


def _field(key: Key) -> Any:
    if isinstance(key.default, dict):
        return ConfigDict(key.default)
    types = key.rule.types
    if not key.rule.optional and len(types) == 1:
        return key.default
    # A bare None or a single type would let the first assignment fix the type of the key.
    return FieldReference(key.default, field_type=types[0] if len(types) == 1 else types)


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _listed(inner) for name, inner in value.items()}
    return [_listed(inner) for inner in value] if isinstance(value, (list, tuple)) else value
