"""Data-parallel training in JAX, proven: any number of devices, exact resume, exact evaluation.

The names below are imported when they are first used: `import jaxmnist` starts no backend and does
not import JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxmnist.config import get_config as get_config
    from jaxmnist.runs.ensemble import evaluate as evaluate
    from jaxmnist.runs.export import export as export
    from jaxmnist.runs.exported import load_exported as load_exported
    from jaxmnist.runs.predict import predict as predict
    from jaxmnist.runs.result import Result as Result
    from jaxmnist.runs.train import train as train

__version__ = "0.1.0"

_MODULES = (
    "callbacks",
    "config",
    "datasets",
    "errors",
    "models",
    "plan",
    "report",
    "step",
    "testing",
)

__all__ = ["Result", "evaluate", "export", "get_config", "load_exported", "predict", "train"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        places = {"Result": "runs.result", "evaluate": "runs.ensemble", "get_config": "config"}
        places["load_exported"] = "runs.exported"
        module = places.get(name, f"runs.{name}")
        return getattr(importlib.import_module(f"jaxmnist.{module}"), name)
    if name in _MODULES:
        return importlib.import_module(f"jaxmnist.{name}")
    raise AttributeError(f"module 'jaxmnist' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, *_MODULES])
