"""Decoupled weight decay, and which parameters are spared."""

from fnmatch import fnmatchcase
from typing import Any

import jax
import optax

from jaxmnist.optim import Schedule


def decayed(
    schedule: Schedule, weight_decay: float, *, spare: str = ""
) -> optax.GradientTransformation:
    """Decoupled weight decay (arXiv:1711.05101) of matrices and kernels, not biases or scales.

    `spare` names more that is not decayed: patterns of paths such as "Dense_0/kernel", with the
    wildcards *, ? and [...], joined by commas.
    """
    scale = optax.scale_by_schedule(lambda count: -weight_decay * schedule(count))

    def added(path: Any, update: jax.Array, decay: jax.Array) -> jax.Array:
        return update + decay if decay.ndim > 1 and not spared(path, spare) else update

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        decay, state = scale.update(params, state)
        return jax.tree.map_with_path(added, updates, decay), state

    return optax.GradientTransformation(scale.init, update)


def spared(path: Any, patterns: str) -> list[str]:
    """Those of the patterns, joined by commas, that the path of a parameter matches."""
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return [p for p in patterns.split(",") if fnmatchcase(name, p.strip())]
