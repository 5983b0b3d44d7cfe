"""An optimizer and a schedule of one's own, made of optax's parts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax


def centralized(learning_rate: Any, momentum: float = 0.9) -> optax.GradientTransformation:
    """SGD on gradients whose mean over a unit's inputs is taken away (arXiv:2004.01461)."""

    def centre(g: jax.Array) -> jax.Array:
        return g - g.mean(tuple(range(g.ndim - 1)), keepdims=True) if g.ndim > 1 else g

    return optax.chain(
        optax.stateless(lambda updates, params: jax.tree.map(centre, updates)),
        optax.trace(momentum),
        optax.scale_by_learning_rate(learning_rate),
    )


def square_root(peak: float, steps: int, *, end: float = 0.1) -> Callable[[Any], Any]:
    """A rate that falls with the root of the step; `end` is its share at the last one."""
    return lambda count: peak * (1 - (1 - end) * jnp.sqrt(jnp.minimum(count / steps, 1.0)))
