"""Settings from the command line: which arguments set the configuration, and what they set."""

import copy
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ml_collections import ConfigDict

from jaxmnist.config.default import KEYS
from jaxmnist.config.rules import FLAG, literal
from jaxmnist.config.validate import value_faults
from jaxmnist.config.values import LENGTH_KEYS, default_config, flatten
from jaxmnist.errors import ConfigError

_ARGUMENT: Final = re.compile(r"(?s)--?(no(?=config\.[^=]*$))?config(?:\.([^=]+))?(?:=(.*))?")


@dataclass(frozen=True)
class Arguments:
    """A command line, taken apart.

    Attributes:
      config: the name or path given as --config, or None.
      overrides: the text for each key given as --config.key, in the order in which they apply.
      rest: all other arguments, in their order.
    """

    config: str | None
    overrides: dict[str, str]
    rest: tuple[str, ...]


def split_arguments(argv: Sequence[str]) -> Arguments:
    """Separates the configuration's arguments from all others; they may stand in any order.

    Understood are --config=NAME, --config.key=value, both with a space for the equals sign,
    --config.flag and --noconfig.flag for keys that are true or false. The last of several
    settings of a key wins. What follows "--" is left alone. A value that is missing is "", which
    neither `get_config` nor `apply_overrides` takes for one.
    """
    settings: dict[Any, str] = {}
    rest: list[str] = []
    end = argv.index("--") if "--" in argv else len(argv)
    left = list(argv[:end])
    while left:
        argument = left.pop(0)
        if not (found := _ARGUMENT.fullmatch(argument)):
            rest.append(argument)
            continue
        no, key, value = found.groups()
        flag = key in KEYS and KEYS[key].rule is FLAG
        if no:
            value = "false" if flag or key not in KEYS else ""
        elif value is None:
            word = left[0].lower() if left else "--"
            follows = word in ("true", "false") if flag else not word.startswith("--")
            value = left.pop(0) if follows else "true" if flag else ""
        # Taken out first, so that the order of the settings is that of their last mention.
        settings.pop(key, None)
        settings[key] = value
    return Arguments(settings.pop(None, None), settings, (*rest, *argv[end:]))


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
    faults: list[str] = []
    for name, text in overrides.items():
        group, _, inner = name.partition(".kwargs.")
        free, path = f"{group}.kwargs", inner.split(".")
        if name in KEYS:
            values[name] = KEYS[name].rule.read(text)
        elif free in KEYS and all(map(str.isidentifier, path)):
            values[free] = _with(values[free], path, literal(text))
            faults += [] if text else [f"{name} needs a value, such as {name}=0.9"]
        else:
            values[name] = text
    keep_one_length(values, overrides)
    if faults := faults + value_faults(values):
        raise ConfigError(faults)
    return default_config(values)


def keep_one_length(values: dict[str, Any], changed: Container[str]) -> None:
    """Sets the other lengths of training to None, in place, when one alone was changed."""
    chosen = [name for name in LENGTH_KEYS if name in changed and values[name] is not None]
    if len(chosen) == 1:
        values.update({name: None for name in LENGTH_KEYS if name not in chosen})


def _with(values: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        return value
    kept = values if isinstance(values, dict) else {}
    return kept | {path[0]: _with(kept.get(path[0]), path[1:], value)}
