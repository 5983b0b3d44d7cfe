"""Tries a function of the user's own on a few rows, and says in a sentence what is wrong."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxmnist.errors import ConfigError
from jaxmnist.names import in_line

# Rows that a function is tried on; an odd number, and no class or channel count that is usual.
ROWS = 7
# Of the largest value: what the order of a sum may change, and no mean over the batch does.
_ROUNDING = 1e-4


def name_of(part: Any) -> str:
    """What to call a part in a sentence: as the configuration does, or by its own name."""
    if isinstance(part, str):
        return repr(part)
    part = part.func if isinstance(part, functools.partial) else part
    return str(getattr(part, "__qualname__", type(part).__qualname__))


def try_rows(what: str, function: Callable[..., Any], rows: Sequence[Any], *, like: Any) -> None:
    """Calls a function of arrays with `ROWS` rows, and then with fewer of them.

    Args:
      what: what to call it, such as "loss.name='losses:mine'".
      function: takes arrays with a leading axis of rows, gives one such array.
      rows: concrete arrays to call it with.
      like: shape and dtype that its result must have.

    Raises:
      ConfigError: it fails, gives something else, or what it gives for a row depends on the rows
        beside it, and so on how many there are on a device.
    """
    try:
        found = jax.eval_shape(function, *rows)
    except (Exception, SystemExit) as error:  # the user's function may raise anything
        given = ", ".join(f"{x.dtype}{list(x.shape)}" for x in rows)
        reason = f"fails on {given}: {type(error).__name__}: {in_line(error):.300}"
        raise ConfigError([f"{what} {reason}; correct the function or its kwargs"]) from error
    if (getattr(found, "shape", None), getattr(found, "dtype", None)) != (like.shape, like.dtype):
        array = hasattr(found, "dtype") and hasattr(found, "shape")
        text = f"{found.dtype}{list(found.shape)}" if array else f"a {type(found).__name__}"
        wanted = f"{like.dtype}{list(like.shape)} is expected for {ROWS} rows"
        cast = array and found.shape == like.shape
        repair = f"cast it with .astype('{like.dtype}')" if cast else f"give {_per_row(like)}"
        raise ConfigError([f"{what} gives {text}, {wanted}: {repair}"])
    whole, part = (np.asarray(jax.jit(function)(*(x[:n] for x in rows))) for n in (ROWS, ROWS - 3))
    if part.dtype.kind == "f" and not np.isfinite(whole).all():
        fault = f"{what} gives NaN or infinite values for finite ones"
        raise ConfigError([f"{fault}: look for a logarithm or root of 0, or a division by it"])
    gap = np.abs(whole[: ROWS - 3].astype(np.float64) - part)
    # Whole numbers may be rounded to the neighbour, hence 1.
    allowed = 1.0 if part.dtype.kind in "iu" else _ROUNDING * max(1.0, float(np.abs(part).max()))
    if not (gap <= allowed).all():
        rule = "gives a row another value when other rows are beside it"
        repair = "compute each row from itself alone; sums and means over the batch are the step's"
        fault = f"{what} {rule}, so that results would depend on the number of devices"
        raise ConfigError([f"{fault}: {repair}"])


def _per_row(like: Any) -> str:
    return "one number for each row" if len(like.shape) == 1 else "images as it is given them"
