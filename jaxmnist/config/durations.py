"""Lengths of training in steps, epochs or examples, in exact arithmetic."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Self

from jaxmnist.errors import ConfigError

UNITS: Final = ("steps", "epochs", "examples")

# Digits and exponent are bounded so that no text can ask for a number of a million digits.
_NUMBER: Final = re.compile(r"[+-]?(\d[\d_]{0,30}(\.\d{0,30})?|\.\d{1,30})(e[+-]?\d{1,2})?", re.I)


def exact_number(text: str) -> Fraction:
    """Returns the number that a decimal text names, without rounding: "0.1" is 1/10.

    Raises:
      ValueError: the text is not a decimal number, or has absurdly many digits.
    """
    if not _NUMBER.fullmatch(text.strip()):
        raise ValueError(f"{text!r} is not a decimal number")
    return Fraction(text.strip())


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
        if self.unit not in UNITS:
            raise ConfigError([f"duration unit {self.unit!r} must be one of {', '.join(UNITS)}"])
        if self.amount <= 0 or (self.unit != "epochs" and self.amount.denominator != 1):
            rule = "positive" if self.unit == "epochs" else "a positive whole number"
            text = f"duration of {float(self.amount):g} {self.unit} must be {rule}"
            raise ConfigError([f"{text}, such as '1 {self.unit}'"])

    @classmethod
    def parse(cls, value: int | str) -> Self:
        """Returns the duration that a config value names.

        Args:
          value: an int (steps), or a number and a unit in a string: "2 epochs", "1 step",
            "1e5 examples"; a number alone means steps.

        Raises:
          ConfigError: the value names no duration.
        """
        number, _, unit = str(value).strip().partition(" ")
        unit = unit.strip().lower()
        plural = "steps" if not unit else unit if unit.endswith("s") else unit + "s"
        if isinstance(value, (int, str)) and not isinstance(value, bool) and plural in UNITS:
            try:
                return cls(exact_number(number), plural)
            except ConfigError:
                raise
            except ValueError:
                pass
        example = "20 (steps), '2 epochs', '500 steps' or '1e5 examples'"
        raise ConfigError(
            [f"duration {value!r} must be a number of steps or '<number> <unit>': {example}"]
        )


def training_length(
    *, epochs: float | None = None, steps: int | None = None, examples: int | None = None
) -> Duration:
    """Returns the length of training as one duration; 0.1 epochs are exactly a tenth.

    Raises:
      ConfigError: not exactly one of the three is given, or it is not a length.
    """
    given = [(epochs, "epochs"), (steps, "steps"), (examples, "examples")]
    lengths = [
        Duration(Fraction(str(amount)), unit) for amount, unit in given if amount is not None
    ]
    if len(lengths) != 1:
        raise ConfigError(
            [f"{len(lengths)} of epochs, steps and examples are given; give exactly one"]
        )
    return lengths[0]


def to_steps(duration: Duration, *, batch_size: int, train_examples: int) -> int:
    """Returns the step at which a duration that starts at step 0 has passed.

    N examples in batches of B: x epochs end at step ceil(x·N/B), m examples at step ceil(m/B).

    Args:
      duration: what is to pass.
      batch_size: examples in a step, over all devices.
      train_examples: examples in an epoch.

    Raises:
      ConfigError: batch_size or train_examples is below 1.
    """
    return math.ceil(_period(duration, batch_size=batch_size, train_examples=train_examples))


def is_due(step: int, duration: Duration, *, batch_size: int, train_examples: int) -> bool:
    """Says whether something that recurs every `duration` falls on the end of this step.

    Its i-th time (i ≥ 1) is step ceil(i·p), p the exact period in steps. Several times that fall
    within one step are one; none is lost and none comes twice.

    Args:
      step: optimizer steps done; nothing is due at 0.
      duration: the period.
      batch_size: examples in a step, over all devices.
      train_examples: examples in an epoch.

    Raises:
      ConfigError: batch_size or train_examples is below 1.
    """
    period = _period(duration, batch_size=batch_size, train_examples=train_examples)
    # step = ceil(i·p) means that the last whole period before this step ended less than a step ago.
    return step >= 1 and step % period < 1


def _period(duration: Duration, *, batch_size: int, train_examples: int) -> Fraction:
    for name, value in (("batch_size", batch_size), ("train_examples", train_examples)):
        if value < 1:
            raise ConfigError([f"{name} = {value} must be at least 1 to count steps"])
    scale = {"steps": batch_size, "epochs": train_examples, "examples": 1}[duration.unit]
    return duration.amount * scale / batch_size
