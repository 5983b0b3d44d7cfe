"""The tables of a report: a label and one cell for each run a row, all as texts."""

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from jaxmnist.config.default import KEYS
from jaxmnist.report.gather import Run, brief, number, pick

NOT_RECORDED: Final = "not recorded"
# Longer commands are cut, or not shown.
_MOST_LETTERS: Final = 4000
# Label, place in result.json, format of the number.
_RESULT: Final = (
    ("test accuracy", "test.accuracy", "{:.2%}"),
    ("test examples", "test.count", "{:,.0f}"),
    ("test loss", "test.loss", "{:.4f}"),
    ("best by validation: step", "best.step", "{:,.0f}"),
    ("its validation accuracy", "best.validation.accuracy", "{:.2%}"),
    ("its test accuracy", "best.test.accuracy", "{:.2%}"),
    ("steps", "train.steps", "{:,.0f}"),
    ("epochs", "train.epochs", "{:,.4g}"),
    ("training", "train.seconds", "{:,.1f} s"),
    ("images per second", "train.images_per_second", "{:,.0f}"),
    ("compiling", "train.compile_seconds", "{:,.1f} s"),
    ("evaluating", "train.eval_seconds", "{:,.1f} s"),
    ("waiting for checkpoints", "train.checkpoint_seconds", "{:,.1f} s"),
    ("all together", "train.total_seconds", "{:,.1f} s"),
    ("parameters", "params.count", "{:,.0f}"),
)


class Row(NamedTuple):
    """A row of a table.

    Attributes:
      label: what the cells are.
      cells: one for each run, and what else there is.
      marked: whether it stands out.
    """

    label: str
    cells: Sequence[str]
    marked: bool = False


def plain(value: Any, form: str = "{:,.12g}") -> str:
    """A value for people: a number in its format, what is not there as such."""
    if value is None:
        return NOT_RECORDED
    if math.isfinite(number(value)):
        return form.format(number(value))
    return value if isinstance(value, str) and len(value) < 400 else brief(value)


def result_rows(runs: Sequence[Run]) -> list[Row]:
    """The results, without what no run has."""
    rows = []
    for label, path, form in _RESULT:
        values = [pick(run.result, path) for run in runs]
        if any(value is not None for value in values):
            rows.append(Row(label, ["–" if v is None else plain(v, form) for v in values]))
    return rows


def config_rows(runs: Sequence[Run]) -> list[Row]:
    """All keys of the configurations: the value in each run, and the default; changes marked."""
    rows = []
    for name in dict.fromkeys([*KEYS, *(str(name) for run in runs for name in run.config)]):
        cells = [brief(run.config[name]) if name in run.config else "–" for run in runs]
        default = brief(KEYS[name].default) if name in KEYS else "–"
        rows.append(Row(name, [*cells, default], marked=bool({*cells} - {default, "–"})))
    return rows if any(run.config for run in runs) else []


def rows_of(runs: Sequence[Run], group: str) -> list[Row]:
    """Whatever the results hold in a group, such as "devices"."""
    groups = [pick(run.result, group) for run in runs]
    there = [values if isinstance(values, Mapping) else {} for values in groups]
    names = dict.fromkeys(name for values in there for name in values)
    return [Row(name, [plain(v.get(name)) for v in there]) for name in names]


def memory_rows(run: Run, sizes: Mapping[str, int]) -> list[Row]:
    """Bytes of the train state, of the checkpoint, and what the run recorded of its devices."""
    if run.checkpoint:
        sizes = {**sizes, "checkpoint on disk": run.checkpoint.size_bytes}
    rows = [Row(name, [f"{size / 1e6:,.2f} MB"]) for name, size in sizes.items() if size]
    for where, name in (
        ("host", "peak of the process on the host"),
        ("device", "peak on a device"),
    ):
        size = number(pick(run.result, f"memory.{where}_peak_bytes"))
        rows.append(Row(name, [f"{size / 1e6:,.2f} MB" if size > 0 else NOT_RECORDED]))
    return rows


def reproducibility_rows(run: Run) -> list[Row]:
    """Everything that says which run this was, and how to make it again."""
    digest, average = (pick(run.result, f"params.{name}") for name in ("sha256", "ema_sha256"))
    data, checkpoint, command = NOT_RECORDED, NOT_RECORDED, run.result.get("command")
    short = isinstance(command, str) and len(command) < _MOST_LETTERS
    if info := run.checkpoint:
        same = info.params_sha256 == digest
        which = "the parameters above" if same else f"other parameters, {info.params_sha256}"
        checkpoint = f"step {info.step:,}, {info.time}: {which}"
        data = str(pick(info.notes, "data") or NOT_RECORDED).replace(",", "\n")
    facts = {
        "seed": plain(run.config.get("seed"), "{:.0f}"),
        "config.json, SHA-256": run.config_sha256 or NOT_RECORDED,
        "data, SHA-256": data,
        "parameters, SHA-256": plain(digest),
        "moving average, SHA-256": average and plain(average),
        "newest checkpoint": checkpoint,
        "exact command": command if short else plain(command),
        "the configuration as a command": configured_command(run.config),
    }
    return [Row(k, [text]) for k, text in facts.items() if text] + rows_of([run], "versions")


def configured_command(config: Mapping[str, Any]) -> str:
    """The command line that gives this configuration, as far as its keys say it."""
    given: dict[str, Any] = {}
    for name, key in KEYS.items():
        value = config.get(name, key.default)
        if isinstance(value, dict):
            given |= {f"{name}.{inner}": v for inner, v in value.items()}
        elif value != key.default and value is not None:
            given[name] = value
    flags = [f"--config.{name}={value}" for name, value in given.items()]
    text = shlex.join(["jaxmnist", "train", *flags])
    return text if config and len(text) < _MOST_LETTERS else NOT_RECORDED


def confusions(run: Run) -> "np.ndarray[Any, Any] | None":
    """Counts int64 [k, k] by label and prediction; None where result.json has no such matrix."""
    rows = pick(run.result, "test.confusion")
    if not (isinstance(rows, list) and all(type(r) is list and len(r) == len(rows) for r in rows)):
        return None
    if not all(type(n) is int and 0 <= n < 2**53 for row in rows for n in row):
        return None
    return np.array(rows, np.int64) if rows else None
