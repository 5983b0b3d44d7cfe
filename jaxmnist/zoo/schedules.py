"""Learning rates by finished steps, made from the highest rate and the length of the training.

Each takes `peak`, `steps` and arguments of its own, and gives what optax calls a schedule.
"""

from typing import Any

import optax


def constant(peak: float, steps: int) -> Any:
    """The peak, always."""
    return optax.constant_schedule(peak)


def linear(peak: float, steps: int, *, end: float = 0.0) -> Any:
    """Falls on a line to `end` times the peak."""
    return optax.linear_schedule(peak, peak * end, max(1, steps))


def cosine(peak: float, steps: int, *, end: float = 0.0) -> Any:
    """Falls on half a cosine to `end` times the peak (arXiv:1608.03983)."""
    return optax.cosine_decay_schedule(peak, max(1, steps), alpha=end)


def one_cycle(
    peak: float, steps: int, *, rise: float = 0.3, start: float = 0.04, end: float = 1e-4
) -> Any:
    """Cosine up to the peak, cosine down to the end (arXiv:1708.07120)."""
    top = min(max(1, round(rise * steps)), max(1, steps - 1))
    missing = optax.cosine_decay_schedule(peak - start * peak, top)
    down = cosine(peak, steps - top, end=end)
    return optax.join_schedules([lambda count: peak - missing(count), down], [top])


def step(peak: float, steps: int, *, every: int, factor: float = 0.1) -> Any:
    """Multiplied by `factor` after every so many steps."""
    return optax.exponential_decay(peak, every, factor, staircase=True)


def piecewise(peak: float, steps: int, *, at: tuple[int, ...], factors: Any) -> Any:
    """Multiplied by one of `factors` from each of the steps `at` on."""
    return optax.piecewise_constant_schedule(peak, dict(zip(at, factors, strict=True)))
