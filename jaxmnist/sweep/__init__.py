"""Many runs of one configuration, compared; the module itself can be called: `jaxmnist.sweep(…)`.

Every run is a process of its own that does what `jaxmnist train` does, with a work directory of its
own: so a seed gives the same result alone and in a sweep, and what was killed goes on.
"""

import sys
from types import ModuleType
from typing import Any

from jaxmnist.sweep.book import Sweep as Sweep
from jaxmnist.sweep.make import sweep as sweep

__all__ = ["Sweep", "sweep"]


class _Callable(ModuleType):
    """Importing this sub-package puts the module where `jaxmnist.sweep` is expected."""

    def __call__(self, *args: Any, **kwargs: Any) -> Sweep:
        return sweep(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
