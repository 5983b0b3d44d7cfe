"""The kinds of value that a key of the configuration takes: type, range, and how text is read."""

import ast
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from ml_collections import ConfigDict

from jaxmnist.config.durations import Duration


@dataclass(frozen=True)
class Rule:
    """What a key accepts.

    Attributes:
      kind: the Python type of a value, or several.
      expected: the rule in words, to follow "must be".
      accepts: whether a value of that type is in range; an error says no, too.
      optional: whether None is a value as well.
    """

    kind: Any
    expected: str
    accepts: Callable[[Any], object]
    optional: bool = False

    def allows(self, value: object) -> bool:
        """Says whether a value has the right type and is in range; a bool is never a number."""
        # A ConfigDict makes floats of ints by itself.
        kind = float | int if self.kind is float else self.kind
        typed = isinstance(value, kind) and isinstance(value, bool) == (self.kind is bool)
        with suppress(ValueError, TypeError):
            return self.optional if value is None else typed and bool(self.accepts(value))
        return False

    def read(self, text: str) -> Any:
        """Returns the value that a text names; one that names none is returned as it is."""
        value = literal(text)
        if self.kind is str and value is not None:
            return text
        return int(value) if isinstance(value, float) and value.is_integer() else value


@dataclass(frozen=True)
class Key:
    """One key of the configuration.

    Attributes:
      default: its value unless set.
      rule: what it accepts.
      example: a value as a user writes it; "" where the default is example enough.
    """

    default: Any
    rule: Rule
    example: str = ""


def choice(*names: str) -> Rule:
    """Returns the rule for one of the names."""
    return Rule(str, f"one of {', '.join(map(repr, names))}", lambda v: v in names)


def or_none(rule: Rule) -> Rule:
    """Returns the rule that accepts None as well."""
    return replace(rule, expected=f"{rule.expected} or None", optional=True)


def literal(text: str) -> Any:
    """Returns the Python literal that a text spells (True and None in any case), else the text."""
    words = {"true": "True", "false": "False", "none": "None", "null": "None"}
    with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return ast.literal_eval(words.get(text.strip().lower(), text.strip()))
    return text


COUNT: Final = Rule(int, "an integer >= 0", lambda v: v >= 0)
SIZE: Final = Rule(int, "an integer >= 1", lambda v: v >= 1)
EPOCHS: Final = Rule(int | float, "a number > 0", lambda v: 0 < v < 1e99)
RATE: Final = Rule(float, "a number > 0", lambda v: 0 < v < 1e99)
DECAY: Final = Rule(float, "a number in (0, 1)", lambda v: 0 < v < 1)
FLAG: Final = Rule(bool, "true or false", lambda v: True)
TEXT: Final = Rule(str, "a string that is not empty", str.strip)
DURATION: Final = Rule(int | str, "a duration: steps, '2 epochs' or '1e5 examples'", Duration.parse)
# What JSON cannot hold would be lost in the work directory.
FREE: Final = Rule(dict, "a dict of JSON values", lambda v: ConfigDict(v).to_json(allow_nan=False))
