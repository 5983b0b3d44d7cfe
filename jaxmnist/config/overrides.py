"""Settings from the command line: which arguments set the configuration, and what they set."""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ml_collections import ConfigDict

from jaxmnist.config.default import KEYS
from jaxmnist.config.rules import literal
from jaxmnist.config.validate import value_faults
from jaxmnist.config.values import LENGTH_KEYS, build, flatten, unknown_key
from jaxmnist.errors import ConfigError

_ARGUMENT: Final = re.compile(
    r"--?(?P<no>no)?config(?:\.(?P<key>[^=]*))?(?:=(?P<value>.*))?", re.DOTALL
)


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
    settings of a key wins. What follows "--" is left alone.

    Raises:
      ConfigError: values that are missing or not wanted, all at once.
    """
    spec: str | None = None
    overrides: dict[str, str] = {}
    rest: list[str] = []
    faults: list[str] = []
    left = list(argv)
    while left:
        argument = left.pop(0)
        found = _ARGUMENT.fullmatch(argument)
        if argument == "--":
            rest += [argument, *left]
            break
        if not found or (found["no"] and found["key"] is None):
            rest.append(argument)
            continue
        value = _negation(found, faults) if found["no"] else found["value"]
        if value is None:
            value = _next_value(argument, found["key"], left, faults)
        if found["key"] is None:
            spec = value
        else:
            # Taken out first, so that the order of the overrides is that of their last mention.
            overrides.pop(found["key"], None)
            overrides[found["key"]] = value
    if spec == "" and not faults:
        faults.append("--config= needs a name or a path, such as --config=seed or --config=mine.py")
    if faults:
        raise ConfigError(faults)
    return Arguments(spec, overrides, tuple(rest))


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
    values = copy.deepcopy(flatten(config))
    faults: list[str] = []
    applied: list[str] = []
    for name, text in overrides.items():
        if name in KEYS:
            try:
                values[name] = KEYS[name].rule.read(text)
                applied.append(name)
            except ValueError:
                faults.append(KEYS[name].fault(name, text))
        elif section := _free_section(name):
            _set_free(values, section, name.removeprefix(f"{section}.").split("."), literal(text))
        else:
            faults.append(unknown_key(name))
    keep_one_length(values, [name for name in LENGTH_KEYS if name in applied])
    faults += value_faults(values)
    if faults:
        raise ConfigError(faults)
    return build(values)


def keep_one_length(values: dict[str, Any], changed: Sequence[str]) -> None:
    """Sets the other lengths of training to None, in place, when one alone was changed."""
    chosen = [name for name in changed if values[name] is not None]
    if len(chosen) == 1:
        values.update({name: None for name in LENGTH_KEYS if name not in chosen})


def _negation(found: re.Match[str], faults: list[str]) -> str:
    key = found["key"]
    if found["value"] is not None:
        faults.append(f"{found[0]} takes no value; write --config.{key}=false")
    elif key in KEYS and not _is_flag(key):
        faults.append(
            f"{found[0]} works for keys that are true or false; write --config.{key}=value"
        )
    return "false"


def _next_value(argument: str, key: str | None, left: list[str], faults: list[str]) -> str:
    if _is_flag(key):
        return left.pop(0) if left and left[0].lower() in ("true", "false") else "true"
    if left and not left[0].startswith("--"):
        return left.pop(0)
    if key is None:
        faults.append("--config needs a name or a path, such as --config=seed or --config=mine.py")
    elif key in KEYS or _free_section(key):
        example = "0.9" if key not in KEYS else KEYS[key].rule.example or KEYS[key].default
        faults.append(f"{argument} needs a value, such as {argument}={example}")
    # The text of a key that does not exist never matters: the key itself is the fault to report.
    return ""


def _is_flag(key: str | None) -> bool:
    return key in KEYS and KEYS[key].rule.types == (bool,)


def _free_section(name: str) -> str:
    """The key of the free dict in which this key lies, or ""."""
    named = all(part.isidentifier() for part in name.split("."))
    inside = (key for key in KEYS if KEYS[key].rule.types == (dict,) and name.startswith(f"{key}."))
    return next(inside, "") if named else ""


def _set_free(values: dict[str, Any], section: str, path: list[str], value: Any) -> None:
    *parents, last = path
    target = values
    for part in (section, *parents):
        if not isinstance(target.get(part), dict):
            target[part] = {}
        target = target[part]
    target[last] = value
