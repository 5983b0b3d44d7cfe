"""Tries an optimizer of the user's own, and patterns of parameters, on the model's parameters."""

from typing import Any

import jax
import optax

from jaxmnist.errors import ConfigError
from jaxmnist.names import in_line
from jaxmnist.zoo.decay import spared


def check(tx: Any, variables: Any, *, no_decay: str | None) -> None:
    """Makes a step with an optimizer in the abstract.

    Args:
      tx: the optimizer.
      variables: shapes and dtypes of the model's variables, the parameters under "params".
      no_decay: the patterns of the parameters that are not decayed, joined by commas.

    Raises:
      ConfigError: it is none, fails, or its updates do not fit the parameters; or a pattern
        matches no parameter.
    """
    params = variables["params"]
    if not isinstance(tx, optax.GradientTransformation):
        rule = "it must be an optax.GradientTransformation, such as optax.adam(1e-3)"
        raise ConfigError([f"the optimizer tx is {in_line(repr(tx)):.80}: {rule}"])
    try:
        updates = jax.eval_shape(lambda p: tx.update(p, tx.init(p), p)[0], params)
    except (Exception, SystemExit) as error:  # the user's optimizer may raise anything
        fault = f"fails on the model's parameters: {type(error).__name__}: {in_line(error):.300}"
        rule = "its update is given gradients, its state and the parameters"
        raise ConfigError([f"the optimizer {fault}; {rule}: correct it or its kwargs"]) from error
    found, wanted = (_types(tree) for tree in (updates, params))
    if wrong := [name for name in found | wanted if found.get(name) != wanted.get(name)]:
        both = f"{found.get(wrong[0])} for {wrong[0]}, which is {wanted.get(wrong[0])}"
        rule = "an update must have the tree, shapes and dtypes of the parameters"
        raise ConfigError([f"the optimizer gives an update {both}: {rule}"])
    leaves = jax.tree.leaves_with_path(params)
    matched = {pattern for path, _ in leaves for pattern in spared(path, no_decay or "")}
    if idle := [p for p in (no_decay or "").split(",") if p and p not in matched]:
        fault = f"optimizer.no_decay={no_decay!r}: {', '.join(idle)} matches no parameter"
        raise ConfigError([f"{fault}; there are {', '.join(wanted)}"])


def _types(tree: Any) -> dict[str, str]:
    leaves = jax.tree.leaves_with_path(tree)
    named = ((jax.tree_util.keystr(p, simple=True, separator="/"), x) for p, x in leaves)
    return {name: f"{x.dtype}{list(x.shape)}" for name, x in named}
