"""The kinds of value that a key of the configuration takes: type, range, and how text is read."""

import ast
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from jaxmnist.config.durations import Duration, exact_number
from jaxmnist.errors import ConfigError

_NONE: Final = ("none", "null")
# The types that a ConfigDict turns into those of a key by itself.
_CAST: Final[dict[type, type]] = {float: int, tuple: list}
_BOOLS: Final = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class Rule:
    """What a key accepts.

    Attributes:
      types: the Python types of a value.
      expected: the rule in words, to follow "must be".
      accepts: whether a value of one of the types is in range.
      parse: reads a value from text; raises ValueError when it cannot.
      example: a value as a user writes it; "" where the default is example enough.
      optional: whether None is a value too.
    """

    types: tuple[type, ...]
    expected: str
    accepts: Callable[[Any], bool]
    parse: Callable[[str], Any]
    example: str = ""
    optional: bool = False

    def allows(self, value: object) -> bool:
        """Says whether a value has the right type and is in range; a bool is never a number."""
        if value is None:
            return self.optional
        if isinstance(value, bool) and bool not in self.types:
            return False
        types = tuple(kind for own in self.types for kind in (own, _CAST.get(own, own)))
        return isinstance(value, types) and self.accepts(value)

    def read(self, text: str) -> Any:
        """Returns the value that a text names, its range unchecked.

        Raises:
          ValueError: the text is no value of this type.
        """
        if text.strip().lower() not in _NONE:
            return self.parse(text)
        if not self.optional:
            raise ValueError("None is not a value of this key")
        return None


@dataclass(frozen=True)
class Key:
    """One key of the configuration.

    Attributes:
      default: its value unless set.
      rule: what it accepts.
    """

    default: Any
    rule: Rule

    def fault(self, name: str, value: object) -> str:
        """Returns the sentence for a value that the rule refuses: value, rule, example."""
        expected = self.rule.expected + (" or None" if self.rule.optional else "")
        example = self.rule.example or repr(self.default)
        return f"{name} = {value!r:.80} must be {expected}, such as {example}"


def optional(rule: Rule, example: str) -> Rule:
    """Returns the rule that accepts None as well, shown to users by the example."""
    return replace(rule, optional=True, example=example)


def integer(minimum: int, *, maximum: float = math.inf) -> Rule:
    """Returns the rule for an int of at least `minimum` and at most `maximum`."""
    bounds = f">= {minimum}" if maximum == math.inf else f"in {minimum}..{maximum}"
    return Rule((int,), f"an integer {bounds}", lambda v: minimum <= v <= maximum, _read_integer)


def number(
    bounds: str, accepts: Callable[[float], bool], *, types: Sequence[type] = (float,)
) -> Rule:
    """Returns the rule for a finite number; `bounds` says in words what `accepts` checks."""
    kinds = (*types,)
    return Rule(
        kinds,
        f"a number {bounds}",
        lambda v: abs(v) <= sys.float_info.max and accepts(v),
        _read_number,
    )


def flag() -> Rule:
    """Returns the rule for True or False."""
    return Rule((bool,), "true or false", lambda v: True, _read_flag)


def choice(*names: str) -> Rule:
    """Returns the rule for one of the names."""
    return Rule((str,), f"one of {', '.join(map(repr, names))}", lambda v: v in names, str)


def text() -> Rule:
    """Returns the rule for a string that is not blank."""
    return Rule((str,), "a string that is not empty", lambda v: bool(v.strip()), str)


def duration() -> Rule:
    """Returns the rule for a period: an int (steps) or "2 epochs", "500 steps", "1e5 examples"."""
    expected = "a duration (20 for steps, '500 steps', '0.5 epochs', '1e5 examples')"
    return Rule((int, str), expected, _is_duration, _read_duration, "'2 epochs'")


def tuple_of(rule: Rule, example: str) -> Rule:
    """Returns the rule for a tuple of elements of one rule, as text "8,16" or "(8, 16)"."""

    def read(value: str) -> tuple[Any, ...]:
        inner = value.strip().removeprefix("(").removesuffix(")")
        return tuple(rule.read(part.strip()) for part in inner.split(",") if part.strip())

    def accepts(values: tuple[Any, ...]) -> bool:
        return all(map(rule.allows, values))

    return Rule((tuple,), f"a tuple, each element {rule.expected}", accepts, read, example)


def free(example: str) -> Rule:
    """Returns the rule for a dict whose keys only its receiver knows."""
    plain = "None, booleans, finite numbers, strings, and lists, tuples or dicts of these"
    return Rule((dict,), f"a dict of plain values ({plain})", _is_plain, _read_dict, example)


def literal(value: str) -> Any:
    """Returns the Python literal that a text spells (True and None in any case), else the text."""
    word = value.strip().lower()
    if word in _NONE or word in ("true", "false"):
        return _BOOLS.get(word)
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value


def _read_flag(value: str) -> bool:
    word = value.strip().lower()
    if word not in _BOOLS:
        raise ValueError(f"{value!r} is neither true nor false")
    return _BOOLS[word]


def _read_integer(value: str) -> int:
    exact = exact_number(value)
    if exact.denominator != 1:
        raise ValueError(f"{value!r} is not a whole number")
    return int(exact)


def _read_number(value: str) -> float:
    return int(value) if value.strip().isdecimal() else float(value)


def _is_duration(value: Any) -> bool:
    try:
        Duration.parse(value)
    except ConfigError:
        return False
    return True


def _read_duration(value: str) -> int | str:
    try:
        return _read_integer(value)
    except ValueError:
        return value.strip()


def _read_dict(value: str) -> dict[str, Any]:
    found = literal(value)
    if not isinstance(found, dict):
        raise ValueError(f"{value!r} is not a dict")
    return found


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(name, str) and "." not in name for name in value) and all(
            map(_is_plain, value.values())
        )
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return (
        value is None
        or isinstance(value, (bool, int, str))
        or (isinstance(value, float) and math.isfinite(value))
    )
