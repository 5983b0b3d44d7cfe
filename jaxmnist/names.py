"""Finds a Python object by a name of a table, or by a dotted path in the configuration."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from jaxmnist.config import did_you_mean
from jaxmnist.errors import ConfigError


def resolve(path: str, *, key: str = "") -> Any:
    """The object at "package.module:name"; importing the module is the only thing that runs.

    Args:
      path: what the configuration says.
      key: the configuration's key, for the error.

    Raises:
      ConfigError: the module cannot be imported or has no such name.
    """
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # the user's module may raise anything
        rule = "give 'package.module:name' of a module that is installed or lies on PYTHONPATH"
        fault = f"{key}={path!r} cannot be imported: {type(error).__name__}: {in_line(error)}"
        raise ConfigError([f"{fault}; {rule}"]) from error


def find(
    name: str, known: Mapping[str, str], *, key: str, kind: str = "a function or a class"
) -> Any:
    """What a name of a table of dotted paths stands for, or a dotted path of the user's own.

    Args:
      name: what the configuration says.
      known: dotted paths by name.
      key: the configuration's key, for the error.
      kind: what it must be, for the error.

    Returns:
      Something that can be called; nothing of it has been.

    Raises:
      ConfigError: no such name, a path that cannot be imported, or one to what cannot be called.
    """
    own = "choose one, or give your own as 'package.module:Class' or 'package.module:function'"
    if ":" not in (path := known.get(name, name)):
        fault = f"{key}={name!r} is not one of {', '.join(sorted(known))}: {own}"
        raise ConfigError([f"{fault}{did_you_mean(name, known)}"])
    if not callable(found := resolve(path, key=key)):
        raise ConfigError([f"{key}={name!r} is {in_line(repr(found)):.80}: it must be {kind}"])
    return found


def in_line(text: object) -> str:
    """A text, or that of an error, without its line breaks."""
    return " ".join(str(text).split())


def parameters(function: Any) -> list[str]:
    """The names of what a function takes; none where it does not tell, or is no function."""
    try:
        return [*inspect.signature(function).parameters]
    except (TypeError, ValueError):
        return []
