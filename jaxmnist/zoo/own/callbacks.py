"""Callbacks that the configuration names, beside those that were given."""

import inspect
from collections.abc import Sequence
from typing import Any

from jaxmnist.callbacks import Callback
from jaxmnist.errors import ConfigError
from jaxmnist.names import resolve
from jaxmnist.zoo.own.trial import first_line


def make_callbacks(paths: str | None, given: Sequence[Any]) -> tuple[Callback, ...]:
    """The callbacks of a run.

    Args:
      paths: "package.module:name", joined by commas, of subclasses of `Callback` that take no
        argument, or of objects of such.
      given: objects, called after them.

    Raises:
      ConfigError: one cannot be imported or made, or is no callback.
    """
    made = [_made(path.strip()) for path in (paths or "").split(",") if path.strip()]
    for callback in (callbacks := (*made, *given)):
        if not isinstance(callback, Callback):
            rule = "derive its class from jaxmnist.callbacks.Callback and override its moments"
            called = "and pass an object: call the class" if inspect.isclass(callback) else ""
            raise ConfigError([f"callbacks has {callback!r:.80}: {rule} {called}".rstrip()])
    return callbacks


def _made(path: str) -> Any:
    found = resolve(path, key="callbacks")
    if not inspect.isclass(found):
        return found
    if not issubclass(found, Callback):
        rule = "is no subclass of jaxmnist.callbacks.Callback: derive it from that"
        raise ConfigError([f"callbacks={path!r} {rule}"])
    try:
        return found()
    except Exception as error:  # the user's class may raise anything
        fault = f"cannot be made: {type(error).__name__}: {first_line(error)}"
        rule = "a class that the configuration names takes no argument"
        raise ConfigError([f"callbacks={path!r} {fault}; {rule}"]) from error
