"""`jaxmnist predict`."""

import json
from collections.abc import Sequence

from jaxmnist.cli.arguments import define_checkpoint, parse, require_workdir
from jaxmnist.errors import UsageError

_ABOUT = "Says which digit is in each image file: any size, colour or grey, dark or light."


def main(arguments: Sequence[str]) -> None:
    """Runs the command."""
    parsed = parse("predict", arguments, define_checkpoint, positional="IMAGE ...", about=_ABOUT)
    workdir = require_workdir(parsed, "predict")
    if not parsed.positional:
        raise UsageError("jaxmnist predict needs image files, such as digit.png")
    from jaxmnist.runs.predict import predict

    predictions = predict(workdir, parsed.positional, step=parsed.step)
    for found in predictions:
        if parsed.json:
            print(json.dumps(vars(found)))
        else:
            print(f"{found.source}: {found.label} ({found.probability:.1%})")
