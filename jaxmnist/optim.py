"""Optimizers and learning-rate schedules, built from their names and plain arguments with optax."""

import contextlib
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


def _constant(peak: float, steps: int) -> Any:
    return optax.constant_schedule(peak)


def _linear(peak: float, steps: int, *, end: float = 0.0) -> Any:
    return optax.linear_schedule(peak, peak * end, max(1, steps))


def _cosine(peak: float, steps: int, *, end: float = 0.0) -> Any:
    return optax.cosine_decay_schedule(peak, max(1, steps), alpha=end)


def _one_cycle(
    peak: float, steps: int, *, rise: float = 0.3, start: float = 0.04, end: float = 1e-4
) -> Any:
    """Cosine up to the peak, cosine down to the end (arXiv:1708.07120)."""
    top = min(max(1, round(rise * steps)), max(1, steps - 1))
    missing = optax.cosine_decay_schedule(peak - start * peak, top)
    down = _cosine(peak, steps - top, end=end)
    return optax.join_schedules([lambda count: peak - missing(count), down], [top])


def _step(peak: float, steps: int, *, every: int, factor: float = 0.1) -> Any:
    return optax.exponential_decay(peak, every, factor, staircase=True)


def _piecewise(peak: float, steps: int, *, at: tuple[int, ...], factors: Any) -> Any:
    if len(at) != len(factors):
        raise TypeError(f"at has {len(at)} entries and factors {len(factors)}: give equally many")
    return optax.piecewise_constant_schedule(peak, dict(zip(at, factors, strict=True)))


# By the name that the configuration gives, which is that of the function.
_SCHEDULES = (_constant, _linear, _cosine, _one_cycle, _step, _piecewise)
SCHEDULES: Mapping[str, Callable[..., Schedule]] = {
    function.__name__.removeprefix("_"): function for function in _SCHEDULES
}
# Arguments given as durations ("2 epochs"), turned into steps before a schedule sees them.
_DURATIONS = ("every", "at", "warmup")


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
        fault = "; ".join(error.faults) if isinstance(error, ConfigError) else str(error)
        accepted = [*list(inspect.signature(SCHEDULES[name]).parameters)[2:], "warmup"]
        text = f"schedule.kwargs={kwargs} for {name!r}: {fault} (it takes {', '.join(accepted)})"
        raise ConfigError([text]) from error
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
      ConfigError: no such optimizer, arguments that it does not take, or one whose update needs
        more than gradients and parameters.
    """
    constructor: Any = getattr(optax, name, None)
    parameters: Mapping[str, Any] = {}
    with contextlib.suppress(TypeError, ValueError):  # not a function, or one without a signature
        parameters = inspect.signature(constructor).parameters
    if "learning_rate" not in parameters:
        rule = "is not an optimizer of optax that takes learning_rate"
        raise ConfigError([f"optimizer.name={name!r} {rule}, such as adam, sgd, lion, rmsprop"])
    # One key decides on decay: adamw and lion would decay by default.
    arguments = dict.fromkeys({"weight_decay"} & {*parameters}, 0.0) | dict(kwargs or {})
    tried = {"kernel": jax.ShapeDtypeStruct((2, 3), jnp.float32)}
    try:
        tx = constructor(learning_rate=schedule, **arguments)
        jax.eval_shape(lambda params: tx.update(params, tx.init(params), params), tried)
    except Exception as error:
        text = f"optimizer.kwargs={dict(kwargs or {})} for {name!r}: {error}"
        raise ConfigError([text]) from error
    parts = [tx]
    if clip_norm is not None:
        parts.insert(0, optax.clip_by_global_norm(clip_norm))
    if weight_decay:
        parts.append(decayed(schedule, weight_decay))
    return optax.chain(*parts) if len(parts) > 1 else parts[0]
