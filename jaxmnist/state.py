"""The train state: all that a step reads and writes, and its digests."""

import hashlib
from typing import Any, Final

import flax.struct
import jax
import numpy as np
import optax

from jaxmnist.metrics import Window

#: What the state says of the steps, before there was one.
UNWATCHED: Final[dict[str, Any]] = {"window": Window.empty(), "first_bad_step": np.int32(-1)}


class TrainState(flax.struct.PyTreeNode):
    """One pytree of replicated arrays; no random state, since every draw is keyed by the step.

    Attributes:
      step: int32, number of finished steps.
      params: the model's parameters, float32.
      batch_stats: running statistics of batch norm, empty without.
      opt_state: the optimizer's state.
      ema: exponential moving average of the parameters, None when off.
      window: metric sums since the last log line.
      first_bad_step: int32, the first step whose loss or update was not finite; -1 before.
    """

    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any
    window: Window
    first_bad_step: Any

    @property
    def inference_params(self) -> Any:
        """The parameters to evaluate with: the moving average where there is one."""
        return self.params if self.ema is None else self.ema


def create_state(variables: Any, tx: optax.GradientTransformation, *, ema: bool) -> TrainState:
    """The state before the first step, from a model's initial variables."""
    params = variables["params"]
    return TrainState(
        step=np.int32(0),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=tx.init(params),
        # A copy: the state is donated, and one buffer cannot be given away twice.
        ema=jax.tree.map(lambda x: x.copy(), params) if ema else None,
        **UNWATCHED,
    )


def parameter_count(params: Any) -> int:
    """Number of scalars in a tree of arrays or of their shapes."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def tree_sha256(tree: Any) -> str:
    """SHA-256 over path, dtype, shape and little-endian bytes of the leaves in the paths' order.

    Args:
      tree: a pytree of arrays that this process can read.

    Returns:
      64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    leaves = jax.tree.leaves_with_path(jax.device_get(tree))
    for path, leaf in sorted((jax.tree_util.keystr(path), np.asarray(x)) for path, x in leaves):
        digest.update(f"{path}|{leaf.dtype.name}|{leaf.shape}|".encode())
        digest.update(leaf.astype(leaf.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
