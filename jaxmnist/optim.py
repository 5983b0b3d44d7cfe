"""Optimizers and learning-rate schedules, built from their names and plain arguments with optax."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

import jax
import optax

from jaxmnist.config.durations import Duration, to_steps
from jaxmnist.errors import ConfigError

Schedule = Callable[[Any], Any]
Kwargs = Mapping[str, Any]


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
    return optax.piecewise_constant_schedule(peak, dict(zip(at, factors, strict=True)))


# By the name that the configuration gives, which is that of the function.
_SCHEDULES = (_constant, _linear, _cosine, _one_cycle, _step, _piecewise)
SCHEDULES: Final[Kwargs] = {function.__name__.lstrip("_"): function for function in _SCHEDULES}
# Arguments given as durations ("2 epochs"), turned into steps before a schedule sees them.
_DURATIONS = {"every", "at", "warmup"}


def make_schedule(
    name: str, peak: float, *, steps: int, batch_size: int, train_examples: int, kwargs: Kwargs
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

    def in_steps(value: Any) -> int:
        return to_steps(Duration.parse(value), batch_size=batch_size, train_examples=train_examples)

    try:
        given = {k: jax.tree.map(in_steps, v) if k in _DURATIONS else v for k, v in kwargs.items()}
        warmup = given.pop("warmup", 0)
        schedule = SCHEDULES[name](peak, max(1, steps - warmup), **given)
        if warmup:
            rise = optax.linear_schedule(0.0, peak, warmup)
            schedule = optax.join_schedules([rise, schedule], [warmup])
        schedule(0)
    except (TypeError, ValueError) as error:
        accepted = [*list(inspect.signature(SCHEDULES[name]).parameters)[2:], "warmup"]
        fault = f"schedule.kwargs={kwargs} for {name!r}: {error}"
        raise ConfigError([f"{fault} (it takes {', '.join(accepted)})"]) from error
    return schedule


def decayed(schedule: Schedule, weight_decay: float) -> optax.GradientTransformation:
    """Decoupled weight decay (arXiv:1711.05101) of matrices and kernels, not biases or scales."""
    scale = optax.scale_by_schedule(lambda count: -weight_decay * schedule(count))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        decay, state = scale.update(params, state)
        return jax.tree.map(lambda u, d: u + d if d.ndim > 1 else u, updates, decay), state

    return optax.GradientTransformation(scale.init, update)


def make_optimizer(
    name: str, schedule: Schedule, *, weight_decay: float, clip_norm: float | None, kwargs: Kwargs
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
    # Names with capitals are types, of which some have no signature.
    constructor: Any = vars(optax).get(name) if name.islower() else None
    parameters = inspect.signature(constructor).parameters if callable(constructor) else ()
    if "learning_rate" not in parameters:
        rule = "is not an optimizer of optax that takes learning_rate"
        raise ConfigError([f"optimizer.name={name!r} {rule}, such as adam, sgd, lion, rmsprop"])
    # One key decides on decay: adamw and lion would decay by default.
    arguments = dict.fromkeys({"weight_decay"} & {*parameters}, 0.0) | dict(kwargs)
    try:
        tx = constructor(learning_rate=schedule, **arguments)
        # In the abstract, so that arguments it cannot use are found before data are read.
        kernel = jax.ShapeDtypeStruct((2, 3), "float32")
        jax.eval_shape(lambda params: tx.update(params, tx.init(params), params), kernel)
    except Exception as error:
        raise ConfigError([f"optimizer.kwargs={kwargs} for {name!r}: {error}"]) from error
    clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm is not None else []
    decay = [decayed(schedule, weight_decay)] if weight_decay else []
    return optax.chain(*clip, tx, *decay) if clip or decay else tx
