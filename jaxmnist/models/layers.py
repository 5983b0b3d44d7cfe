"""Drop-in layers whose results do not depend on the number of devices: Dropout and BatchNorm."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmnist.errors import ModelError
from jaxmnist.models.rows import Rows, current, row_keys


class Dropout(nn.Module):
    """Dropout (arXiv:1207.0580) keyed by the example's row in the global batch.

    Takes the arguments of `flax.linen.Dropout` that make sense here; no `rngs` are needed.

    Attributes:
      rate: probability of dropping an element, 0 ≤ rate ≤ 1.
      broadcast_dims: dimensions (not 0) along which one draw is shared.
      deterministic: True for no dropout; may be given at the call instead.
    """

    rate: float
    broadcast_dims: Sequence[int] = ()
    deterministic: bool | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array, deterministic: bool | None = None) -> jax.Array:
        """Drops elements of inputs [b, ...] and scales the others by 1 / (1 - rate)."""
        deterministic = nn.merge_param("deterministic", self.deterministic, deterministic)
        if not 0.0 <= self.rate <= 1.0:
            raise ModelError(f"Dropout(rate={self.rate}) must be in [0, 1]: correct the rate")
        if deterministic or self.rate == 0.0:
            return inputs
        if self.rate == 1.0:
            return jnp.zeros_like(inputs)
        shape = list(inputs.shape)
        for d in self.broadcast_dims:
            shape[d] = 1
        keys = row_keys(self, inputs.shape[0])
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - self.rate, shape[1:]))(keys)
        return jnp.where(keep, inputs / (1.0 - self.rate), jnp.zeros_like(inputs))


class BatchNorm(nn.Module):
    """Batch norm (arXiv:1502.03167) over fixed groups of consecutive rows of the global batch.

    Statistics per group of rows (ghost batch norm, arXiv:1705.08741) need no communication and are
    the same on every number of devices that divides `groups`. In training the layer reports how
    far its running statistics should move; the train step sums the reports of all devices in its
    one all-reduce. Padded rows are left out. Takes the arguments of `flax.linen.BatchNorm` that
    make sense here, and `groups`.

    Attributes:
      use_running_average: True in evaluation; may be given at the call instead.
      momentum: weight of the old running statistics.
      epsilon: added to the variance.
      dtype: dtype of the result; that of the input by default. Statistics are float32.
      param_dtype: dtype of scale and bias.
      use_bias: whether to add a learned bias.
      use_scale: whether to multiply by a learned scale.
      bias_init: initialiser of the bias.
      scale_init: initialiser of the scale.
      groups: number of groups in the global batch; 1 takes statistics over the whole batch, at
        the price of two all-reduces for each layer.
    """

    use_running_average: bool | None = None
    momentum: float = 0.99
    epsilon: float = 1e-5
    dtype: Any = None
    param_dtype: Any = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Callable[..., Any] = nn.initializers.zeros
    scale_init: Callable[..., Any] = nn.initializers.ones
    groups: int = 8

    @nn.compact
    def __call__(self, x: jax.Array, use_running_average: bool | None = None) -> jax.Array:
        """Normalises x [b, ..., c] over all dimensions but the last."""
        name = "use_running_average"
        frozen = nn.merge_param(name, self.use_running_average, use_running_average)
        c = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (c,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (c,), jnp.float32)
        groups = 1
        mean, var = running_mean.value[None], running_var.value[None]
        if not frozen and not self.is_initializing():
            rows = current(x.shape[0])
            groups = self._local_groups(rows, x.shape[0])
            mean, var, weight = self._statistics(x, rows, groups)
            self._report("mean", (weight * (mean - running_mean.value)).sum(0), weight)
            self._report("var", (weight * (var - running_var.value)).sum(0), weight)
        y = x.astype(jnp.float32).reshape(groups, -1, c)
        y = (y - mean[:, None]) * jax.lax.rsqrt(var[:, None] + self.epsilon)
        y = y.reshape(x.shape)
        if self.use_scale:
            y = y * self.param("scale", self.scale_init, (c,), self.param_dtype)
        if self.use_bias:
            y = y + self.param("bias", self.bias_init, (c,), self.param_dtype)
        return y.astype(self.dtype or x.dtype)

    def _local_groups(self, rows: Rows, batch: int) -> int:
        """How many whole groups the rows of this call make up."""
        if self.groups == 1:
            if rows.parts > 1 and not rows.communicate:
                need = "needs communication inside the model, which parallel.deterministic forbids"
                repair = "use groups=8, or switch parallel.deterministic off"
                raise ModelError(f"BatchNorm(groups=1) over the whole batch {need}: {repair}")
            return 1
        local = self.groups // rows.parts
        if self.groups % rows.parts or batch % local:
            fault = f"cannot split {rows.parts} part(s) of {batch} row(s) into equal groups"
            rule = "that the number of devices divides and that divide the batch (or microbatch)"
            raise ModelError(f"BatchNorm(groups={self.groups}) {fault}: choose groups {rule}")
        return local

    def _statistics(self, x: jax.Array, rows: Rows, groups: int) -> tuple[jax.Array, ...]:
        """Mean [g, c], variance [g, c] and weight [g, 1] (0 for a group of padding) in float32."""
        spread = x.astype(jnp.float32).reshape(groups, x.shape[0] // groups, -1, x.shape[-1])
        mask = rows.mask.reshape(groups, -1, 1, 1)
        kept = jnp.where(mask, spread, 0.0)
        count = mask.sum(axis=(1, 2)).astype(jnp.float32) * spread.shape[2]
        sums = (kept.sum(axis=(1, 2)), jnp.square(kept).sum(axis=(1, 2)), count)
        whole = self.groups == 1
        total, squares, count = jax.lax.psum(sums, rows.axis) if whole and rows.axis else sums
        # A product: XLA may or may not turn a division by one number into one, and rounds anew.
        share = 1.0 / jnp.maximum(count, 1.0)
        mean = total * share
        if whole:  # from the squares, so that one all-reduce will do
            var = jnp.maximum(squares * share - jnp.square(mean), 0.0)
        else:
            centred = jnp.where(mask, spread - mean[:, None, None], 0.0)
            var = jnp.square(centred).sum(axis=(1, 2)) * share
        return mean, var, (count > 0).astype(jnp.float32)

    def _report(self, name: str, move: jax.Array, weight: jax.Array) -> None:
        """Adds this call's wish to the sums that the step reduces over all devices."""
        report = {"move": (1.0 - self.momentum) * move, "weight": weight.sum()}
        if self.has_variable("batch_sums", name):
            report = jax.tree.map(jnp.add, self.get_variable("batch_sums", name), report)
        self.put_variable("batch_sums", name, report)
