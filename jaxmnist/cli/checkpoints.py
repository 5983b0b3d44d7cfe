"""`jaxmnist checkpoints`."""

import json
from collections.abc import Sequence

from absl import flags

from jaxmnist.cli.arguments import define_json, parse, require_workdir

_ABOUT = "Lists the checkpoints of a run and verifies the digests of their files."


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "Work directory of the run.", flag_values=values)
    define_json(values)


def main(arguments: Sequence[str]) -> None:
    """Runs the command."""
    parsed = parse("checkpoints", arguments, _define, about=_ABOUT)
    workdir = require_workdir(parsed, "checkpoints")
    from jaxmnist.runs.checkpoints import list_checkpoints

    rows = list_checkpoints(workdir)
    if parsed.json:
        print(json.dumps(rows))
        return
    from jaxmnist.terminal import print_table

    print_table(
        ["step", "time", "metrics", "size", "SHA-256 of the parameters"],
        [[r["step"], r["time"], r["summary"], r["size"], r["params_sha256"]] for r in rows],
    )
