"""What each command does with its flags and files; the docstrings are shown as help."""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jaxmnist
from jaxmnist.cli.arguments import configuration, steps_to_trace
from jaxmnist.cli.distributed import is_first, join
from jaxmnist.config import to_dict, to_text
from jaxmnist.errors import UsageError


def train(flags: Any) -> None:
    """Trains a model, or goes on with the run in a work directory."""
    given = [name for name in flags if flags[name].present and name != "workdir"]
    config, command = configuration(flags), [flags[name].serialize() for name in given]
    profiled = steps_to_trace(flags)
    # A launcher says how the job is started again, which is more than how one process is.
    launched = shlex.split(os.environ.get("JAXMNIST_COMMAND", ""))
    join(flags, quiet=flags.quiet)
    options: dict[str, Any] = {
        "quiet": flags.quiet,
        "allow_config_change": flags.allow_config_change,
        "command": launched or ["jaxmnist", "train", *command],
    }
    if profiled:
        from jaxmnist.zoo.profiler import Profile

        options["callbacks"] = [Profile(*profiled)]
    result = jaxmnist.train(config, flags.workdir, **options)
    place = flags.workdir or result.workdir
    if flags.report and (page := _report(result.workdir, place)) and not flags.quiet:
        print(f"report: {page}")


def written(path: Path, workdir: str | Path) -> str:
    """What people call a file that was written into a work directory, here or in a bucket."""
    return f"{str(workdir).rstrip('/')}/{path.name}" if "://" in str(workdir) else str(path)


def _report(directory: Path, workdir: str | Path) -> str | None:
    """Writes the report of a finished run where it is missing or older than the result.

    Args:
      directory: that the run has written to.
      workdir: what it mirrors, if that is in a bucket.
    """
    import jax

    from jaxmnist.bucket.copy import publish

    if jax.process_index() > 0:
        return None
    page, result = directory / "report.html", directory / "result.json"
    try:
        if not page.is_file() or page.stat().st_mtime < result.stat().st_mtime:
            jaxmnist.report(directory)
            publish(workdir, directory)
        return written(page, workdir)
    except Exception as error:  # the run is finished and saved, whatever became of its report
        fault = f"the report could not be written: {type(error).__name__}: {error}"
        repair = "the run itself is whole; to try again: jaxmnist report --workdir"
        print(f"jaxmnist: {fault}; {repair}={shlex.quote(str(workdir))}", file=sys.stderr)
        return None


def evaluate(flags: Any) -> None:
    """Evaluates a run, or several as one; every example counts exactly once."""
    # A directory may have a comma in its name.
    several = "," in flags.workdir and not Path(flags.workdir).exists()
    workdir = flags.workdir.split(",") if several else flags.workdir
    if several and "" in workdir:
        raise UsageError(f"--workdir={flags.workdir} has an empty name beside a comma: remove it")
    joined = join(flags, quiet=flags.json)
    options = {"split": flags.split, "step": flags.step, "vote": flags.vote, "tta": flags.tta}
    result: Any = jaxmnist.evaluate(workdir, **options)
    if joined and not is_first():
        return
    if flags.json:
        print(json.dumps(result.to_dict()))
        return
    print_evaluation(result, title=f"{flags.split} of {flags.workdir}")
    if several:
        found = result.members.items()
        alone = [[name, f"{one.accuracy:.2%}", f"{one.loss:.4f}"] for name, one in found]
        _show(found, alone, header=["alone", "accuracy", "loss"], as_json=False)


def print_evaluation(result: Any, *, title: str) -> None:
    """Prints loss, accuracy, accuracy by class and the confusion matrix of an `Evaluation`."""
    from jaxmnist.display.terminal import print_table

    shares = ("none" if share is None else f"{share:.2%}" for share in result.per_class)
    counts = ([n or "·" for n in row] for row in result.confusion)
    rows = ([k, share, *row] for k, (share, row) in enumerate(zip(shares, counts, strict=True)))
    header = ["label", "accuracy", *(f"→ {k}" for k in range(len(result.confusion)))]
    print(f"accuracy {result.accuracy:.2%} of {result.count:,}, loss {result.loss:.4f}")
    print_table(header, rows, title=title)


def predict(flags: Any, *files: str) -> None:
    """Says which digits are in image files: any size, colour or grey, dark or light."""
    if not files:
        raise UsageError("jaxmnist predict needs image files, such as digit.png")
    if (flags.workdir is None) == (flags.model is None):
        need = "--workdir of a run or --model of `jaxmnist export`, one of the two"
        raise UsageError(f"jaxmnist predict needs {need}")
    if flags.model and flags.step is not None:
        raise UsageError("--step chooses a checkpoint of --workdir; --model holds a single one")
    if flags.model:
        predictions = jaxmnist.load_exported(flags.model).predict(files)
    else:
        predictions = jaxmnist.predict(flags.workdir, files, step=flags.step)
    for found in predictions:
        line = f"{found.source}: {found.label} ({found.probability:.1%})"
        print(json.dumps(vars(found)) if flags.json else line)


def export(flags: Any) -> None:
    """Writes the model of a run to one file that runs without Flax on CPU, CUDA and TPU."""
    path = jaxmnist.export(flags.workdir, flags.out, format=flags.format, step=flags.step)
    print(path if flags.out else written(path, flags.workdir))


def checkpoints(flags: Any) -> None:
    """Lists the checkpoints of a run and verifies the digests of their files."""
    from jaxmnist.runs.checkpoints import list_checkpoints

    header = ["step", "time", "metrics", "size", "SHA-256 of the parameters"]
    keys = ["step", "time", "summary", "size", "params_sha256"]
    found = list_checkpoints(flags.workdir)
    _show(found, [[row[key] for key in keys] for row in found], header=header, as_json=flags.json)


def config(flags: Any) -> None:
    """Prints the resolved configuration, each key under its comment."""
    found = configuration(flags)
    print(json.dumps(to_dict(found), indent=2) if flags.json else to_text(found))


def info(flags: Any) -> None:
    """Prints versions, devices and memory of this machine."""
    from jaxmnist.runs.info import info

    found = info()
    rows = [[f"{group} {name}", value] for group in found for name, value in found[group].items()]
    _show(found, rows, header=["", ""], as_json=flags.json)


def _show(found: Any, rows: Sequence[Any], *, header: Sequence[str], as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))
    else:
        from jaxmnist.display.terminal import print_table

        print_table(header, rows)
