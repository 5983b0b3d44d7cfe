"""A loss by name, by dotted path or as a function: one number for each row."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxmnist.errors import ConfigError
from jaxmnist.names import find, in_line, parameters
from jaxmnist.zoo.own.trial import ROWS, name_of, try_rows

LOSSES: Mapping[str, str] = {"cross_entropy": "jaxmnist.metrics:cross_entropy"}


def make_loss(
    given: Any, *, kwargs: Mapping[str, Any], label_smoothing: float, classes: int
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The loss as a function of logits float32 [b, k] and labels int32 [b].

    Args:
      given: a key of `LOSSES`, a dotted path to a function, or a function.
      kwargs: further arguments of it.
      label_smoothing: passed on where it takes such an argument.
      classes: how many there are, for the trial.

    Returns:
      A function that gives each row's loss, float32 [b].

    Raises:
      ConfigError: no such loss, one that does not give float32 [b] or mixes rows, that has no
        finite gradient or none at all, or one that is to smooth labels and cannot.
    """
    what = f"{'loss.name' if isinstance(given, str) else 'loss'}={name_of(given)}"
    function = find(given, LOSSES, key="loss.name") if isinstance(given, str) else given
    if not callable(function):
        raise ConfigError(
            [f"{what} is {in_line(repr(given)):.80}: give a function of (logits, labels)"]
        )
    if "label_smoothing" in kwargs:
        rule = "which has a key of its own: set train.label_smoothing"
        raise ConfigError([f"loss.kwargs has label_smoothing, {rule}"])
    options = dict(kwargs)
    if "label_smoothing" in parameters(function):
        options["label_smoothing"] = label_smoothing
    elif label_smoothing:
        repair = "set it to 0, or let your function take label_smoothing"
        fault = f"train.label_smoothing={label_smoothing} is no argument of {what}"
        raise ConfigError([f"{fault}: {repair}"])
    loss = functools.partial(function, **options) if options else function
    logits = jax.random.normal(jax.random.key(0), (ROWS, classes))
    labels = jnp.arange(ROWS, dtype=jnp.int32) % classes
    try_rows(what, loss, (logits, labels), like=jax.ShapeDtypeStruct((ROWS,), jnp.float32))
    slope = jax.jit(jax.grad(lambda logits: loss(logits, labels).sum()))(logits)
    if not jnp.isfinite(slope).all():
        repair = "keep roots, logarithms and divisions away from 0, behind jnp.where too"
        raise ConfigError([f"{what} has a gradient that is NaN or infinite: {repair}"])
    if not slope.any():
        repair = "compute it from them without rounding, argmax or comparison alone"
        raise ConfigError([f"{what} does not move with the logits, nothing is learned: {repair}"])
    return loss
