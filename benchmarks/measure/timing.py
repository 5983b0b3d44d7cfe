"""Clocks and their arithmetic: interleaved rounds, medians with their spread, cores used."""

import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

Name = TypeVar("Name")
Measured = TypeVar("Measured")


@dataclass(frozen=True)
class Sample:
    """One measurement.

    Attributes:
      images: that were trained on, or read.
      seconds: of the clock on the wall.
      cpu_seconds: of all threads (and processes) that took part.
    """

    images: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds

    @property
    def cores(self) -> float:
        """Cores that were busy on average."""
        return self.cpu_seconds / self.seconds


def clocked(work: Callable[[], Any], *, images: int) -> Sample:
    """Runs something that ends only when its results are there."""
    cpu, start = time.process_time(), time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    return Sample(images, seconds, time.process_time() - cpu)


def calls_for(seconds: float, *, one_call: float) -> int:
    """How many calls last about so many seconds."""
    return max(1, math.ceil(seconds / max(one_call, 1e-9)))


def interleave(
    candidates: Mapping[Name, Callable[[], Measured]], *, rounds: int
) -> dict[Name, list[Measured]]:
    """Measures all candidates once a round, every second round in the opposite order.

    A machine whose speed drifts then meets all of them alike.
    """
    measured: dict[Name, list[Measured]] = {name: [] for name in candidates}
    for number in range(rounds):
        names = list(candidates)
        for name in names if number % 2 == 0 else reversed(names):
            measured[name].append(candidates[name]())
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return measured


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least, greatest and the distance between the quartiles."""
    if len(values) < 2:
        first = third = values[0]
    else:
        first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "iqr": third - first,
    }


def ratios(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Spread of the quotients, round by round, which a drifting machine disturbs least."""
    return spread([a / b for a, b in zip(above, below, strict=True)])


def row(settings: Mapping[str, Any], samples: Sequence[Sample], **more: Any) -> dict[str, Any]:
    """A row of a record: the settings, the rate with its spread, the cores, every round."""
    return {
        **settings,
        "images_per_second": spread([s.rate for s in samples]),
        "cores": statistics.median(s.cores for s in samples),
        "rounds": [round(s.rate, 1) for s in samples],
        **more,
    }


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; numbers stand right."""
    texts = [[str(cell) for cell in line] for line in rows]
    widths = [max(3, *(len(line[i]) for line in [list(head), *texts])) for i in range(len(head))]
    right = [
        bool(texts) and all(line[i][:1] in "-0123456789" for line in texts)
        for i in range(len(head))
    ]
    rule = ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    return "\n".join([line(head), line(rule), *map(line, texts)])


def rate_text(value: Mapping[str, float]) -> str:
    """Median and range of a rate, such as 5,512 (5,401–5,620)."""
    return f"{value['median']:,.0f} ({value['min']:,.0f}–{value['max']:,.0f})"


def ratio_text(value: Mapping[str, float]) -> str:
    """Median and range of a ratio, such as 2.21 (2.15–2.30)."""
    return f"{value['median']:.3g} ({value['min']:.3g}–{value['max']:.3g})"
