"""Makes configurations: by name, from a file, from what a run wrote, with keys overridden."""

import copy
import runpy
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxmnist.config.default import KEYS
from jaxmnist.config.rules import literal
from jaxmnist.config.suggest import did_you_mean
from jaxmnist.config.validate import checked, unknown_key
from jaxmnist.config.values import LENGTH_KEYS, default_config, flatten
from jaxmnist.errors import ConfigError


def get_config(name_or_path: str | Path | None = None) -> ConfigDict:
    """Returns a valid configuration of every key.

    Args:
      name_or_path: None for the default, the name of a shipped configuration ("seed"), or the path
        of a Python file (ending in .py) whose `get_config()` returns one. Keys that a file leaves
        out have their default; a length of training that it sets replaces the default one.

    Raises:
      ConfigError: no such name or file, or the file fails, returns something else or has faults.
    """
    if name_or_path is None:
        return default_config()
    spec, shipped = str(name_or_path), shipped_configs()
    path = Path(spec).expanduser() if spec.endswith(".py") else shipped.get(spec)
    if path is None or not path.is_file():
        known = f"shipped: {', '.join(shipped)}; else the path of a file that ends in .py"
        raise ConfigError([f"none is named {spec!r}{did_you_mean(spec, shipped)} ({known})"])
    values = flatten(default_config().to_dict())
    changes = {k: v for k, v in _values_of(path).items() if (k, v) not in values.items()}
    return _changed(values, changes, source=f"{path}: ")


def shipped_configs() -> dict[str, Path]:
    """Returns the files of the configurations that come with the library, by name."""
    # An installed package holds them; an editable install has them beside the package.
    inside, beside = (parent / "configs" for parent in Path(__file__).parents[1:3])
    folder = inside if inside.is_dir() else beside
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def from_dict(values: dict[str, Any]) -> ConfigDict:
    """Returns the configuration that `to_dict` wrote; keys that are missing have their default.

    Raises:
      ConfigError: keys that this version does not know, or values that it does not accept.
    """
    source = "written by another version of jaxmnist: "
    return checked(flatten(default_config().to_dict()) | flatten(values), source=source)


def apply_overrides(config: ConfigDict, overrides: Mapping[str, str]) -> ConfigDict:
    """Returns a new configuration in which keys have the values that texts name, validated.

    Setting one of train.epochs, train.steps and train.examples sets the other two to None.
    `x.kwargs.name` sets one free key, to the Python literal that the text spells, else to the text.

    Args:
      config: what to start from; unchanged.
      overrides: text by dotted key, applied in order: {"batch_size": "1e3", "train.steps": "9"}.

    Raises:
      ConfigError: every fault of the overrides, and of the configuration that they make.
    """
    values = copy.deepcopy(flatten(config.to_dict()))
    changes: dict[str, Any] = {}
    for name, text in overrides.items():
        group, _, inner = name.partition(".kwargs.")
        kwargs = changes.get(f"{group}.kwargs", values.get(f"{group}.kwargs"))
        if inner.isidentifier() and isinstance(kwargs, dict):
            changes[f"{group}.kwargs"] = kwargs | {inner: literal(text)}
        else:
            changes[name] = KEYS[name].rule.read(text) if name in KEYS else text
    return _changed(values, changes)


def _changed(values: dict[str, Any], changes: dict[str, Any], *, source: str = "") -> ConfigDict:
    # One length of training that is changed takes the place of the others.
    if sum(changes.get(name) is not None for name in LENGTH_KEYS) == 1:
        values = values | dict.fromkeys(LENGTH_KEYS)
    return checked(values | changes, source=source)


def _values_of(path: Path) -> dict[str, Any]:
    try:
        return flatten(runpy.run_path(str(path))["get_config"]().to_dict())
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f", line {frame.lineno}" for frame in frames if frame.filename == str(path)]
        fault = f"{type(error).__name__}: {error}"
        if isinstance(error, AttributeError) and isinstance(error.obj, ConfigDict):
            fault = unknown_key(str(error.name))
        rule = "it must define get_config(), which returns jaxmnist.get_config() with keys changed"
        raise ConfigError([f"{path}{''.join(lines[-1:])}: {fault}; {rule}"]) from None
