"""Finds a configuration by name or path and loads it: the default, a shipped one, a user's file."""

import os
import re
import traceback
from pathlib import Path
from typing import Any, Final

from ml_collections import ConfigDict

from jaxmnist.config.default import KEYS
from jaxmnist.config.overrides import keep_one_length
from jaxmnist.config.suggest import did_you_mean
from jaxmnist.config.values import LENGTH_KEYS, build, default_config, flatten, unknown_key
from jaxmnist.errors import ConfigError

_LOCKED: Final = re.compile(r'Key \\?"(?P<key>[^"\\]+)\\?" does not exist and cannot be added')


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
    spec = os.fspath(name_or_path)
    shipped = shipped_configs()
    if not spec.endswith(".py"):
        if spec not in shipped:
            hint = did_you_mean(spec, shipped)
            known = f"(shipped: {', '.join(shipped)}; the path of a file ends in .py)"
            raise ConfigError([f"there is no configuration {spec!r}{hint} {known}"])
        return _load(shipped[spec])
    path = Path(spec).expanduser()
    if not path.is_file():
        names = f"shipped configurations are named without path and ending: {', '.join(shipped)}"
        raise ConfigError([f"there is no file {spec!r}; {names}"])
    return _load(path)


def shipped_configs() -> dict[str, Path]:
    """Returns the files of the configurations that come with the library, by name."""
    package = Path(__file__).parents[1]
    # An installed package holds them; an editable install has them beside the package.
    installed = package / "configs"
    folder = installed if installed.is_dir() else package.parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def _load(path: Path) -> ConfigDict:
    try:
        namespace: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
        exec(compile(path.read_bytes(), str(path), "exec"), namespace)
        function = namespace.get("get_config")
        result = function() if callable(function) else None
        flat = flatten(result) if isinstance(result, ConfigDict) else {}
    except (Exception, SystemExit) as error:
        raise ConfigError([_sentence(path, error)]) from None
    if not callable(function):
        raise ConfigError(
            [f"{path} must define a function get_config() that returns a configuration"]
        )
    if not isinstance(result, ConfigDict):
        text = f"{path}: get_config() returned {result!r:.80}, not a ConfigDict"
        raise ConfigError([f"{text}; start from jaxmnist.get_config(), change keys, return it"])
    if faults := [f"{path}: {unknown_key(name)}" for name in flat if name not in KEYS]:
        raise ConfigError(faults)
    values = {name: key.default for name, key in KEYS.items()} | flat
    keep_one_length(values, [name for name in LENGTH_KEYS if values[name] != KEYS[name].default])
    return build(values)


def _sentence(path: Path, error: BaseException) -> str:
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    where = f"{path}, line {line}" if line else f"{path}"
    missing = _LOCKED.search(str(error))
    if missing:
        return f"{where}: {unknown_key(missing['key'])}"
    if isinstance(error, AttributeError) and isinstance(error.obj, ConfigDict):
        return f"{where}: {unknown_key(str(error.name))}"
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{where}: {type(error).__name__}: {text or 'no message'}; correct the file"
