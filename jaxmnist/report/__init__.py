"""One HTML file that shows a run; the module itself can be called: `jaxmnist.report(workdir)`."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxmnist.report.page import report as report

__all__ = ["report"]


class _Callable(ModuleType):
    """Importing this sub-package puts the module where `jaxmnist.report` is expected."""

    def __call__(self, *args: Any, **kwargs: Any) -> Path:
        return report(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
