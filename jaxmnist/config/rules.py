"""The kinds of value that a key of the configuration takes: type, range, and how text is read."""

import ast
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from types import UnionType
from typing import Any, Final

from jaxmnist.config.durations import Duration


@dataclass(frozen=True)
class Rule:
    """What a key accepts.

    Attributes:
      kind: the Python type of a value, or several.
      expected: the rule in words, to follow "must be".
      accepts: whether a value of that type is in range; a ValueError says no, too.
      optional: whether None is a value as well.
    """

    kind: type | UnionType
    expected: str
    accepts: Callable[[Any], object]
    optional: bool = False

    def allows(self, value: object) -> bool:
        """Says whether a value has the right type and is in range; a bool is never a number."""
        if value is None or (isinstance(value, bool) and self.kind is not bool):
            return value is None and self.optional
        # A ConfigDict makes floats of ints by itself.
        kind = float | int if self.kind is float else self.kind
        with suppress(ValueError):
            return isinstance(value, kind) and bool(self.accepts(value))
        return False

    def read(self, text: str) -> Any:
        """Returns the value that a text names, or another that `allows` refuses.

        A text that names none of this kind is returned as it is.
        """
        value = literal(text)
        if self.kind is bool and value in (0, 1):
            return bool(value)
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
    try:
        return ast.literal_eval(words.get(text.strip().lower(), text.strip()))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        named = all(isinstance(name, str) and "." not in name for name in value)
        return named and _is_plain([*value.values()])
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int | str | None)


COUNT: Final = Rule(int, "an integer >= 0", lambda v: v >= 0)
SIZE: Final = Rule(int, "an integer >= 1", lambda v: v >= 1)
EPOCHS: Final = Rule(int | float, "a number > 0", lambda v: 0 < v < 1e99)
RATE: Final = Rule(float, "a number > 0", lambda v: 0 < v < 1e99)
DECAY: Final = Rule(float, "a number in (0, 1)", lambda v: 0 < v < 1)
FLAG: Final = Rule(bool, "true or false", lambda v: True)
TEXT: Final = Rule(str, "a string that is not empty", str.strip)
DURATION: Final = Rule(int | str, "a duration: steps, '2 epochs' or '1e5 examples'", Duration.parse)
FREE: Final = Rule(dict, "a dict of plain values: finite numbers, strings, lists, dicts", _is_plain)
