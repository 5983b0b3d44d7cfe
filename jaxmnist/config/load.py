"""Finds a configuration by name or path, or in what a run wrote, and loads it."""

import os
import re
import runpy
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxmnist.config.default import KEYS
from jaxmnist.config.overrides import keep_one_length
from jaxmnist.config.suggest import did_you_mean
from jaxmnist.config.validate import value_faults
from jaxmnist.config.values import default_config, flatten, unknown_key
from jaxmnist.errors import ConfigError


def get_config(name_or_path: str | os.PathLike[str] | None = None) -> ConfigDict:
    """Returns a configuration: locked, of every key, not yet validated.

    Args:
      name_or_path: None for the default, the name of a shipped configuration ("seed"), or the path
        of a Python file (ending in .py) whose `get_config()` returns one. Keys that a file leaves
        out have their default; a length of training that it sets replaces the default one.

    Raises:
      ConfigError: no such name or file, or the file fails or returns something else.
    """
    if name_or_path is None:
        return default_config()
    spec, shipped = os.fspath(name_or_path), shipped_configs()
    path = Path(spec).expanduser() if spec.endswith(".py") else shipped.get(spec)
    if path is None or not path.is_file():
        known = f"shipped: {', '.join(shipped)}; else the path of a file that ends in .py"
        raise ConfigError([f"none is named {spec!r}{did_you_mean(spec, shipped)} ({known})"])
    return _load(path)


def shipped_configs() -> dict[str, Path]:
    """Returns the files of the configurations that come with the library, by name."""
    # An installed package holds them; an editable install has them beside the package.
    inside, beside = (parent / "configs" for parent in Path(__file__).parents[1:3])
    folder = inside if inside.is_dir() else beside
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def from_dict(values: Mapping[str, Any]) -> ConfigDict:
    """Returns the configuration that `to_dict` wrote; keys that are missing have their default.

    Raises:
      ConfigError: keys that this version does not know, or values that it does not accept.
    """
    flat = flatten(values)
    if unknown := ", ".join(repr(name) for name in flat if name not in KEYS):
        text = f"the keys {unknown} are unknown here: written by another version of jaxmnist"
        raise ConfigError([f"{text}; use that version, or start in a new work directory"])
    if faults := value_faults(flatten(default_config().to_dict()) | flat):
        raise ConfigError(faults)
    return default_config(flat)


def _load(path: Path) -> ConfigDict:
    try:
        function = runpy.run_path(str(path)).get("get_config")
        result = function() if callable(function) else function
    except (Exception, SystemExit) as error:
        raise ConfigError([_sentence(path, error)]) from None
    if not isinstance(result, ConfigDict):
        rule = "must define get_config() that returns jaxmnist.get_config() with keys changed"
        raise ConfigError([f"{path} {rule}, not {result!r:.80}"])
    flat = flatten(result.to_dict())
    if faults := [f"{path}: {unknown_key(name)}" for name in flat if name not in KEYS]:
        raise ConfigError(faults)
    values = {name: key.default for name, key in KEYS.items()} | flat
    keep_one_length(values, [name for name in KEYS if values[name] != KEYS[name].default])
    return default_config(values)


def _sentence(path: Path, error: Any) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f", line {frame.lineno}" for frame in frames if frame.filename == str(path)]
    where = "".join([str(path), *lines[-1:]])
    missing = re.search(r'Key \\?"([^"\\]+)\\?" does not exist and cannot be added', str(error))
    if missing or isinstance(getattr(error, "obj", None), ConfigDict):
        return f"{where}: {unknown_key(missing[1] if missing else error.name)}"
    return f"{where}: {type(error).__name__}: {str(error) or 'no message'}; correct the file"
