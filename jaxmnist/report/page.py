"""Writes the report of a run, or of several side by side, from top to bottom."""

import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from jaxmnist.bucket.copy import publish
from jaxmnist.errors import WorkdirError
from jaxmnist.report import charts, tables
from jaxmnist.report.gather import SPLITS, Run, number, read_runs
from jaxmnist.report.model import look, refusal
from jaxmnist.workdir import local_path
from jaxmnist.writers import write_atomically
from jaxmnist.zoo.tensorboard import write_mistakes

# Title, metric, scale.
_CURVES = (
    ("Loss", "loss", "log"),
    ("Accuracy", "accuracy", "accuracy"),
    ("Learning rate", "learning_rate", "linear"),
    ("Images per second", "images_per_second", "linear"),
)
# The results that are looked at first.
_TILES = ("test accuracy", "training", "images per second", "parameters")
# A confusion matrix of more classes than this would not be read.
_MOST_CLASSES = 20
# Nothing that a work directory says is shown at greater length.
_MOST_LETTERS = 4000


def report(
    workdir: str | Path, *, compare: Sequence[str | Path] = (), out: str | Path | None = None
) -> Path:
    """Writes one HTML file that shows a run and needs nothing beside it.

    What is missing or damaged in a work directory is said on the page, with the reason, and the
    rest is shown. No code that a configuration names is imported. The most confident mistakes are
    shown in TensorBoard, too, where the run has event files.

    Args:
      workdir: of the run.
      compare: work directories of other runs, to lay over it and beside it.
      out: the file; None for report.html in the work directory, which is uploaded where that is
        in a bucket.

    Returns:
      The path of the file.

    Raises:
      WorkdirError: a directory is not that of a run, or the file cannot be written.
    """
    places = [local_path(place) for place in (workdir, *compare)]
    runs = read_runs(places)
    path = Path(out) if out is not None else places[0] / "report.html"
    loader, strict = jinja2.FileSystemLoader(Path(__file__).parent), jinja2.StrictUndefined
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=strict, finalize=_legible
    )
    content = _content(runs)
    text = environment.get_template("report.html.j2").render(content).lstrip()
    try:
        write_atomically(path, text)
    except OSError as error:
        fault = f"the report cannot be written to {path}: {error.strerror or error}"
        raise WorkdirError(f"{fault}; choose another --out") from error
    # Where the event files lie nobody may be able to write any more.
    with contextlib.suppress(OSError):
        if found := content["look"]:
            captions = [f"{y} as {p}, {100 * share:.0f}%" for _, y, p, share in found.mistakes]
            write_mistakes(runs[0].path, found.step, found.images, captions)
    if out is None:
        publish(workdir, places[0])
    return path


def _legible(value: Any) -> Any:
    """A text of bounded length; what cannot be seen in it, or turns what follows, is escaped."""
    if isinstance(value, Markup):
        return value
    text = str(value)
    text = text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]} …"
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def _content(runs: Sequence[Run]) -> dict[str, Any]:
    """Everything that the template shows."""
    run, found, reason = runs[0], None, refusal(runs[0])
    # XLA compiles the model while the charts are drawn.
    with ThreadPoolExecutor(1) as pool:
        looking = None if reason else pool.submit(look, run)
        content = _recorded(runs)
        try:
            found = looking.result() if looking else None
        except Exception as error:  # whatever a damaged directory leads to, the rest is shown
            reason = f"{type(error).__name__}: {error}"
    return content | {
        "look": found,
        "reason": reason,
        "calibration": charts.calibration(found.confidence, found.correct) if found else None,
        "memory": tables.memory_rows(run, found.sizes if found else {}),
    }


def _recorded(runs: Sequence[Run]) -> dict[str, Any]:
    """What the files of the work directories say."""
    config, result = tables.config_rows(runs), tables.result_rows(runs)
    marked = [row for row in config if row.marked]
    differing = [row for row in config if len({*row.cells[: len(runs)]}) > 1]
    return {
        "runs": runs,
        "written": time.strftime("%Y-%m-%d %H:%M"),
        "tiles": [row for row in result if row.label in _TILES],
        "result": result,
        "config": config,
        "differing": differing if len(runs) > 1 else marked,
        "splits": [s for s in SPLITS if any(len(r.curve(s, "loss")[0]) for r in runs)],
        "colors": charts.COLORS,
        "curves": [(title, _curves(runs, *how)) for title, *how in _CURVES],
        "steps": _step_times(runs),
        "confusion": _confusion(runs[0]),
        "devices": tables.rows_of(runs, "devices"),
        "reproducibility": [tables.reproducibility_rows(r) for r in runs],
    }


def _curves(runs: Sequence[Run], name: str, scale: str) -> Any:
    """One metric of all runs: colours tell runs apart, or the splits of a single one."""
    series = []
    for at, run in enumerate(runs):
        for split_at, (split, dots) in enumerate(SPLITS.items()):
            color = at if len(runs) > 1 else split_at
            series.append(charts.Series(*run.curve(split, name), color, dots=dots))
    return charts.curves(series, scale=scale)


def _step_times(runs: Sequence[Run]) -> tuple[Any, list[str]]:
    """The time of a step, from the throughput and the steps of each window of the train log."""
    series, texts = [], []
    for at, run in enumerate(runs):
        lines = [r for r in run.records if r["split"] == "train"]
        steps = np.diff([0.0, *(number(r["step"]) for r in lines)])
        rates = np.array([number(r.get("images_per_second")) for r in lines])
        good = (rates > 0) & (steps > 0)
        ms = 1e3 * max(number(run.config.get("batch_size")), 0) / rates[good]
        if len(ms) and np.isfinite(ms).all():
            series.append(charts.Series(steps[good], ms, at))
            low, middle, high = np.quantile(ms, (0.05, 0.5, 0.95))
            text = f"median {middle:,.1f} ms, 5 to 95 % {low:,.1f} to {high:,.1f} ms."
            texts.append(f"{run.name}: {text}" if len(runs) > 1 else text)
    return charts.step_times(series), texts


def _confusion(run: Run) -> dict[str, Any] | None:
    """Counts and shades of the confusion matrix, its largest mistakes, accuracy by label."""
    if (matrix := tables.confusions(run)) is None or not matrix.sum():
        return None
    total, right = matrix.sum(1), np.diag(matrix)
    wrong = matrix - np.diag(right)
    order = np.argsort(-wrong, axis=None, kind="stable")[:8]
    pairs = np.stack([*np.divmod(order, len(matrix)), wrong.flat[order]], 1).tolist()
    return {
        "classes": len(matrix),
        "matrix": matrix.tolist() if len(matrix) <= _MOST_CLASSES else None,
        "shade": np.rint(60 * np.sqrt(wrong / max(wrong.max(), 1))).astype(int).tolist(),
        "wrong": int(wrong.sum()),
        "pairs": [(label, prediction, count) for label, prediction, count in pairs if count],
        "by_class": charts.class_accuracies(right, total),
    }
