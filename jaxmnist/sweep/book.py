"""What is known of the runs of a sweep, and the files that say it."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxmnist.sweep.grid import Run
from jaxmnist.sweep.show import draw
from jaxmnist.sweep.table import Point, choose, csv_rows, record, summarize
from jaxmnist.workdir import Workdir
from jaxmnist.writers import write_atomically


@dataclass(frozen=True)
class Sweep:
    """What a sweep gives back.

    Attributes:
      workdir: where everything lies: the work directories of the runs, sweep.json, runs.jsonl,
        table.csv and picture.svg.
      runs: the records of runs.jsonl, one a run.
      points: the points of the grid over their seeds; one without a grid.
      best: the point with the best mean accuracy; None where there is nothing to choose from.
      chosen_by: the split that the choice was made on: "validation" where there is one.
    """

    workdir: Path
    runs: Sequence[Mapping[str, Any]] = field(repr=False)
    points: Sequence[Point]
    best: Point | None
    chosen_by: str

    @property
    def failed(self) -> list[Mapping[str, Any]]:
        """The records of the runs that failed, each with its reason."""
        return [line for line in self.runs if line["status"] == "failed"]

    def to_dict(self) -> dict[str, Any]:
        """Returns a JSON-able dictionary of all fields."""
        points = [point.to_dict() for point in self.points]
        best = None if self.best is None else self.best.to_dict()
        found = {"workdir": str(self.workdir), "points": points, "best": best}
        return found | {"chosen_by": self.chosen_by, "runs": [*self.runs]}


class Book:
    """The records of all runs, kept on disk as they are known.

    Attributes:
      path: the sweep's directory.
      runs: by name, in the order in which they are made.
      records: by name.
    """

    def __init__(self, path: Path, runs: Sequence[Run]):
        """Reads what earlier sweeps left; writes nothing."""
        self.path, self.runs = path, {run.name: run for run in runs}
        self.records = {run.name: record(run, self.place(run.name)) for run in runs}

    def place(self, name: str) -> Workdir:
        """The work directory of a run."""
        return Workdir(self.path / name)

    @property
    def open(self) -> list[Run]:
        """The runs that are not finished."""
        return [run for name, run in self.runs.items() if self.records[name]["status"] != "done"]

    @property
    def progress(self) -> str:
        """How many runs are done, in words."""
        return f"{len(self.runs) - len(self.open)} of {len(self.runs)} runs are done"

    def note(self, name: str, fault: str) -> Mapping[str, Any]:
        """Records a run that has ended, on disk too."""
        self.records[name] = record(self.runs[name], self.place(name), fault=fault)
        self.write()
        return self.records[name]

    def write(self) -> Sweep:
        """Writes runs.jsonl and table.csv."""
        lines = [*self.records.values()]
        write_atomically(self.path / "runs.jsonl", "".join(json.dumps(r) + "\n" for r in lines))
        points = summarize(lines)
        best, split = choose(points)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(csv_rows(points, best))
        write_atomically(self.path / "table.csv", text.getvalue())
        return Sweep(self.path, lines, points, best, split)

    def finish(self) -> Sweep:
        """Writes all files, the picture among them."""
        found = self.write()
        draw(found.points, found.runs, split=found.chosen_by, path=self.path / "picture.svg")
        return found
