"""Guesses which known name a mistyped one was meant to be."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns "; did you mean 'x'?" for the known names nearest to `name`, or "" when none is near.

    A known dotted name whose last part is exactly that of `name` is the nearest of all: a user who
    writes `epochs` or `model.learning_rate` knows the word and not where it lies.

    Args:
      name: what the user wrote.
      known: all the names there are.
    """
    names = tuple(known)
    last = name.rpartition(".")[2]
    near = difflib.get_close_matches(name, names, 1, 0.7)
    near = near or [other for other in names if other.rpartition(".")[2] == last][:3]
    if not near:
        lasts = {other.rpartition(".")[2]: other for other in reversed(names)}
        near = [lasts[word] for word in difflib.get_close_matches(last, lasts, 1, 0.7)]
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
