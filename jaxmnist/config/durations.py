"""Lengths of training in steps, epochs or examples, in exact arithmetic."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Self

from jaxmnist.errors import ConfigError

# Digits and exponent are bounded so that no text can ask for a number of a million digits.
_NUMBER: Final = re.compile(r"[+-]?(\d(_?\d){0,30}(\.\d{0,30})?|\.\d{1,30})(e[+-]?\d{1,2})?", re.I)


@dataclass(frozen=True)
class Duration:
    """A length of training, or the period of something that recurs in it.

    Attributes:
      amount: how many units; positive, whole for steps and examples.
      unit: "steps", "epochs" or "examples".

    Raises:
      ConfigError: amount or unit breaks those rules.
    """

    amount: Fraction
    unit: str

    def __post_init__(self) -> None:
        """Refuses what is no length."""
        whole = self.unit == "epochs" or self.amount.denominator == 1
        if self.unit not in ("steps", "epochs", "examples") or self.amount <= 0 or not whole:
            raise _fault(f"{float(self.amount):g} {self.unit}")

    @classmethod
    def parse(cls, value: int | str) -> Self:
        """Returns the duration that a config value names.

        Args:
          value: an int (steps), or a number and a unit in a string: "2 epochs", "1 step",
            "1e5 examples"; a number alone means steps.

        Raises:
          ConfigError: the value names no duration.
        """
        number, _, unit = str(value).lower().strip().partition(" ")
        plural = (unit.strip() or "step").removesuffix("s") + "s"
        if not _NUMBER.fullmatch(number):
            raise _fault(value)
        return cls(Fraction(number), plural)


def training_length(
    *, epochs: float | None = None, steps: int | None = None, examples: int | None = None
) -> Duration:
    """Returns the length of training as one duration; 0.1 epochs are exactly a tenth.

    Raises:
      ConfigError: not exactly one of the three is given, or it is not a length.
    """
    given = {"epochs": epochs, "steps": steps, "examples": examples}
    lengths = [Duration(Fraction(str(n)), unit) for unit, n in given.items() if n is not None]
    if len(lengths) != 1:
        raise ConfigError([f"give exactly one of epochs, steps and examples, not {len(lengths)}"])
    return lengths[0]


def to_steps(duration: Duration, *, batch_size: int, train_examples: int) -> int:
    """Returns the step at which a duration that starts at step 0 has passed.

    N examples in batches of B: x epochs end at step ceil(x·N/B), m examples at step ceil(m/B).

    Args:
      duration: what is to pass.
      batch_size: examples in a step, over all devices; positive.
      train_examples: examples in an epoch; positive.
    """
    return math.ceil(_period(duration, batch_size=batch_size, train_examples=train_examples))


def is_due(step: int, duration: Duration, *, batch_size: int, train_examples: int) -> bool:
    """Says whether something that recurs every `duration` falls on the end of this step.

    Its i-th time (i ≥ 1) is step ceil(i·p), p the exact period in steps. Several times that fall
    within one step are one; none is lost and none comes twice.

    Args:
      step: optimizer steps done; nothing is due at 0.
      duration: the period.
      batch_size: examples in a step, over all devices; positive.
      train_examples: examples in an epoch; positive.
    """
    period = _period(duration, batch_size=batch_size, train_examples=train_examples)
    # step = ceil(i·p) means that the last whole period before this step ended less than a step ago.
    return step >= 1 and step % period < 1


def _period(duration: Duration, *, batch_size: int, train_examples: int) -> Fraction:
    scale = {"steps": batch_size, "epochs": train_examples, "examples": 1}[duration.unit]
    return duration.amount * scale / batch_size


def _fault(value: object) -> ConfigError:
    rule = "positive, whole unless epochs, such as 20 (steps), '2 epochs' or '1e5 examples'"
    return ConfigError([f"duration {value!r} must be '<number> <unit>' or a number: {rule}"])
