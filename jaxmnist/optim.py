"""Optimizers and learning-rate schedules, built from their names and plain arguments with optax."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmnist.config.durations import Duration, to_steps
from jaxmnist.errors import ConfigError

Schedule = Callable[[Any], Any]


def _constant(peak: float, steps: int) -> Schedule:
    return optax.constant_schedule(peak)


def _linear(peak: float, steps: int, *, end: float = 0.0) -> Schedule:
    return optax.linear_schedule(peak, peak * end, max(1, steps))


def _cosine(peak: float, steps: int, *, end: float = 0.0) -> Schedule:
    return optax.cosine_decay_schedule(peak, max(1, steps), alpha=end)


def _one_cycle(
    peak: float, steps: int, *, rise: float = 0.3, start: float = 0.04, end: float = 1e-4
) -> Schedule:
    """Cosine up to the peak, cosine down to the end (arXiv:1708.07120)."""
    top = min(max(1, round(rise * steps)), max(1, steps - 1))
    up = _cosine_between(start * peak, peak, top)
    down = _cosine_between(peak, end * peak, max(1, steps - top))
    return optax.join_schedules([up, down], [top])


def _step(peak: float, steps: int, *, every: int, factor: float = 0.1) -> Schedule:
    return optax.exponential_decay(peak, every, factor, staircase=True)


def _piecewise(peak: float, steps: int, *, at: tuple[int, ...], factors: Any) -> Schedule:
    if len(at) != len(factors):
        raise TypeError(f"at has {len(at)} entries and factors {len(factors)}: give equally many")
    return optax.piecewise_constant_schedule(peak, dict(zip(at, factors, strict=True)))


SCHEDULES: Mapping[str, Callable[..., Schedule]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "one_cycle": _one_cycle,
    "step": _step,
    "piecewise": _piecewise,
}
# Arguments given as durations ("2 epochs"), turned into steps before a schedule sees them.
_DURATIONS = ("every", "at", "warmup")


def _cosine_between(start: float, end: float, steps: int) -> Schedule:
    def schedule(count: Any) -> Any:
        x = jnp.clip(count / steps, 0.0, 1.0)
        return end + (start - end) * 0.5 * (1.0 + jnp.cos(math.pi * x))

    return schedule


def make_schedule(
    name: str,
    peak: float,
    *,
    steps: int,
    batch_size: int,
    train_examples: int,
    kwargs: Mapping[str, Any] | None = None,
) -> Schedule:
    """A function from the number of finished steps to the learning rate of the next.

    Args:
      name: one of `SCHEDULES`.
      peak: the highest learning rate.
      steps: length of the training.
      batch_size: rows in a global batch; with `train_examples` it turns durations into steps.
      train_examples: examples in an epoch.
      kwargs: arguments of the schedule; `warmup`, a duration, puts a linear rise from 0 before
        any of them.

    Raises:
      ConfigError: unknown name, or arguments that the schedule does not take.
    """
    if name not in SCHEDULES:
        raise ConfigError([f"schedule.name={name!r} is not one of {', '.join(sorted(SCHEDULES))}"])

    def in_steps(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return tuple(in_steps(v) for v in value)
        duration = Duration.parse(value)
        return to_steps(duration, batch_size=batch_size, train_examples=train_examples)

    try:
        arguments = {k: in_steps(v) if k in _DURATIONS else v for k, v in (kwargs or {}).items()}
        warmup = arguments.pop("warmup", 0)
        schedule = SCHEDULES[name](peak, max(1, steps - warmup), **arguments)
        if warmup:
            rise = optax.linear_schedule(0.0, peak, warmup)
            schedule = optax.join_schedules([rise, schedule], [warmup])
        rate = float(schedule(0))
    except (TypeError, ValueError) as error:
        accepted = [*list(inspect.signature(SCHEDULES[name]).parameters)[2:], "warmup"]
        raise ConfigError(
            [f"schedule.kwargs for {name!r}: {error} (it takes {', '.join(accepted)})"]
        ) from error
    if not math.isfinite(rate):
        raise ConfigError([f"schedule {name!r} starts at {rate}: its arguments make no sense"])
    return schedule


def decayed(schedule: Schedule, weight_decay: float) -> optax.GradientTransformation:
    """Decoupled weight decay (arXiv:1711.05101) of matrices and kernels, not biases or scales."""

    def init(params: optax.Params) -> optax.OptState:
        return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        rate = schedule(state.count) * weight_decay
        updates = jax.tree.map(lambda u, p: u - rate * p if p.ndim > 1 else u, updates, params)
        return updates, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)


def make_optimizer(
    name: str,
    schedule: Schedule,
    *,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> optax.GradientTransformation:
    """Clipping by global norm, then the optax optimizer of that name, then decoupled decay.

    Args:
      name: a constructor in optax that takes `learning_rate`, such as "adam" or "sgd".
      schedule: learning rate by finished steps.
      weight_decay: each step takes learning rate × this from matrices and kernels.
      clip_norm: gradients whose global norm is larger are scaled down to it (arXiv:1211.5063).
      kwargs: further arguments of the constructor.

    Raises:
      ConfigError: no such optimizer, or arguments that it does not take.
    """
    constructor = getattr(optax, name, None) if name.isidentifier() else None
    parameters = _parameters(constructor)
    if constructor is None or "learning_rate" not in parameters:
        raise ConfigError(
            [
                f"optimizer.name={name!r} is not an optimizer of optax that takes learning_rate, "
                "such as adam, adamw, sgd, lion, rmsprop"
            ]
        )
    try:
        parts = [constructor(learning_rate=schedule, **(kwargs or {}))]
    except (TypeError, ValueError) as error:
        raise ConfigError([f"optimizer.kwargs for {name!r}: {error}"]) from error
    if clip_norm is not None:
        parts.insert(0, optax.clip_by_global_norm(clip_norm))
    if weight_decay:
        parts.append(decayed(schedule, weight_decay))
    return optax.chain(*parts) if len(parts) > 1 else parts[0]


def _parameters(function: Any) -> Mapping[str, Any]:
    """The parameters of a function; none where it has no signature."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
