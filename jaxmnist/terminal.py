"""What a person sees of a run: panel, progress bar or log lines, table of results."""

import functools
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from jaxmnist.metrics import Evaluation
from jaxmnist.workdir import Workdir


class Terminal:
    """Writes to the standard output: with a live bar on a terminal, plain lines elsewhere."""

    def __init__(self, *, quiet: bool = False, console: Console | None = None):
        """Writes nothing at all when `quiet`; `console` replaces the standard output."""
        self._console = console or _console(quiet=quiet)
        self._live = self._console.is_terminal and not quiet
        self._total = 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[metrics]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            disable=not self._live,
        )
        self._task = self._progress.add_task("training", metrics="", start=False)

    def start(self, rows: Sequence[tuple[str, str]], *, total_steps: int) -> None:
        """Shows what the run runs on."""
        grid = Table.grid(padding=(0, 2))
        for name, value in rows:
            grid.add_row(name, value)
        if self._live:
            self._console.print(Panel(grid, title="jaxmnist", title_align="left"))
        else:
            for name, value in rows:
                self._console.print(f"{name + ':':<16} {value}", soft_wrap=True)
        self._total = total_steps
        self._progress.update(self._task, total=total_steps)
        self._progress.start()

    def message(self, text: str) -> None:
        """Shows a sentence."""
        self._console.print(text, soft_wrap=True)

    def record(self, record: Mapping[str, Any], *, seconds_left: float | None = None) -> None:
        """Shows a record of metrics: in the bar when it is of training, as a line otherwise."""
        values = f"loss {record['loss']:.4f}  accuracy {record['accuracy']:.2%}"
        step = record["step"]
        if record["split"] == "train":
            values += f"  {record['images_per_second']:,.0f} images/s"
            self._progress.start_task(self._task)
            self._progress.update(self._task, completed=step, metrics=values)
            if self._live:
                return
        if seconds_left is not None:
            values += f"  {_minutes(seconds_left)} left"
        self.message(
            f"step {step:>6,}/{self._total:,}  epoch {record['epoch']:6.2f}  "
            f"{record['split']:<10}  {values}"
        )

    def finish(self, result: Mapping[str, Any], place: Workdir) -> None:
        """Shows the table of results and where things lie."""
        self._progress.stop()
        summary, test = result["train"], result["test"]
        table = Table(title="result", title_justify="left", show_header=False)
        wrong = test["count"] - sum(row[i] for i, row in enumerate(test["confusion"]))
        table.add_row(
            "test accuracy", f"{test['accuracy']:.2%} of {test['count']:,} ({wrong:,} wrong)"
        )
        table.add_row("test loss", f"{test['loss']:.4f}")
        if best := result.get("best"):
            table.add_row(
                "best by validation",
                f"step {best['step']:,}: validation {best['validation']['accuracy']:.2%}, "
                f"test {best['test']['accuracy']:.2%}",
            )
        table.add_row(
            "training",
            f"{summary['steps']:,} steps in {summary['seconds']:.1f} s, "
            f"{summary['images_per_second']:,.0f} images/s",
        )
        parts = ("compile", "eval", "checkpoint")
        table.add_row("beside it", ", ".join(f"{p} {summary[f'{p}_seconds']:.1f} s" for p in parts))
        table.add_row("parameters", f"{result['params']['count']:,}, SHA-256")
        table.add_row("", Text(result["params"]["sha256"], overflow="fold"))
        table.add_row("result", str(place.result))
        table.add_row("metrics", str(place.metrics))
        table.add_row("checkpoints", str(place.checkpoints))
        table.add_row("event files", f"tensorboard --logdir {place.tensorboard}")
        self._console.print(table)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()


def _console(*, quiet: bool = False) -> Console:
    """A console on the standard output; in a pipe or a file lines are not cut at 80 columns."""
    # Paths and settings are shown as they are: brackets are not markup, :x: is no emoji.
    make = functools.partial(Console, quiet=quiet, highlight=False, markup=False, emoji=False)
    return make() if make().is_terminal else make(width=160)


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def print_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints a table on the standard output."""
    table = Table(*header, show_header=any(header))
    for row in rows:
        table.add_row(*(Text(str(value), overflow="fold") for value in row))
    _console().print(table)


def print_evaluation(result: Evaluation, *, title: str) -> None:
    """Prints loss, accuracy, accuracy by class and the confusion matrix."""
    classes = range(len(result.confusion))
    table = Table("label", "accuracy", *(f"→ {k}" for k in classes), title=title)
    for label in classes:
        share = result.per_class[label]
        counts = (str(n) if n else "·" for n in result.confusion[label])
        table.add_row(str(label), "none" if share is None else f"{share:.2%}", *counts)
    console = _console()
    console.print(f"accuracy {result.accuracy:.2%} of {result.count:,}, loss {result.loss:.4f}")
    console.print(table)
