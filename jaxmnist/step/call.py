"""A step as the loop sees it: something to call, to compile ahead and to audit."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax


@dataclass(frozen=True)
class Step:
    """A step over a mesh, ready to be called.

    Attributes:
      call: takes placed arrays, gives placed arrays; a train step consumes (donates) its state.
      lower: lowers the functions that one call runs, from arrays or their shapes; a function that
        runs several times is there as often.
    """

    call: Callable[..., Any]
    lower: Callable[..., tuple[jax.stages.Lowered, ...]]

    def __call__(self, *args: Any) -> Any:
        """Dispatches the step; returns before it is done."""
        return self.call(*args)

    def compile(self, *args: Any) -> tuple[jax.stages.Compiled, ...]:
        """Compiles for these arguments, so that the first call runs at once."""
        return tuple(lowered.compile() for lowered in self.lower(*args))


def single(function: Any) -> Step:
    """A step of one jitted function."""
    return Step(call=function, lower=lambda *args: (function.lower(*args),))
