"""Guesses which known name a mistyped one was meant to be."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns "; did you mean 'x'?" for the known names nearest to `name`, or "" when none is near.

    Of dotted names the last parts are compared, too: a user who writes `epochs` or
    `model.learning_rate` knows the word and not where it lies.

    Args:
      name: what the user wrote.
      known: all the names there are.
    """
    lasts = {other: other.rpartition(".")[2] for other in known}
    alike = get_close_matches(name.rpartition(".")[2], lasts.values(), 1, 0.7)
    near = get_close_matches(name, lasts, 1, 0.7) or [n for n in lasts if lasts[n] in alike][:3]
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
