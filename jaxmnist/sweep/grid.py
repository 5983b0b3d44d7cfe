"""Which runs a sweep makes: every point of a grid with every seed."""

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ml_collections import ConfigDict

from jaxmnist.config import apply_overrides, to_dict
from jaxmnist.errors import ConfigError, UsageError

# More than anybody means to start.
_MOST_RUNS = 10_000


@dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
      name: of its work directory, below that of the sweep.
      seed: of the run.
      point: the grid's values in it, as texts by key; empty without a grid.
      config: its configuration.
    """

    name: str
    seed: int
    point: Mapping[str, str]
    config: ConfigDict

    @property
    def words(self) -> str:
        """The run in words, such as "seed 3, learning_rate=1e-3"."""
        return ", ".join([f"seed {self.seed}", *filter(None, [describe(self.point)])])


def describe(point: Mapping[str, str]) -> str:
    """A point of the grid in words; of each key the last part."""
    return ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in point.items())


def parse_seeds(text: str) -> list[int]:
    """The seeds that a text names: "0:8" (8 is not among them), "1,5,9", or both.

    Raises:
      UsageError: it names none, one twice, or too many.
    """
    rule = "give FIRST:END (END is left out) or numbers with commas, such as 0:8 or 1,5,9"
    seeds: list[int] = []
    for part in text.split(","):
        if not re.fullmatch(r"\s*\d{1,10}\s*(:\s*\d{1,10}\s*)?", part):
            raise UsageError(f"--seeds={text}: {part!r} is not a seed or a range of seeds: {rule}")
        first, _, end = part.partition(":")
        found = range(int(first), int(end or int(first) + 1))
        if not found:
            raise UsageError(f"--seeds={text}: the range {part} holds no seed: {rule}")
        if len(found) > _MOST_RUNS:
            fault = f"the range {part} holds {len(found):,} seeds"
            raise UsageError(f"--seeds={text}: {fault}: choose at most {_MOST_RUNS:,}")
        seeds += found
    return seeds


def parse_grid(texts: Iterable[str]) -> dict[str, list[str]]:
    """The values by key that texts such as "optimizer.learning_rate:1e-3,3e-3" name.

    A comma within brackets or quotes belongs to a value.

    Raises:
      UsageError: a text without a key or without values, or a key that comes twice.
    """
    grid: dict[str, list[str]] = {}
    for text in texts:
        key, colon, values = (part.strip() for part in text.partition(":"))
        found = [value.strip() for value in _split(values)]
        if not (key and colon and all(found)):
            rule = "give KEY:VALUE,VALUE, such as optimizer.learning_rate:1e-3,3e-3"
            raise UsageError(f"--grid={text}: a key or a value is missing: {rule}")
        if key in grid:
            raise UsageError(f"--grid={text}: {key} has a grid already: give its values in one")
        grid[key] = found
    return grid


def _split(text: str) -> list[str]:
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if letter in "'\"" and quote in ("", letter):
            quote = "" if quote else letter
        depth += 0 if quote else (letter in "([{") - (letter in ")]}")
        if letter == "," and not quote and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def expand(
    config: ConfigDict, *, seeds: Sequence[int], grid: Mapping[str, Sequence[object]]
) -> list[Run]:
    """All runs of a sweep, validated; the first seed of every point comes first.

    Raises:
      UsageError: no seed, one twice, no value for a key, or too many runs.
      ConfigError: keys that there are not, values that they refuse, or points that are the same;
        all such faults at once.
    """
    if not seeds:
        raise UsageError("a sweep needs at least one seed: give --seeds, such as --seeds=0:8")
    if twice := [seed for seed in dict.fromkeys(seeds) if list(seeds).count(seed) > 1]:
        raise UsageError(f"the seeds name {twice[0]} twice: name each seed once")
    if "seed" in grid:
        raise UsageError("the grid has the key 'seed': give the seeds in --seeds")
    if empty := [key for key, values in grid.items() if not values]:
        raise UsageError(f"the grid has no value for {empty[0]!r}: give at least one")
    lines = [[str(value) for value in values] for values in grid.values()]
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*lines)]
    if len(points) * len(seeds) > _MOST_RUNS:
        size = f"{len(points):,} points × {len(seeds):,} seeds"
        raise UsageError(f"a sweep of {size} is larger than {_MOST_RUNS:,} runs: choose fewer")
    _check(config, points)
    named = [(_name(index, point), point) for index, point in enumerate(points)]
    return [
        Run(
            f"{name}seed-{seed}", seed, point, apply_overrides(config, {**point, "seed": str(seed)})
        )
        for seed in seeds
        for name, point in named
    ]


def _check(config: ConfigDict, points: Sequence[Mapping[str, str]]) -> None:
    faults: list[str] = []
    seen: dict[str, Mapping[str, str]] = {}
    for point in points:
        try:
            text = json.dumps(to_dict(apply_overrides(config, point)), sort_keys=True)
        except ConfigError as error:
            faults += error.faults
            continue
        if text in seen:
            both = f"{describe(seen[text])!r} and {describe(point)!r}"
            faults.append(f"{both} of the grid are one configuration: leave one out")
        seen[text] = point
    if faults:
        raise ConfigError([*dict.fromkeys(faults)])


def _name(index: int, point: Mapping[str, str]) -> str:
    if not point:
        return ""
    readable = re.sub(r"[^\w.=,+-]+", "_", describe(point).replace(", ", ","), flags=re.ASCII)
    return f"{index}-{readable[:80]}/"
