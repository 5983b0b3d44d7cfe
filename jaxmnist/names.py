"""Finds a Python object by a dotted path in the configuration."""

import importlib
from typing import Any

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
    except Exception as error:  # the user's module may raise anything
        rule = "give 'package.module:name' of a module that is installed or lies on PYTHONPATH"
        fault = f"{key}={path!r} cannot be imported: {type(error).__name__}: {error}"
        raise ConfigError([f"{fault}; {rule}"]) from error
