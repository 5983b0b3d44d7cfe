"""Lengths of training in steps, epochs or examples, in exact arithmetic."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Self

from jaxmnist.errors import ConfigError

# Digits and exponent are bounded so that no text can ask for a number of a million digits.
_NUMBER: Final = re.compile(r"(\d(_?\d){0,30}(\.\d{0,30})?|\.\d{1,30})(e[+-]?\d{1,2})?")


@dataclass(frozen=True)
class Duration:
    """A length of training, or the period of something that recurs in it; made by `parse`.

    Attributes:
      amount: how many units; positive, whole for steps and examples.
      unit: "steps", "epochs" or "examples".
    """

    amount: Fraction
    unit: str

    @classmethod
    def parse(cls, value: float | str) -> Self:
        """Returns the duration that a config value names.

        Args:
          value: an int (steps), or a number and a unit in a string: "2 epochs", "1 step",
            "1e5 examples"; a number alone means steps.

        Raises:
          ConfigError: the value names no duration.
        """
        number, _, word = str(value).lower().strip().partition(" ")
        unit = (word.strip() or "step").removesuffix("s") + "s"
        amount = Fraction(number if _NUMBER.fullmatch(number) else 0)
        whole = unit == "epochs" or amount.denominator == 1
        if unit not in ("steps", "epochs", "examples") or amount <= 0 or not whole:
            rule = "positive, whole unless epochs, such as 20 (steps), '2 epochs', '1e5 examples'"
            raise ConfigError([f"duration {value!r} must be '<number> <unit>' or a number: {rule}"])
        return cls(amount, unit)


def training_length(**lengths: float | None) -> Duration:
    """Returns the length of training as one duration; 0.1 epochs are exactly a tenth.

    Args:
      **lengths: epochs, steps and examples; exactly one of them is not None.

    Raises:
      ConfigError: it is not a length.
    """
    ((unit, amount),) = [(unit, n) for unit, n in lengths.items() if n is not None]
    return Duration.parse(f"{amount} {unit}")


def to_steps(duration: Duration, *, batch_size: int, train_examples: int) -> int:
    """Returns the step at which a duration that starts at step 0 has passed.

    N examples in batches of B: x epochs end at step ceil(x·N/B), m examples at step ceil(m/B).

    Args:
      duration: what is to pass.
      batch_size: examples in a step, over all devices; positive.
      train_examples: examples in an epoch; positive.
    """
    return math.ceil(_period(duration, batch_size=batch_size, train_examples=train_examples))


def next_due(step: int, duration: Duration, *, batch_size: int, train_examples: int) -> int:
    """Returns the first step after this one at whose end something that recurs is due.

    Its i-th time (i ≥ 1) is step ceil(i·p), p the exact period in steps. Several times that fall
    within one step are one; none is lost and none comes twice.

    Args:
      step: optimizer steps done.
      duration: the period.
      batch_size: examples in a step, over all devices; positive.
      train_examples: examples in an epoch; positive.
    """
    period = _period(duration, batch_size=batch_size, train_examples=train_examples)
    # ceil(i·p) > step means i·p > step.
    return math.ceil((step // period + 1) * period)


def _period(duration: Duration, *, batch_size: int, train_examples: int) -> Fraction:
    scale = {"steps": batch_size, "epochs": train_examples, "examples": 1}[duration.unit]
    return duration.amount * scale / batch_size
