"""Why a model cannot be trained, in a sentence with its repair."""

from collections.abc import Mapping
from typing import Any

import flax.errors
import flax.linen as nn

from jaxmnist.names import in_line

# What Flax raises where a model does what would depend on the number of devices.
_FORBIDDEN: Mapping[type[BaseException], str] = {
    flax.errors.InvalidRngError: "draws random numbers through make_rng, which would depend on the "
    "number of devices: use jaxmnist.models.Dropout, or jaxmnist.models.row_keys in your own layer",
    flax.errors.ModifyScopeVariableError: "changes variables of its own while training: only the "
    "running statistics of jaxmnist.models.BatchNorm can change",
}


def failure(model: Any, images: Any, error: BaseException) -> str:
    """What to say of a model that raises an error, or is none.

    Args:
      model: what was given as a model.
      images: shape and dtype of those that it was tried on.
      error: what it raised.
    """
    if not isinstance(model, nn.Module):
        rule = "must be an object of a flax.linen.Module class: call the class"
        return f"model={in_line(repr(model)):.80} {rule}"
    reason = f"{type(error).__name__}: {in_line(error):.300}"
    fails = f"fails on images {images.dtype} {images.shape}: {reason}; correct it or model.kwargs"
    return f"model {type(model).__name__} {_FORBIDDEN.get(type(error), fails)}"


def no_logits(model: nn.Module, given: Any, *, classes: int) -> str:
    """What to say of a model that gives something else than an array of floating-point numbers.

    Args:
      model: that was tried.
      given: by it.
      classes: number of logits expected.
    """
    found = getattr(given, "dtype", type(given).__name__)
    rule = f"it must return one floating-point array, the logits [b, {classes}]"
    return f"model {type(model).__name__} gives {found}: {rule}"
