"""`jaxmnist eval`."""

import json
from collections.abc import Sequence

from absl import flags

from jaxmnist.cli.arguments import define_checkpoint, parse, require_workdir

_ABOUT = "Evaluates a checkpoint of a run: every example of the split counts exactly once."


def _define(values: flags.FlagValues) -> None:
    define_checkpoint(values)
    flags.DEFINE_enum(
        "split",
        "test",
        ["test", "train", "validation"],
        "Which examples: test, train or validation.",
        flag_values=values,
    )


def main(arguments: Sequence[str]) -> None:
    """Runs the command."""
    parsed = parse("eval", arguments, _define, about=_ABOUT)
    workdir = require_workdir(parsed, "eval")
    from jaxmnist.runs.evaluate import evaluate

    result = evaluate(workdir, split=parsed.split, step=parsed.step)
    if parsed.json:
        print(json.dumps(result.to_dict()))
        return
    from jaxmnist.terminal import print_evaluation

    print_evaluation(result, title=f"{parsed.split} of {workdir}")
