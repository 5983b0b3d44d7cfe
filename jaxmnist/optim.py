"""Optimizers and learning-rate schedules, built from their names and plain arguments with optax."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import jax
import optax

from jaxmnist.config import did_you_mean
from jaxmnist.config.durations import Duration, to_steps
from jaxmnist.errors import ConfigError
from jaxmnist.names import find, in_line, parameters, resolve

Schedule = Callable[[Any], Any]
Kwargs = Mapping[str, Any]

# By the name that the configuration gives: functions `(peak, steps, **kwargs)` of schedules.
_SCHEDULES = ("constant", "linear", "cosine", "one_cycle", "step", "piecewise")
SCHEDULES: Final = {name: f"jaxmnist.zoo.schedules:{name}" for name in _SCHEDULES}
# Arguments given as durations ("2 epochs"), turned into steps before a schedule sees them.
_DURATIONS = {"every", "at", "warmup"}


def make_schedule(
    name: str, peak: float, *, steps: int, batch_size: int, train_examples: int, kwargs: Kwargs
) -> Schedule:
    """A function from the number of finished steps to the learning rate of the next.

    Args:
      name: one of `SCHEDULES`, or a dotted path to a function `(peak, steps, **kwargs)` that gives
        such a function; it is tried on the number of a step.
      peak: the highest learning rate.
      steps: length of the training.
      batch_size: rows in a global batch; with `train_examples` it turns durations into steps.
      train_examples: examples in an epoch.
      kwargs: arguments of the schedule; `warmup`, a duration, puts a linear rise from 0 before
        any of them.

    Raises:
      ConfigError: unknown name, arguments that the schedule does not take, or no such function.
    """
    make = find(name, SCHEDULES, key="schedule.name")

    def in_steps(value: Any) -> int:
        return to_steps(Duration.parse(value), batch_size=batch_size, train_examples=train_examples)

    try:
        given = {k: jax.tree.map(in_steps, v) if k in _DURATIONS else v for k, v in kwargs.items()}
        warmup = given.pop("warmup", 0)
        schedule = make(peak, max(1, steps - warmup), **given)
        if warmup:
            rise = optax.linear_schedule(0.0, peak, warmup)
            schedule = optax.join_schedules([rise, schedule], [warmup])
        rate = jax.eval_shape(schedule, jax.ShapeDtypeStruct((), "int32"))
        if getattr(rate, "shape", None) != ():
            raise TypeError(f"the rate of a step is {rate!r:.80}, expected one number")
    except (Exception, SystemExit) as error:  # the user's function may raise anything
        rule = "it must give a function from finished steps to a learning rate"
        accepted = ", ".join([*parameters(make)[2:], "warmup"])
        reason = in_line(error).removeprefix("configuration: ")
        fault = f"schedule.kwargs={kwargs} for {name!r}: {reason} (it takes {accepted})"
        raise ConfigError([f"{fault}; {rule}"]) from error
    return schedule


def make_optimizer(
    name: str, schedule: Schedule, *, weight_decay: float, clip_norm: float | None, **more: Any
) -> optax.GradientTransformation:
    """Clipping by global norm, then the optimizer of that name, then decoupled decay.

    Args:
      name: a constructor in optax that takes `learning_rate`, such as "adam" or "sgd", or a dotted
        path to one of the user's own.
      schedule: learning rate by finished steps.
      weight_decay: each step takes learning rate × this from matrices and kernels.
      clip_norm: gradients whose global norm is larger are scaled down to it (arXiv:1211.5063).
      **more: `kwargs`, further arguments of the constructor, and `no_decay`, what is not decayed
        besides biases and scales, as `spare` of `jaxmnist.zoo.decay.decayed`.

    Raises:
      ConfigError: no such optimizer, arguments that it does not take, or one whose update needs
        more than gradients and parameters.
    """
    kwargs, spare, own = more["kwargs"], more.get("no_decay") or "", ":" in name
    # Names with capitals are types, of which some have no signature.
    optaxs: Any = vars(optax).get(name) if name.islower() else None
    constructor: Any = resolve(name, key="optimizer.name") if own else optaxs
    if "learning_rate" not in (accepted := parameters(constructor)):
        rule = "is not an optimizer of optax that takes learning_rate, such as adam, sgd, lion"
        repair = "rmsprop, nor 'package.module:function' of such a constructor of your own"
        near = did_you_mean(name, ("adam", "adamw", "sgd", "lion", "rmsprop", "lamb", "adagrad"))
        raise ConfigError([f"optimizer.name={name!r} {rule}, {repair}{near}"])
    # One key decides on decay: adamw and lion would decay by default.
    arguments = dict.fromkeys({"weight_decay"} & {*accepted}, 0.0) | dict(kwargs)
    try:
        tx = constructor(learning_rate=schedule, **arguments)
        if not isinstance(tx, optax.GradientTransformation):
            raise TypeError(
                f"it gives {in_line(repr(tx)):.80}, expected an optax.GradientTransformation"
            )
        # In the abstract, so that arguments it cannot use are found before data are read. One of
        # the user's own may need to see the model's parameters.
        kernel = jax.ShapeDtypeStruct((2, 3), "float32")
        if not own:
            jax.eval_shape(lambda params: tx.update(params, tx.init(params), params), kernel)
    except (Exception, SystemExit) as error:  # the user's constructor may raise anything
        rule = f"it takes {', '.join(accepted)}, and its update must need gradients and params only"
        fault = f"optimizer.kwargs={kwargs} for {name!r}: {in_line(error)}; {rule}"
        raise ConfigError([fault]) from error
    chain = [optax.clip_by_global_norm(clip_norm), tx] if clip_norm is not None else [tx]
    if weight_decay:
        chain.append(resolve("jaxmnist.zoo.decay:decayed")(schedule, weight_decay, spare=spare))
    return optax.chain(*chain) if len(chain) > 1 else tx
