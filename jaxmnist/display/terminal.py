"""What a person sees of a run: panel, progress bar or log lines, table of results."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from jaxmnist.display.panel import panel_rows
from jaxmnist.runs.setup import Setup
from jaxmnist.workdir import Workdir


class Terminal:
    """Writes to the standard output: with a live bar on a terminal, plain lines elsewhere."""

    def __init__(self, *, quiet: bool = False, console: Console | None = None):
        """Writes nothing at all when `quiet`; `console` replaces the standard output."""
        self._console = console or _console(quiet=quiet)
        able = self._console.is_terminal and not self._console.is_dumb_terminal
        self._live = able and not quiet
        bar, left = BarColumn(bar_width=None), TimeRemainingColumn(compact=True)
        columns = ("{task.description}", bar, MofNCompleteColumn(), "{task.fields[metrics]}", left)
        self._progress = Progress(*columns, console=self._console, disable=not self._live)
        self._task = self._progress.add_task("training", metrics="", start=False)

    def introduce(self, setup: Setup, place: Workdir, resume: str) -> None:
        """Shows what a run runs on, before its first step."""
        self.start(panel_rows(setup, place, resume), total_steps=setup.steps)

    def start(self, rows: Sequence[tuple[str, str]], *, total_steps: int) -> None:
        """Shows names and values, and begins the bar."""
        if self._live:
            grid = Table.grid(padding=(0, 2))
            for row in rows:
                grid.add_row(*row)
            self._console.print(Panel(grid, title="jaxmnist", title_align="left"))
        else:
            self.message("\n".join(f"{name + ':':<16} {value}" for name, value in rows))
        self._total = total_steps
        self._progress.update(self._task, total=total_steps)
        self._progress.start()

    def message(self, text: str) -> None:
        """Shows a sentence."""
        self._console.print(text, soft_wrap=True)

    def record(self, record: Mapping[str, Any], *, seconds_left: float = 0.0) -> None:
        """Shows a record of metrics: in the bar when it is of training, as a line otherwise."""
        step, split = record["step"], record["split"]
        values = f"loss {record['loss']:.4f}  accuracy {record['accuracy']:.2%}"
        if split == "train":
            values += f"  {record['images_per_second']:,.0f} images/s"
            self._progress.start_task(self._task)
            self._progress.update(self._task, completed=step, metrics=values)
            if self._live:
                return
            values += f"  {int(seconds_left) // 60}:{int(seconds_left) % 60:02d} left"
        place = f"step {step:>6,}/{self._total:,}  epoch {record['epoch']:6.2f}"
        self.message(f"{place}  {split:<10}  {values}")

    def finish(self, result: Mapping[str, Any], place: Workdir) -> None:
        """Shows the table of results and where things lie."""
        self._progress.stop()
        train, test, params = result["train"], result["test"], result["params"]
        wrong = test["count"] - sum(row[i] for i, row in enumerate(test["confusion"]))
        speed = f"{train['seconds']:.1f} s, {train['images_per_second']:,.0f} images/s"
        beside = (f"{p} {train[f'{p}_seconds']:.1f} s" for p in ("compile", "eval", "checkpoint"))
        share = f"{test['accuracy']:.2%} of {test['count']:,} ({wrong:,} wrong)"
        rows = {"test accuracy": share, "test loss": f"{test['loss']:.4f}"}
        if best := result.get("best"):
            shares = (f"{part} {best[part]['accuracy']:.2%}" for part in ("validation", "test"))
            rows["best by validation"] = f"step {best['step']:,}: {', '.join(shares)}"
        rows |= {
            "training": f"{train['steps']:,} steps in {speed}",
            "beside it": ", ".join(beside),
            "parameters": f"{params['count']:,}, SHA-256 {params['sha256']}",
            "result": place.name_of(place.result),
            "metrics": place.name_of(place.metrics),
            "checkpoints": place.name_of(place.checkpoints),
        }
        if place.tensorboard.is_dir():
            rows["event files"] = f"tensorboard --logdir {place.name_of(place.tensorboard)}"
        print_table(["", ""], rows.items(), title="result", console=self._console)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _console(*, quiet: bool = False) -> Console:
    """A console on the standard output; in a pipe or a file lines are not cut at 80 columns."""
    # Paths and settings are shown as they are: brackets are not markup, :x: is no emoji.
    # FORCE_COLOR, which some CI sets, makes no terminal of a log.
    terminal = sys.stdout.isatty()
    console = Console(
        quiet=quiet, highlight=False, markup=False, emoji=False, force_terminal=terminal
    )
    if not console.is_terminal:
        console.width = 160
    return console


def print_table(
    header: Sequence[str], rows: Iterable[Iterable[Any]], *, title: str = "", console: Any = None
) -> None:
    """Prints a table that folds what is long; on the standard output without a console."""
    table = Table(*header, show_header=any(header), title=title or None, title_justify="left")
    for row in rows:
        table.add_row(*(Text(str(value), overflow="fold") for value in row))
    (console or _console()).print(table)
