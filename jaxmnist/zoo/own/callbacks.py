"""Callbacks that the configuration names, beside those that were given; which of them failed."""

import inspect
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxmnist.callbacks import Callback
from jaxmnist.errors import ConfigError
from jaxmnist.names import in_line, resolve

_AGAIN = "then run the same command again: it goes on from its last checkpoint"


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
    if not isinstance(given, Sequence):
        raise ConfigError(
            [f"callbacks={in_line(repr(given)):.80} is no list: give [callback, ...]"]
        )
    for callback in (callbacks := (*made, *given)):
        if not isinstance(callback, Callback):
            rule = "derive its class from jaxmnist.callbacks.Callback and override its moments"
            called = "and pass an object: call the class" if inspect.isclass(callback) else ""
            fault = f"callbacks has {in_line(repr(callback)):.80}: {rule} {called}"
            raise ConfigError([fault.rstrip()])
        _check_moments(callback)
    return callbacks


def told(error: BaseException) -> str:
    """Which callback of the user's an error comes from, in a sentence; "" where from none."""
    for frame, line in traceback.walk_tb(error.__traceback__):
        owner, moment = type(frame.f_locals.get("self")), frame.f_code.co_name
        own = issubclass(owner, Callback) and owner.__module__.partition(".")[0] != "jaxmnist"
        if own and moment in vars(Callback):
            place = f"{Path(frame.f_code.co_filename).name}, line {line}"
            fault = f"callback {owner.__module__}:{owner.__qualname__} fails in {moment}, {place}"
            return f"{fault}: {type(error).__name__}: {in_line(error)}; correct it, {_AGAIN}"
    return ""


def _check_moments(callback: Callback) -> None:
    """Refuses methods that cannot be called as the run calls them."""
    for moment, ours in inspect.getmembers(Callback, inspect.isfunction):
        _, *expected = inspect.signature(ours).parameters
        try:
            inspect.signature(getattr(callback, moment)).bind(*expected)
        except TypeError as error:
            rule = f"it is called as {moment}({', '.join(expected)}); give it these arguments"
            name = f"{type(callback).__qualname__}.{moment}"
            raise ConfigError([f"callbacks: {name} cannot be called: {error}; {rule}"]) from error


def _made(path: str) -> Any:
    found = resolve(path, key="callbacks")
    if not inspect.isclass(found):
        return found
    if not issubclass(found, Callback):
        rule = "is no subclass of jaxmnist.callbacks.Callback: derive it from that"
        raise ConfigError([f"callbacks={path!r} {rule}"])
    try:
        return found()
    except (Exception, SystemExit) as error:  # the user's class may raise anything
        fault = f"cannot be made: {type(error).__name__}: {in_line(error)}"
        rule = "a class that the configuration names takes no argument"
        raise ConfigError([f"callbacks={path!r} {fault}; {rule}"]) from error
