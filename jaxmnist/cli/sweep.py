"""The command that trains a configuration with many seeds, at every point of a grid."""

import json
from typing import Any

import jaxmnist
from jaxmnist.cli.arguments import configuration
from jaxmnist.errors import JaxmnistError, UsageError


def sweep(flags: Any) -> None:
    """Trains many seeds at every point of a grid and compares them; resumes, too."""
    from jaxmnist.sweep.grid import parse_grid, parse_seeds

    if not flags.seeds:
        raise UsageError("jaxmnist sweep needs --seeds, such as --seeds=0:8 or --seeds=1,5,9")
    seeds, grid = parse_seeds(flags.seeds), parse_grid(flags.grid or ())
    given = [name for name in flags if flags[name].present and name != "workdir"]
    # A flag that is given several times is written as several lines.
    command = [text for name in given for text in flags[name].serialize().split("\n")]
    found = jaxmnist.sweep(
        configuration(flags),
        flags.workdir,
        seeds=seeds,
        grid=grid,
        at_once=flags.at_once,
        quiet=flags.quiet or flags.json,
        command=["jaxmnist", "sweep", *command],
    )
    if flags.json:
        print(json.dumps(found.to_dict()))
    elif not flags.quiet:
        _print(found)
    if found.failed:
        reasons = "".join(f"\n  - {line['run']}: {line['reason']}" for line in found.failed)
        count = f"{len(found.failed)} of {len(found.runs)} runs failed"
        repair = "the figures leave them out; the same command with this --workdir tries them again"
        raise JaxmnistError(f"{count}:{reasons}\n{repair}")


def _print(found: Any) -> None:
    from jaxmnist.display.terminal import print_table
    from jaxmnist.sweep.show import table_rows, verdict

    print_table(*table_rows(found.points), title="sweep")
    if text := verdict(found.points, found.best, found.chosen_by):
        print(text)
    print(*(found.workdir / name for name in ("runs.jsonl", "table.csv", "picture.svg")))
