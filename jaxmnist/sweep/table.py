"""What the runs of a sweep say together: mean, deviation and confidence of every point."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from jaxmnist.sweep.grid import Run, describe
from jaxmnist.workdir import Workdir, read_result
from jaxmnist.writers import read_records

_SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Estimate:
    """What seeds say of a mean.

    Attributes:
      mean: of the values.
      std: their sample standard deviation; None for one value.
      ci95: half the width of the 95 % confidence interval of the mean, by Student's t; None for one
        value.
    """

    mean: float
    std: float | None
    ci95: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Self | None:
        """The estimate from independent values; None where there is none."""
        count = len(values)
        if count < 2:
            return cls(values[0], None, None) if values else None
        from scipy.special import stdtrit

        std = statistics.stdev(values)
        return cls(
            statistics.mean(values), std, float(stdtrit(count - 1, 0.975)) * std / count**0.5
        )

    def __str__(self) -> str:
        """In per cent."""
        if self.std is None or self.ci95 is None:
            return f"{self.mean:.2%}"
        low, high = self.mean - self.ci95, self.mean + self.ci95
        return f"{100 * self.mean:.2f} ± {100 * self.std:.2f} % [{100 * low:.2f}, {100 * high:.2f}]"


@dataclass(frozen=True)
class Point:
    """One point of the grid over its seeds.

    Attributes:
      values: of the grid, as texts by key.
      runs: how many seeds it has.
      done: how many of them are finished; the estimates are over these.
      validation: accuracy of the last states on the validation examples; None without them.
      test: accuracy of the last states on the test examples; None where none is finished.
    """

    values: Mapping[str, str]
    runs: int
    done: int
    validation: Estimate | None
    test: Estimate | None

    @property
    def words(self) -> str:
        """The point in words; "all seeds" without a grid."""
        return describe(self.values) or "all seeds"

    def to_dict(self) -> dict[str, Any]:
        """Returns a JSON-able dictionary of all fields."""
        return asdict(self)


def record(run: Run, place: Workdir, *, fault: str = "") -> dict[str, Any]:
    """What a line of runs.jsonl says of a run.

    Args:
      run: the run.
      place: its work directory.
      fault: why it failed in this sweep; "" where it did not.
    """
    found: dict[str, Any] = {"run": run.name, "seed": run.seed, "point": dict(run.point)}
    if (result := read_result(place)) is None:
        return found | ({"status": "failed", "reason": fault} if fault else {"status": "open"})
    found["status"] = "done"
    scores = [line for line in read_records(place.metrics) if line["split"] == "validation"]
    if scores:
        found["validation"] = {name: scores[-1][name] for name in ("accuracy", "loss")}
    found["test"] = {name: result["test"][name] for name in ("accuracy", "loss", "count")}
    return found | {"params": result["params"], "train": result["train"]}


def summarize(records: Sequence[Mapping[str, Any]]) -> list[Point]:
    """The points of the records of all runs, in the order of the grid."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for line in records:
        groups.setdefault(tuple(line["point"].items()), []).append(line)
    return [_point(dict(key), lines) for key, lines in groups.items()]


def _point(values: Mapping[str, str], lines: Sequence[Mapping[str, Any]]) -> Point:
    done = [line for line in lines if line["status"] == "done"]
    estimates = (
        Estimate.of([line[split]["accuracy"] for line in done if split in line])
        for split in _SPLITS
    )
    return Point(values, len(lines), len(done), *estimates)


def choose(points: Sequence[Point]) -> tuple[Point | None, str]:
    """The point with the best mean, and the split that says so.

    Only points all of whose seeds are finished are compared: a mean without the seeds that failed
    would be better than it is. None where fewer than two points are left.
    """
    whole = [point for point in points if point.done == point.runs]
    split = "validation" if all(point.validation for point in whole) else "test"
    if len(points) < 2 or not whole:
        return None, split
    return max(whole, key=lambda point: getattr(point, split).mean), split


def csv_rows(points: Sequence[Point], best: Point | None) -> list[list[Any]]:
    """The header and the lines of table.csv; accuracies are shares, empty where there is none."""
    keys = [*points[0].values]
    numbers = [f"{split}_{name}" for split in _SPLITS for name in ("mean", "std", "ci95")]
    lines: list[list[Any]] = [[*keys, "seeds", "done", *numbers, "best"]]
    for point in points:
        estimates = (point.validation, point.test)
        found = [getattr(e, name, None) for e in estimates for name in ("mean", "std", "ci95")]
        texts = ["" if n is None or math.isnan(n) else repr(n) for n in found]
        best_one = "yes" if point is best else ""
        lines.append([*point.values.values(), point.runs, point.done, *texts, best_one])
    return lines
