"""What a run was given in Python: its names are kept, and asked for where they are needed again."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import optax

from jaxmnist.checkpoint import restore
from jaxmnist.errors import UsageError
from jaxmnist.zoo.own.parameters import restore_model


def names_of(parts: Mapping[str, Any]) -> dict[str, str]:
    """The qualified name of each part that was given, "package.module:name", by argument.

    That of a model, data set or optimizer is that of its class.
    """
    names = {}
    for argument, part in parts.items():
        owner = part.func if isinstance(part, functools.partial) else part
        owner = owner if hasattr(owner, "__qualname__") else type(owner)
        if part is not None:
            names[argument] = f"{owner.__module__}:{owner.__qualname__}"
    return names


def check_parts(notes: Mapping[str, Any], parts: Mapping[str, Any], *, workdir: str) -> None:
    """Asks for what a run was given in Python, where it is not given again.

    Args:
      notes: of the run's checkpoint.
      parts: what is given now, by argument, of those that are needed.
      workdir: of the run, for the message.

    Raises:
      UsageError: parts are missing; the text says which, and how to pass them.
    """
    then = notes["parts"]
    if missing := [name for name, part in parts.items() if name in then and part is None]:
        named = ", ".join(f"{name} = {then[name]}" for name in missing)
        fault = f"the run in {workdir} was given in Python: {named}"
        arguments = ", ".join([repr(workdir), *(f"{name}=..." for name in missing)])
        repair = f"jaxmnist.evaluate({arguments}), and likewise to jaxmnist.predict and train"
        raise UsageError(f"{fault}. The command line cannot pass it; from Python: {repair}")


def for_evaluation(
    notes: Mapping[str, Any], parts: Mapping[str, Any], *, workdir: str
) -> tuple[dict[str, Any], Callable[..., Any]]:
    """The parts to evaluate a run with, and what restores its state.

    The optimizer that a run was given is not needed: without it, its state is left out.

    Raises:
      UsageError: parts that are needed are not given.
    """
    check_parts(notes, {"dataset": None, "model": None} | {**parts}, workdir=workdir)
    if "tx" in notes["parts"] and parts.get("tx") is None:
        return {**parts, "tx": optax.identity()}, restore_model
    return {**parts}, restore
